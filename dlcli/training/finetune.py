"""Where fine-tuning starts: SOURCE -> the recipe to train, and the weights of a run in a new network."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dlcli.architectures import READ_A_SOURCE
from dlcli.console import note
from dlcli.data.examples import Data
from dlcli.data.images import PREPROCESSING
from dlcli.data.table_preprocessing import column_name
from dlcli.errors import DataError, DlcliError
from dlcli.layers.positions import PositionEmbedding
from dlcli.layers.tokens import tokens_of
from dlcli.layers.walk import named_layers
from dlcli.pretrained.graph import read_by
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, is_run, load_run, refuse_drawing, runs_beside
from dlcli.tasks import GENERATIVE_TASKS, TASKS
from dlcli.training.build import Models

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


class SourceRun:
    """A run whose weights, preprocessing and vocabulary a new training takes over.

    Args:
        run: that `dlcli train` left.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def of(cls, recipe: Recipe) -> SourceRun | None:
        """The run that a recipe is fine-tuned from; None for another source, and without one."""
        source = None if recipe.finetune is None else recipe.finetune.source
        if source is None or not is_run(source) or recipe.architecture.name in READ_A_SOURCE:
            return None
        return cls(load_run(source))

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary that the source's embedding knows."""
        tokens = tokens_of(self.run.model)
        if tokens is None:
            return None
        note(
            f"texts are split as {self.run.path} splits them, into its {tokens.tokenizer.vocabulary_size:,} tokens "
            "(dataset.tokenizer is not used)"
        )
        return tokens.tokenizer

    @cached_property
    def head(self) -> tuple[str, ...]:
        """Names of the layers that the source's task added."""
        return tuple(pkgutil.resolve_name(TASKS[self.run.recipe.task.name]).head)

    def with_preprocessing(self, data: Data) -> Data:
        """The data with the source's statistics and columns in the place of their own.

        Raises:
            DataError: another number of channels, or other columns.
        """
        if data.preprocessing is None:
            return data
        model = self.run.model
        if data.info.kind == "image":
            return replace(
                data, preprocessing=_image_preprocessing(model, data.preprocessing.input.shape[1:])
            )
        ours, theirs = set(data.preprocessing.input), set(model.input)
        if ours != theirs:
            missing, unknown = (
                {column_name(each) for each in names} for names in (theirs - ours, ours - theirs)
            )
            raise DataError(
                f"the table's columns are not those of {self.run.path}: missing {_listed(missing)}; unknown "
                f"{_listed(unknown)}"
            )
        body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        return replace(
            data, preprocessing=keras.Model(model.input, read_by(model, body)[0], name="preprocessing")
        )

    def copy_weights(self, models: Models, recipe: Recipe) -> None:
        """Puts the source's weights into a network of the same architecture.

        Raises:
            DlcliError: the layers before the head differ; with the first one and both shapes.
        """
        theirs = _with_weights(self.run.model, self.head)
        ours = _with_weights(models.predictor, models.task.head)
        for (name, layer), (their_name, source) in zip(ours, theirs, strict=False):
            values = [_cut(weight, layer, source) for weight in source.get_weights()]
            shapes = [tuple(weight.shape) for weight in layer.weights]
            if [value.shape for value in values] != shapes:
                raise DlcliError(
                    f"layer {name} has weights of {_shapes(shapes)}, and {their_name} of {self.run.path} has "
                    f"{_shapes([value.shape for value in values])}.{self._hint(recipe)}"
                )
            layer.set_weights(values)
        if len(ours) != len(theirs):
            raise DlcliError(
                f"the recipe's network has {len(ours)} layers with weights before its head, and that of "
                f"{self.run.path} has {len(theirs)}.{self._hint(recipe)}"
            )
        self._copy_head(models, recipe)

    def _copy_head(self, models: Models, recipe: Recipe) -> None:
        """The output layers go on where task and classes are the same; else they start anew, and the user hears it."""
        wanted = "auto" if recipe.finetune is None else recipe.finetune.head
        ours = _with_weights(models.predictor, models.task.head, inside=True)
        theirs = _with_weights(self.run.model, self.head, inside=True)
        same = self.run.recipe.task.name == recipe.task.name and _names(models.predictor) == _names(
            self.run.model
        )
        fits = [[w.shape for w in layer.weights] for _, layer in ours] == [
            [w.shape for w in layer.weights] for _, layer in theirs
        ]
        if wanted == "keep" and not (same and fits):
            raise DlcliError(
                f"finetune.head keep: the outputs of {self.run.path} are {_listed(_names(self.run.model))} of task "
                f"{self.run.recipe.task.name}, and the data have {_listed(_names(models.predictor))} of task "
                f"{recipe.task.name}; use `head: auto` or `new`"
            )
        if wanted == "new" or not (same and fits):
            note("the output layers are new: they start from random weights")
            return
        for (_, layer), (_, source) in zip(ours, theirs, strict=True):
            layer.set_weights(source.get_weights())
        note("the output layers of the source go on, since task and classes are the same")

    def _hint(self, recipe: Recipe) -> str:
        """What to change, when the weights do not fit."""
        own = self.run.recipe
        if own.architecture != recipe.architecture:
            return (
                f" The source's architecture is {_spec(own.architecture.model_dump())}, the recipe's is "
                f"{_spec(recipe.architecture.model_dump())}: --set architecture='...'"
            )
        shape = getattr(self.run.model.input, "shape", None)
        return (
            f" The source reads {shape}: give inputs of that size, or take a fully convolutional architecture"
        )


def with_source(recipe: Recipe, source: str | None) -> Recipe:
    """The recipe as it is trained from a source: paths from the root, stages and epochs in agreement.

    Args:
        recipe: with or without a `finetune` section.
        source: `--from`; when left out, the recipe's `finetune.source`, or the source of its architecture.

    Raises:
        DlcliError: there is no source, or none of that name, or a setting that does not go with it.
    """
    from dlcli.recipe.load import resolve, with_absolute_paths
    from dlcli.recipe.schema import Finetune

    finetune = recipe.finetune or Finetune()
    source = source or finetune.source
    if source is None and recipe.architecture.name in READ_A_SOURCE:
        source = recipe.architecture.arguments["source"]
    if source is None:
        raise DlcliError(
            "fine-tune from what? --from RUN, a .keras or .h5 file, imagenet, hub:PRESET or a preset folder; or "
            "finetune.source in the recipe"
        )
    source = _checked(source)
    if recipe.task.name in GENERATIVE_TASKS:
        raise DlcliError(
            f"task {recipe.task.name} learns from random weights, not from another model's: use `dlcli train`, and "
            "`dlcli train --resume RUN` to go on with one that was interrupted"
        )
    if is_run(source):
        refuse_drawing(load_run(source), "finetune")
    changes: dict[str, Any] = {"finetune": finetune.model_copy(update={"source": source})}
    if source == "imagenet":
        changes["architecture"] = _imagenet(recipe)
    elif recipe.architecture.name in READ_A_SOURCE:
        changes["architecture"] = recipe.architecture.model_dump(mode="json") | {"source": source}
    elif not is_run(source):
        note(
            f"the architecture is that of {source}; the recipe's own ({recipe.architecture.name}) is not used"
        )
        changes["architecture"] = {"name": "pretrained", "source": source}
    if finetune.head == "keep" and "architecture" in changes:
        raise DlcliError(f"finetune.head keep: the output layers of {source} are left out; use `head: auto`")
    if finetune.stages:
        epochs = sum(stage.epochs for stage in finetune.stages)
        if epochs != recipe.training.epochs:
            note(
                f"{epochs} epochs, as finetune.stages has it; training.epochs {recipe.training.epochs} is for `train`"
            )
        changes["training"] = recipe.training.model_copy(update={"epochs": epochs})
    _check_lora(finetune)
    changed = recipe.model_dump(mode="json") | {
        name: value if isinstance(value, dict) else value.model_dump(mode="json")
        for name, value in changes.items()
    }
    return with_absolute_paths(resolve(Recipe.model_validate(changed)))


def without_preprocessing(data: Data) -> Data:
    """Raw images for a pretrained network, which brings the preprocessing that it was trained with."""
    if data.info.kind != "image" or data.preprocessing is None:
        return data
    image = keras.Input(data.preprocessing.input.shape[1:], dtype="uint8", name="image")
    return replace(data, preprocessing=keras.Model(image, image, name="preprocessing"))


def _checked(source: str) -> str:
    """The source as it can be found from any folder."""
    if source == "imagenet" or source.startswith(("hub:", "imagenet:")):
        return source
    path = Path(source).expanduser()
    if not path.exists():
        raise DlcliError(
            f"--from {source}: no such run, file or folder{runs_beside(path)}. Allowed: a run folder, a .keras "
            "or .h5 file, imagenet, hub:PRESET, or a folder with a preset"
        )
    return str(path.absolute())


def _imagenet(recipe: Recipe) -> dict[str, Any]:
    if recipe.architecture.name != "application":
        raise DlcliError(
            "--from imagenet: those weights are of networks of keras.applications, and the recipe's architecture is "
            f"{recipe.architecture.name}: --set architecture='{{name: application, model: efficientnet_b0}}'"
        )
    return recipe.architecture.model_dump(mode="json") | {"weights": "imagenet"}


def _check_lora(finetune: Any) -> None:
    freezes = [stage.freeze for stage in finetune.stages] or [finetune.freeze]
    if finetune.lora is not None and all(freeze == "all" for freeze in freezes):
        raise DlcliError(
            "finetune.lora with `freeze: all`: no adapter would learn. The source's own weights are frozen anyway; "
            "leave `freeze` out, or give a stage that frees the adapters"
        )


def _image_preprocessing(model: keras.Model, shape: Sequence[int]) -> keras.Model:
    """The source's first layer on images of another size."""
    layer = next((layer for layer in model.layers if layer.name in PREPROCESSING), None)
    image = keras.Input(shape, dtype="uint8", name="image")
    if layer is None:  # a pretrained network, which has its preprocessing elsewhere
        return keras.Model(image, image, name="preprocessing")
    note(
        f"pixels go through the source's own preprocessing ({layer.name}; dataset.normalization is not used)"
    )
    channels = model.input.shape[-1]
    if channels != shape[-1]:
        raise DataError(
            f"the source reads images of shape {_side(model.input.shape[1:])}, and the data have {_side(shape)}: set "
            "dataset.color_mode to the source's channels"
        )
    return keras.Model(image, type(layer).from_config(layer.get_config())(image), name="preprocessing")


def _with_weights(
    model: keras.Model, head: Sequence[str], *, inside: bool = False
) -> list[tuple[str, keras.layers.Layer]]:
    """Layers with weights before the head, or `inside` it."""
    return [
        (name, layer)
        for name, layer in named_layers(model)
        if layer.weights and (name.rpartition("/")[2] in head) == inside
    ]


def _cut(weight: np.ndarray, layer: keras.layers.Layer, source: keras.layers.Layer) -> np.ndarray:
    """Of a table of positions, as many as the new network has: a shorter text has the first ones."""
    if isinstance(layer, PositionEmbedding) and isinstance(source, PositionEmbedding):
        return weight[: layer.max_length]
    return weight


def _names(model: keras.Model) -> tuple[str, ...]:
    return tuple(getattr(model.layers[-1], "class_names", ()))


def _listed(names: Any) -> str:
    names = list(names) if isinstance(names, tuple) else sorted(names)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"


def _spec(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(_side(shape) for shape in shapes) or "none"


def _side(shape: Sequence[Any]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "()"


def source_sha256(recipe: Recipe) -> str | None:
    """Of the model that a recipe starts from; None where there is none, or none on this machine."""
    source = None if recipe.finetune is None else recipe.finetune.source
    source = source or recipe.architecture.arguments.get("source")
    if source is None or not Path(source).exists():
        return None
    path = Path(source) / "model.keras" if is_run(source) else Path(source)
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            with each.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
