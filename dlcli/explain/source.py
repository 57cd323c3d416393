"""RUN -> what can be explained: a model of images, texts or tables, and what its outputs are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from dlcli.data import TEXT_KINDS
from dlcli.data.table_preprocessing import takes_columns
from dlcli.errors import DlcliError
from dlcli.explain.network import Kind, Network
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import tokens_of
from dlcli.pretrained.pixels import choose_mode, scale_pixels
from dlcli.recipe.conflicts import kind_of_data
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, is_run, load_run, refuse_drawing, runs_beside

TEXT_TASKS = ("text_classification", "language_modeling")
"""Of texts: the tasks whose outputs are classes, or the next token."""

OPEN_SIDE = 64
"""Pixels a side of the picture on which a model of images of any size is tried out."""


@dataclass(frozen=True, eq=False)
class Source:
    """What `dlcli explain` was given."""

    path: Path
    """The run folder or the model's file."""
    model: keras.Model
    kind: Kind
    class_names: tuple[str, ...] | None
    """None when the model does not say them."""
    run: Run | None = None
    """None for a file."""
    language: bool = False
    """Whether it predicts the next token."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed."""

    @property
    def recipe(self) -> Recipe | None:
        """The run's; None for a file."""
        return None if self.run is None else self.run.recipe

    def network(self, *, probability: bool) -> Network:
        """The model as explanations see it.

        Args:
            probability: whether probabilities are explained, and not logits.

        Raises:
            DlcliError: a file's model cannot be run.
        """
        try:
            return Network(
                self.model,
                self.kind,
                _example(self.model, self.kind),
                class_names=self.class_names,
                probability=probability,
                language=self.language,
            )
        except DlcliError:
            raise
        except Exception as error:  # what a file's configuration makes of its layers may load, and not run
            if self.run is not None:
                raise
            reason = str(error).strip().partition("\n")[0][:200]
            raise DlcliError(
                f"{self.path}: loads, but cannot be run ({type(error).__name__}: {reason}); get the file again from "
                "where it came"
            ) from error


def open_source(path: str, preprocessing: str = "auto") -> Source:
    """Opens a run folder, or a .keras or .h5 file of any Keras 3 model.

    Args:
        path: of the run or the file.
        preprocessing: of a file's images: how pixels are scaled, as `dlcli features` takes it.

    Raises:
        DlcliError: there is no such run or file, or nothing in it that could be explained.
    """
    where = Path(path).expanduser()
    if is_run(where):
        if preprocessing != "auto":
            raise DlcliError(
                f"--preprocessing {preprocessing}: a run's model scales its images itself; leave it out"
            )
        return _of_run(load_run(where))
    if where.is_dir():
        raise DlcliError(
            f"{path}: a folder without recipe.yaml; give a run that `dlcli train` left, or a .keras file"
        )
    if not where.exists():
        raise DlcliError(f"{path}: no such run or file{runs_beside(where)}")
    from dlcli.pretrained.model_file import load_model_file

    return of_model(where, load_model_file(where, from_outside=True), preprocessing)


def _of_run(run: Run) -> Source:
    refuse_drawing(run, "explain")
    recipe = run.recipe
    kind: Kind = "image"
    if kind_of_data(recipe.dataset.name) in TEXT_KINDS:
        if recipe.task.name not in TEXT_TASKS:
            raise DlcliError(
                f"{run.path}: a model of task {recipe.task.name} gives more than one answer for each text, and "
                f"`explain` explains one; allowed tasks of texts: {', '.join(TEXT_TASKS)}"
            )
        kind = "text"
    elif takes_columns(run.model):
        kind = "table"
    language = recipe.task.name == "language_modeling"
    return Source(run.path, run.model, kind, _names(run.model, language), run, language)


def _names(model: keras.Model, language: bool) -> tuple[str, ...] | None:
    if language:
        tokenizer = tokens_of(model).tokenizer  # type: ignore[union-attr]  # every model of texts has the layer
        return tuple(tokenizer.token(index) for index in range(tokenizer.vocabulary_size))
    last = model.layers[-1]
    return tuple(last.class_names) if isinstance(last, Predictions) else None


def of_model(path: Path, model: keras.Model, preprocessing: str = "auto") -> Source:
    """A model from a file: one of dlcli, or any that reads images or rows of numbers.

    Raises:
        DlcliError: it reads something else.
    """
    own = tokens_of(model) is not None or isinstance(model.layers[-1], Predictions)
    if preprocessing != "auto" and (own or takes_columns(model) or len(model.inputs[0].shape) != 4):
        raise DlcliError(
            f"--preprocessing {preprocessing}: is for models of images from elsewhere; leave it out"
        )
    if tokens_of(model) is not None:
        language = not isinstance(model.layers[-1], Predictions)
        if language and len(model.inputs) > 1:
            raise DlcliError(
                f"{path}: reads {len(model.inputs)} texts; a model that reads one can be explained"
            )
        return Source(path, model, "text", _names(model, language), language=language)
    if takes_columns(model):
        return Source(path, model, "table", _names(model, False))
    if len(model.inputs) != 1:
        raise DlcliError(f"{path}: reads {len(model.inputs)} inputs; a model that reads one can be explained")
    spec = model.inputs[0]
    dtype = keras.backend.standardize_dtype(spec.dtype)
    if len(spec.shape) == 2 and dtype.startswith("float"):
        return Source(path, model, "table", _names(model, False))
    if len(spec.shape) != 4:
        raise DlcliError(
            f"{path}: reads {dtype} of shape {tuple(spec.shape)}; a file from elsewhere has to read images "
            "(B, H, W, C) or rows of numbers (B, D): of a model of texts it does not hold the vocabulary"
        )
    if spec.shape[-1] not in (1, 3):
        raise DlcliError(f"{path}: reads images of {spec.shape[-1]} channels, and files have 1 or 3")
    if isinstance(model.layers[-1], Predictions) and dtype == "uint8":
        return Source(path, model, "image", _names(model, False))
    mode, sentence = choose_mode(model, preprocessing)
    raw = keras.Input(spec.shape[1:], dtype="uint8", name="image")
    pixels = raw if mode is None and dtype == "uint8" else scale_pixels(raw, mode, str(path))
    whole = keras.Model(raw, model(pixels), name="explained")
    notes = [sentence]
    if model.layers and getattr(model.layers[-1], "activation", None) is keras.activations.linear:
        notes.append("its outputs are taken for logits of classes, since the file does not say what they are")
    return Source(path, whole, "image", _names(model, False), notes=tuple(notes))


def _example(model: keras.Model, kind: Kind) -> np.ndarray | dict[str, np.ndarray]:
    """A batch of one, on which the model runs."""
    if kind == "text":
        return np.full((1, 2), 1, np.int32)
    if kind == "image":
        height, width, channels = model.inputs[0].shape[1:]
        return np.zeros((1, height or OPEN_SIDE, width or OPEN_SIDE, channels), np.uint8)
    if takes_columns(model):
        columns = {}
        for name, tensor in model.input.items():
            words = keras.backend.standardize_dtype(tensor.dtype) == "string"
            columns[name] = np.array([[""]], object) if words else np.zeros((1, 1), np.float32)
        return columns
    return np.zeros((1, *model.inputs[0].shape[1:]), np.float32)
