"""SOURCE -> a pretrained model without its head, from raw inputs to features."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import dlcli.layers  # noqa: F401  registers the layers that a run's model names
from dlcli.errors import DlcliError
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import Tokens, tokens_of
from dlcli.layers.walk import named_layers
from dlcli.pretrained.backbone import Backbone
from dlcli.pretrained.fingerprint import fingerprint
from dlcli.pretrained.graph import Cut, Operation, cut_at, is_graph, replay
from dlcli.pretrained.head import before_last_weights, before_named, whole
from dlcli.pretrained.pixels import PIXELS, choose_mode, scale_pixels
from dlcli.recipe.names import canonical
from dlcli.runs import is_run, load_run

IMAGENET_SIZE = 224
"""Pixels a side of a model of keras.applications; `connect` takes others."""

SOURCES = (
    "a run folder, a .keras or .h5 file, imagenet:NAME, hub:PRESET, or a folder with a preset in KerasHub's or Hugging "
    "Face's form"
)


def load_backbone(source: str, layer: str | None = None, preprocessing: str = "auto") -> Backbone:
    """Loads a pretrained model and cuts it where its head begins.

    Args:
        source: a run folder, a .keras or .h5 file, `imagenet:NAME` (a class of keras.applications with ImageNet's
            weights), `hub:PRESET`, or a local preset folder in KerasHub's or Hugging Face's form.
        layer: the layer whose output becomes the features, as `dlcli plan` prints it; what the head reads when left
            out.
        preprocessing: what the source expects of pixels: `none` (0..255), `rescale` (0..1), `tf`, `caffe` or `torch`
            (as in keras.applications); `auto` looks for it in the file, then goes by the names of its layers.

    Raises:
        DlcliError: no such source or layer, a file that cannot be used, or a package that is missing.
    """
    if source.startswith("imagenet"):
        return _of_imagenet(source, layer)
    if source.startswith("hub:"):
        return _of_preset(source.removeprefix("hub:"), source, layer, preprocessing)
    path = Path(source).expanduser()
    if is_run(path):
        return _of_run(path, source, layer)
    if (path / "config.json").is_file():
        return _of_preset(str(path), source, layer, preprocessing)
    if path.is_dir():
        raise DlcliError(
            f"{source}: a folder with neither recipe.yaml (a run) nor config.json (a preset); allowed: {SOURCES}"
        )
    if path.is_file():
        return _of_file(path, source, layer, preprocessing)
    raise DlcliError(f"{source}: no such file or folder; allowed: {SOURCES}")


def _of_run(path: Path, source: str, layer: str | None) -> Backbone:
    from dlcli.tasks import GENERATIVE_TASKS, TASKS

    run = load_run(path)
    if run.recipe.task.name in GENERATIVE_TASKS:
        what = f"; {run.part_path(run.parts[0])} reads images" if run.parts else ""
        raise DlcliError(
            f"{source}: its task is {run.recipe.task.name}, whose model draws and gives no features{what}"
        )
    head = pkgutil.resolve_name(TASKS[run.recipe.task.name]).head
    model = run.model
    cut = cut_at(model, layer) if layer else before_named(model, head)
    if cut is None:
        raise DlcliError(
            f"{source}: has none of its task's layers ({', '.join(head)}); name a layer with `layer`"
        )
    return _of_dlcli(model, cut, source)


def _of_dlcli(model: keras.Model, cut: Cut, source: str) -> Backbone:
    """A saved model of dlcli holds its preprocessing, its vocabulary and its class names."""
    tokens = tokens_of(model)
    classes = tuple(getattr(model.layers[-1], "class_names", ()))
    if tokens is None:
        tensors = [_like(each) for each in cut.inputs]
        features = replay(cut, tensors)
        inputs: Any = tensors
        if isinstance(model.input, dict):  # a table's columns
            by_tensor = {id(old): new for old, new in zip(cut.inputs, tensors, strict=True)}
            inputs = {name: by_tensor[id(x)] for name, x in model.input.items() if id(x) in by_tensor}
        return _backbone(inputs, features, cut, source, classes=classes)
    if len(cut.inputs) != 1:
        names = ", ".join(each.name for each in cut.inputs)
        raise DlcliError(
            f"{source}: layer {cut.layer} depends on more than one text ({names}), and features are of one; name a "
            "layer that reads only one of them (layer: NAME)"
        )
    ids = keras.Input((None,), dtype="int32", name="tokens")
    features = replay(cut, [ids], _without_tokens)
    return _backbone(
        ids, features, cut, source, classes=classes, tokenizer=tokens.tokenizer, max_length=tokens.max_length
    )


def _without_tokens(operation: Any) -> Operation:
    """The layer that holds the vocabulary stays behind: the new network has one of its own."""
    return (lambda ids: ids) if isinstance(operation, Tokens) else operation


def _of_file(path: Path, source: str, layer: str | None, preprocessing: str) -> Backbone:
    from dlcli.pretrained.model_file import load_model_file

    return of_model(load_model_file(path, from_outside=True), source, layer, preprocessing)


def of_model(model: keras.Model, source: str, layer: str | None, preprocessing: str) -> Backbone:
    """Any graph of Keras layers that reads images (B, H, W, C), or a saved model of dlcli.

    Raises:
        DlcliError: it is no such graph, or reads something else.
    """
    if not is_graph(model):
        raise DlcliError(
            f"{source}: a {type(model).__name__} says nowhere which layer reads which, so that it cannot be cut; "
            "rebuild it with keras.Model(inputs, outputs) or keras.Sequential"
        )
    if len(model.outputs) > 1 and layer is None:
        outputs = ", ".join(str(each.shape) for each in model.outputs)
        raise DlcliError(
            f"{source}: gives {len(model.outputs)} outputs ({outputs}); name one layer with `layer`"
        )
    notes: list[str] = []
    cut = cut_at(model, layer) if layer else before_last_weights(model)
    if cut is None:
        cut = whole(model)
        notes.append(f"no output layer found: its last layer ({cut.layer}) gives the features")
    if tokens_of(model) is not None or isinstance(model.layers[-1], Predictions):
        return _of_dlcli(model, cut, source)
    if len(model.inputs) > 1:
        raise DlcliError(f"{source}: reads {len(model.inputs)} inputs, and a data set gives one")
    image = model.inputs[0]
    if len(image.shape) != 4:
        return _of_other(model, cut, source, notes)
    # What was frozen while the source was trained is the recipe's to decide now.
    for _, one in named_layers(model):
        one.trainable = True
    mode, sentence = choose_mode(model, preprocessing)
    raw = keras.Input(image.shape[1:], dtype="uint8", name="image")
    reads_bytes = mode is None and keras.backend.standardize_dtype(image.dtype) == "uint8"
    pixels = raw if reads_bytes else scale_pixels(raw, mode, source)
    classes = tuple(getattr(model.layers[-1], "class_names", ()))
    return _backbone(raw, replay(cut, [pixels]), cut, source, classes=classes, notes=(sentence, *notes))


def _of_other(model: keras.Model, cut: Cut, source: str, notes: Sequence[str]) -> Backbone:
    """Vectors, sequences of vectors, and token ids whose vocabulary is not in the file."""
    kind = keras.backend.standardize_dtype(model.inputs[0].dtype)
    if kind == "string":
        raise DlcliError(
            f"{source}: reads strings, which its own layers split; models of token ids can be used"
        )
    raise DlcliError(
        f"{source}: reads {kind} of shape {tuple(model.inputs[0].shape)}; a file from elsewhere has to read images "
        "(B, H, W, C): of a model of texts the file does not hold the vocabulary, so that its ids mean nothing"
    )


def _of_imagenet(source: str, layer: str | None) -> Backbone:
    from dlcli.architectures.application import application

    name = source.removeprefix("imagenet").removeprefix(":")
    if not name:
        raise DlcliError(f"{source}: of which network? imagenet:NAME, such as imagenet:efficientnet_b0")
    try:
        name = canonical("applications", name)
    except ValueError as error:
        raise DlcliError(f"{source}: {error}") from error
    raw = keras.Input((IMAGENET_SIZE, IMAGENET_SIZE, 3), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 255, name=PIXELS)(raw)
    model = keras.Model(raw, application(scaled, model=name, weights="imagenet"), name=name)
    return _of_dlcli(model, cut_at(model, layer) if layer else whole(model), source)


def _of_preset(preset: str, source: str, layer: str | None, preprocessing: str) -> Backbone:
    from dlcli.pretrained.hub import load_preset

    part = load_preset(preset, source, preprocessing)
    model = keras.Model(part.inputs, part.features, name="preset")
    cut = cut_at(model, layer) if layer else whole(model)
    features = replay(cut, inputs := [_like(each) for each in cut.inputs])
    if part.tokenizer is not None and layer and len(features.shape) == 3:
        features = part.masked(inputs[0], features)
    return _backbone(
        inputs, features, cut, source, tokenizer=part.tokenizer, max_length=part.max_length, notes=part.notes
    )


def _backbone(inputs: Any, features: Any, cut: Cut, source: str, **what_it_is: Any) -> Backbone:
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]
    model = keras.Model(inputs, features, name="backbone")
    tokenizer = what_it_is.get("tokenizer")
    sha256 = fingerprint(model, tokenizer.json if tokenizer else "")
    return Backbone(model, cut.layer, source, sha256, **what_it_is)


def _like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
