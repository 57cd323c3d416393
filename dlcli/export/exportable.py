"""A run -> its model as every format takes it: raw inputs in, float32 predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from dlcli.export.format import Exportable, Input
from dlcli.layers.generated_images import GeneratedImages
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.conflicts import kind_of_data
from dlcli.runs import Run

_OUTPUTS = {"question_answering": "spans", "token_classification": "tags"}
"""Tasks whose outputs are not what their last layer says, or that have no layer which says it."""

DRAWN_KINDS = ("latents", "noise")
"""In the place of a kind of data: what models read that draw images."""


def exportable(run: Run) -> Exportable:
    """What a run has to export.

    Args:
        run: of any task. Classes and values come as predictions; a language model gives logits (B, T, V), as does
            masked language modeling; translation takes two inputs, `source` and the `target` so far.

    Raises:
        DlcliError: the run has no model, or it is damaged.
    """
    model = in_float32(run.model)
    numeric, vocabularies = without_strings(model)
    last, tokens = model.layers[-1], tokens_of(model)
    named = isinstance(last, (Predictions, GeneratedImages, NoisePrediction))
    return Exportable(
        model=model,
        numeric=numeric,
        inputs=inputs_of(model),
        numeric_inputs=inputs_of(numeric),
        kind=_kind(run, model),
        target=_OUTPUTS.get(run.recipe.task.name, _target(last)),
        classes=tuple(last.class_names) if named else (),
        vocabularies=vocabularies,
        tokenizer=None if tokens is None else tokens.tokenizer_json,
        max_length=0 if tokens is None else tokens.max_length,
    )


def _kind(run: Run, model: keras.Model) -> str:
    """Kind of data, or what a model that draws reads; a translation of images reads an image."""
    last = model.layers[-1]
    if isinstance(last, NoisePrediction):
        return "noise"
    if isinstance(last, GeneratedImages):
        return "latents" if any(tensor.name == "latents" for tensor in model.inputs) else "image"
    return kind_of_data(run.recipe.dataset.name)


def _target(last: keras.layers.Layer) -> str:
    if isinstance(last, Predictions):
        return last.target
    return {GeneratedImages: "images", NoisePrediction: "noise"}.get(type(last), "text")


def inputs_of(model: keras.Model) -> tuple[Input, ...]:
    """The inputs of a model, in its own order."""
    return tuple(
        Input(tensor.name, tuple(tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype))
        for tensor in model.inputs
    )


def arranged(model: keras.Model, inputs: Mapping[str, Any]) -> Any:
    """Arrays by name, in the structure that the model is called with."""
    names = [tensor.name for tensor in model.inputs]
    return tree.pack_sequence_as(model.input, [inputs[name] for name in names])


def in_float32(model: keras.Model) -> keras.Model:
    """The same model computing in float32: mixed precision is for the hardware that trained it.

    A model of float32 alone is returned as it is.
    """
    config = model.get_config()
    changed = _with_float32(config)
    if changed == config:
        return model
    rebuilt = type(model).from_config(changed)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _with_float32(value: Any) -> Any:
    """A configuration whose half-precision policies are float32; `float16` alone is a cast that somebody asked for."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy" and "float16" in str(value.get("config", {}).get("name")):
            return {**value, "config": {**value["config"], "name": "float32"}}
        return {key: _with_float32(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_float32(each) for each in value)
    return value


def without_strings(model: keras.Model) -> tuple[keras.Model, dict[str, tuple[str, ...]]]:
    """The same network, with an int32 index (B, 1) in the place of each column of text.

    The layers are the model's own, so the weights are shared; only the `StringLookup` in front of each column becomes
    a one-hot of the index. -1, a value that the model never saw, gives a row of zeros, as in the model itself.

    Returns:
        The network, and the values of each such column by the input's name; a model without text as it is.
    """
    words = {
        tensor.name for tensor in model.inputs if keras.backend.standardize_dtype(tensor.dtype) == "string"
    }
    if not words:
        return model, {}
    tensors = {
        tensor.name: keras.Input(
            tensor.shape[1:], dtype="int32" if tensor.name in words else tensor.dtype, name=tensor.name
        )
        for tensor in model.inputs
    }
    vocabularies: dict[str, tuple[str, ...]] = {}

    def call(layer: keras.layers.Layer, *arguments: Any, **keywords: Any) -> Any:
        if not isinstance(layer, keras.layers.StringLookup):
            return layer(*arguments, **keywords)
        (index,) = arguments
        vocabularies[index.name] = tuple(map(str, layer.get_vocabulary(include_special_tokens=False)))
        # The lookup's own first slot is of unseen values, here -1. Layers, not operations: those name themselves, and
        # the names of the model's own may be taken.
        slot = keras.layers.Rescaling(1.0, offset=1.0, dtype="float32", name=f"{layer.name}_slot")(index)
        return keras.layers.CategoryEncoding(
            layer.vocabulary_size(), output_mode="one_hot", dtype="float32", name=layer.name
        )(slot)

    numeric = keras.models.clone_model(
        model,
        input_tensors=arranged(model, tensors),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return numeric, {name: vocabularies[name] for name in tensors if name in words}


def as_numbers(
    inputs: Mapping[str, np.ndarray], vocabularies: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Inputs of `Exportable.model` as those of `Exportable.numeric`: text columns become indices."""
    numbers = dict(inputs)
    for name, vocabulary in vocabularies.items():
        known = {value: index for index, value in enumerate(vocabulary)}
        column = inputs[name]
        found = [known.get(_text(value), -1) for value in column.reshape(-1)]
        numbers[name] = np.array(found, np.int32).reshape(column.shape)
    return numbers


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
