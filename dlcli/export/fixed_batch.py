"""A Keras model as a TensorFlow function of open or fixed shapes, and artefacts of fixed shapes run on any inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.export.exportable import arranged
from dlcli.export.format import Exportable, Input, Inputs, Run

OUTPUT = "predictions"
"""The name of every graph's output."""

LARGEST = 2**31 - 2**24
"""Bytes of weights: files of ONNX and LiteRT end at 2**31, and hold the graph too."""


def graph_names(given: Iterable[str]) -> dict[str, str]:
    """Input name -> its name in graphs that allow only letters, digits and underscores; no two are alike."""
    names: dict[str, str] = {}
    for original in given:
        name = re.sub(r"\W", "_", original, flags=re.ASCII)
        name = name if re.match(r"[A-Za-z]", name) else f"input_{name}"
        while name in names.values():
            name += "_"
        names[original] = name
    return names


def graph_function(
    model: keras.Model, inputs: Sequence[Input], batch_size: int | None = None, length: int | None = None
) -> tuple[Any, list[tf.TensorSpec]]:
    """A function of one tensor an input, in their order, that gives `{"predictions": float32}`; and its signature.

    Args:
        model: takes one tensor, or a dict or list of them.
        inputs: of the model.
        batch_size: rows; None leaves the batch open.
        length: of every side that an input leaves open; None leaves them open.
    """
    known = graph_names(given.name for given in inputs)

    def call(*tensors: Any) -> dict[str, Any]:
        by_name = {given.name: tensor for given, tensor in zip(inputs, tensors, strict=True)}
        return {OUTPUT: keras.ops.cast(model(arranged(model, by_name), training=False), "float32")}

    signature = [
        tf.TensorSpec(
            (batch_size, *(length if side is None else side for side in given.shape)),
            given.dtype,
            known[given.name],
        )
        for given in inputs
    ]
    return tf.function(call, autograph=False), signature


def check_size(item: Exportable, name: str) -> None:
    """Refuses models of more weights than a format's files can hold.

    Raises:
        DlcliError: 2 GiB or more.
    """
    size = 4 * item.numeric.count_params()
    if size >= LARGEST:
        raise DlcliError(
            f"format {name}: its files end at 2 GiB, and this model has {size / 2**30:.1f} GiB of weights; use the "
            "formats saved_model, openvino or weights"
        )


def any_inputs(
    run: Callable[[dict[str, np.ndarray]], np.ndarray],
    inputs: Sequence[Mapping[str, Any]],
    batch_size: int | None,
    length: int | None,
) -> Run:
    """An artefact of fixed shapes, run on any number of rows and on texts of any length up to its own.

    Rows are run `batch_size` at a time, the last ones filled up with copies of the last row; sequences are filled up
    with 0 to `length`, which for every model of dlcli is padding. What was added is cut off the outputs, which in
    translation are as many as the tokens of `target`.

    Args:
        run: takes exactly `batch_size` rows of exactly `length` tokens; any number of what is None.
        inputs: `name`, `shape` and `dtype` of each, as in the manifest.
        batch_size: rows that the artefact takes.
        length: tokens that it takes.
    """

    def run_any(given: Inputs) -> np.ndarray:
        arrays = {each["name"]: np.asarray(given[each["name"]], each["dtype"]) for each in inputs}
        tokens = 0
        if length is not None:
            tokens = arrays.get("target", next(iter(arrays.values()))).shape[1]
            arrays = {name: _lengthened(name, array, length) for name, array in arrays.items()}
        count = len(next(iter(arrays.values())))
        if batch_size is None or count == 0:
            return _shortened(run(arrays), length, tokens)
        parts = []
        for start in range(0, count, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            parts.append(
                _shortened(run({name: array[rows] for name, array in arrays.items()}), length, tokens)
            )
        return np.concatenate(parts)[:count]

    return run_any


def _lengthened(name: str, array: np.ndarray, length: int) -> np.ndarray:
    """(N, T) -> (N, length)."""
    if array.shape[1] > length and array[:, length:].any():
        raise ValueError(f"Expected at most {length} tokens in {name}. Received: shape {array.shape}")
    array = array[:, :length]
    return np.pad(array, ((0, 0), (0, length - array.shape[1])))


def _shortened(outputs: np.ndarray, length: int | None, tokens: int) -> np.ndarray:
    """(N, length, K) -> (N, tokens, K); outputs of another form have nothing to cut."""
    outputs = np.asarray(outputs, "float32")
    is_sequence = length is not None and outputs.ndim > 2 and outputs.shape[1] == length
    return outputs[:, :tokens] if is_sequence else outputs
