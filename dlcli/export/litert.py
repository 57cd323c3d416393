"""LiteRT (TensorFlow Lite): one file for phones, small computers and their accelerators."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import dynamic_update_slice
from tensorflow.lite.python.convert_phase import ConverterError

from dlcli.errors import DlcliError
from dlcli.export.example import script
from dlcli.export.exportable import DRAWN_KINDS, arranged
from dlcli.export.fixed_batch import OUTPUT, any_inputs, check_size, graph_function, graph_names
from dlcli.export.format import Exportable, Format, Input, Inputs, Options, Run, Written
from dlcli.export.recurrent import Recurrent, full_length, has_attention, recurrent_layers, replaced

FILE = "model.tflite"

_BLOCK = 4
"""Steps of a recurrent layer in one round of its loop: each round copies the outputs so far."""

_DIFFERENCE = 1e-3
"""Between the probe's outputs and Keras's: beyond it a graph of open shapes is taken for broken."""


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes model.tflite, of open batch and length where LiteRT can, else of fixed ones.

    Raises:
        DlcliError: an operation of the model that LiteRT does not have, float16 of a table, or calibration samples are
            missing.
    """
    check_size(item, "litert")
    if options.quantize == "float16" and item.kind == "table":
        raise DlcliError(
            "format litert: with the weights, its float16 would halve the means and deviations of the columns, which "
            "need their digits; use --quantize int8, or float16 with the formats onnx and openvino"
        )
    batch_size, length, notes = _shapes_that_work(item, options.batch_size)
    content, more = _quantized(item, options, batch_size, length)
    (folder / FILE).write_bytes(content)
    names = graph_names(given.name for given in item.numeric_inputs)
    return Written(batch_size, length, notes + more, {"arguments": names})


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """model.tflite in LiteRT's interpreter on the CPU."""
    content = (folder / FILE).read_bytes()
    run = _interpreted(content, manifest["details"]["arguments"])
    return any_inputs(run, manifest["inputs"], manifest["batch_size"], manifest["length"])


def example(manifest: Mapping[str, Any]) -> str:
    """The text of example.py."""
    names = manifest["details"]["arguments"]
    renamed = '{manifest["details"]["arguments"][name]: value for name, value in inputs.items()}'
    inputs = "inputs" if all(name == argument for name, argument in names.items()) else renamed
    predict = _PREDICT.replace("INPUTS", inputs)
    return script(
        manifest, ["from ai_edge_litert.interpreter import Interpreter"], predict, ["ai-edge-litert"]
    )


_PREDICT = f"""
run = Interpreter(str(here / "{FILE}")).get_signature_runner()


def predict(inputs):
    return run(**INPUTS)["{OUTPUT}"]
"""


def _interpreted(content: bytes, arguments: Mapping[str, str]) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content).get_signature_runner()
    return lambda inputs: runner(**{arguments[name]: array for name, array in inputs.items()})[OUTPUT]


def _shapes_that_work(
    item: Exportable, batch_size: int | None
) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Batch, length and notes: the most open shapes whose graph gives what Keras gives."""
    is_open = any(None in given.shape for given in item.numeric_inputs)
    lengths = [None, item.max_length] if is_open and item.max_length else [None]
    shapes = [(batch_size, length) for length in lengths]
    if batch_size is None:
        shapes.append((1, lengths[-1]))
    reasons: list[str] = []
    for rows, length in shapes:
        try:
            content = _converter(item, rows, length).convert()
            _probe(item, content, rows, length)
        except (ConverterError, RuntimeError, ValueError) as error:
            reasons.append(_reason(error))
            continue
        return rows, length, _notes(batch_size, rows, length, reasons)
    raise DlcliError(
        f"format litert: {reasons[-1]}; the formats onnx, saved_model and keras may hold this model"
    )


def _notes(asked: int | None, rows: int | None, length: int | None, reasons: list[str]) -> tuple[str, ...]:
    fixed = []
    if length is not None:
        fixed.append(f"a fixed length of {length} tokens, shorter texts being padded with 0")
    if rows != asked:
        fixed.append("one example at a time")
    return (f"{' and '.join(fixed)}: {reasons[-1]}",) if fixed else ()


def _reason(error: Exception) -> str:
    """What a converter or an interpreter had against the graph, in one line."""
    message = str(error).strip()
    unknown = re.search(r"(?:TF Select ops|Custom ops): (.+)", message)
    if unknown:
        return f"LiteRT has no operation for {unknown[1]} as this model uses it"
    said = re.search(r"error: (.+)", message) or re.match(r"(.*)", message)
    return f"LiteRT: {said[1][:200] if said else message}"


def _probe(item: Exportable, content: bytes, rows: int | None, length: int | None) -> None:
    """Runs a graph with different numbers of rows and tokens.

    Raises:
        RuntimeError: it does not run, or gives something else than Keras.
    """
    model = item.numeric
    for inputs, found in _run_made_up(item, content, rows, length):
        expected = keras.ops.convert_to_numpy(model(arranged(model, inputs), training=False))
        if found.shape != expected.shape or not np.allclose(found, expected, _DIFFERENCE, _DIFFERENCE):
            raise RuntimeError("the converted graph gives other outputs than Keras")


def _run_made_up(
    item: Exportable, content: bytes, rows: int | None, length: int | None
) -> list[tuple[Inputs, np.ndarray]]:
    """Inputs that differ in their number of rows and tokens, and what the graph gives."""
    given = item.numeric_inputs
    run = _interpreted(content, graph_names(each.name for each in given))
    tried: list[tuple[Inputs, np.ndarray]] = []
    for count, tokens in ((rows or 3, length or 3), (rows or 1, length or item.max_length or 3)):
        inputs = {each.name: _made_up(each, count, tokens) for each in given}
        tried.append((inputs, run(inputs)))
    return tried


def _made_up(given: Input, count: int, tokens: int) -> np.ndarray:
    """Texts of token 1 that grow shorter from row to row, and any numbers for other inputs."""
    shape = [count, *(tokens if side is None else side for side in given.shape)]
    if None in given.shape:
        return (np.arange(tokens) < tokens - np.arange(count)[:, None]).astype(given.dtype)
    return np.random.default_rng(0).integers(0, 2, shape).astype(given.dtype)


def _converter(item: Exportable, rows: int | None, length: int | None) -> Any:
    """TensorFlow's converter for the model in these shapes, with LiteRT's own operations alone."""
    model = item.numeric
    with replaced(model, full_length(_loop)):
        function, signature = graph_function(model, item.numeric_inputs, rows, length)
        graph = function.get_concrete_function(*signature)
    holder = tf.Module()
    holder.weights = list(graph.variables)  # what nobody holds is not in the file
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], holder)


def _quantized(
    item: Exportable, options: Options, rows: int | None, length: int | None
) -> tuple[bytes, tuple[str, ...]]:
    """The graph, and what was done in place of what was asked."""
    if options.quantize != "int8":
        return _optimized(item, options, rows, length).convert(), ()
    reason = _weights_only(item)
    if not reason:
        converter = _optimized(item, options, rows, length)
        converter.representative_dataset = _samples(item, options, rows, length)
        try:
            with (
                warnings.catch_warnings()
            ):  # the calibrator runs TensorFlow's own interpreter, which is to go
                warnings.filterwarnings(
                    "ignore", r"\s*Warning: tf.lite.Interpreter is deprecated", UserWarning
                )
                content = converter.convert()
            _run_made_up(item, content, rows, length)
        except (ConverterError, RuntimeError, ValueError) as error:
            reason = _reason(error)
        else:
            return content, ()
    content = _optimized(item, options, rows, length).convert()
    return content, (f"int8: the weights alone, as activations stay float32: {reason}",)


def _optimized(item: Exportable, options: Options, rows: int | None, length: int | None) -> Any:
    """The converter, told to store weights in 8 bits, or in 16."""
    converter = _converter(item, rows, length)
    if options.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter


def _weights_only(item: Exportable) -> str:
    """Why no activations are quantized; empty where they can be."""
    if recurrent_layers(item.numeric):
        return "LiteRT's converter ends the process when it quantizes those of recurrent layers"
    if item.kind in DRAWN_KINDS:
        return "images made of 8-bit activations show bands"
    if item.kind != "image":
        return "their ranges differ too much from one example to the next in texts and tables"
    if has_attention(item.numeric):
        return "those of attention in 8 bits are slower and less accurate"
    return ""


def _samples(item: Exportable, options: Options, rows: int | None, length: int | None) -> Any:
    """Calibration samples as the converter reads them: as many rows at once as the graph takes."""
    if not options.calibration:
        raise DlcliError(
            "format litert: int8 needs calibration samples of the train split, and there are none"
        )
    names = graph_names(given.name for given in item.numeric_inputs)
    samples = {names[name]: array for name, array in options.calibration.items()}
    step = rows or 1

    def read() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(next(iter(samples.values()))) - step + 1, step):
            yield {name: array[start : start + step] for name, array in samples.items()}

    return read


def _loop(recurrent: Recurrent, sequences: Any, lengths: Any) -> tuple[Any, Any]:
    """A recurrent layer as a loop without lists of tensors: for those LiteRT needs a fixed batch, or all of TensorFlow.

    Returns:
        Outputs (B, T, H) and the state after the last step (B, H).
    """
    (cell,) = recurrent.cells
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _simple_step}[recurrent.operation]
    projected = tf.transpose(tf.matmul(sequences, cell.kernel) + cell.bias[0], [1, 0, 2])  # (T, B, G * H)
    length, rows = tf.unstack(tf.shape(projected)[:2])
    projected = tf.pad(projected, [[0, tf.math.floormod(-length, _BLOCK)], [0, 0], [0, 0]])
    count, units = tf.shape(projected)[0], recurrent.units
    states = [tf.zeros(tf.stack([rows, units]))] * (2 if recurrent.operation == "LSTM" else 1)

    def body(time: Any, outputs: Any, *states: Any) -> tuple[Any, ...]:
        block = []
        for offset in range(_BLOCK):
            states = step(tf.gather(projected, time + offset), states, cell.recurrent_kernel, cell.bias[1])
            block.append(states[0])
        return (
            time + _BLOCK,
            dynamic_update_slice(outputs, tf.stack(block), tf.stack([time, 0, 0])),
            *states,
        )

    _, outputs, last, *_ = tf.while_loop(
        lambda time, *_: time < count,
        body,
        (0, tf.zeros(tf.stack([count, rows, units])), *states),
        shape_invariants=(
            tf.TensorShape(()),
            tf.TensorShape((None, None, units)),
            *[tf.TensorShape((None, units))] * len(states),
        ),
    )
    return tf.transpose(outputs[:length], [1, 0, 2]), last


def _lstm_step(projected: Any, states: Any, recurrent_kernel: Any, bias: Any) -> tuple[Any, ...]:
    hidden, memory = states
    i, f, c, o = tf.split(projected + tf.matmul(hidden, recurrent_kernel), 4, axis=1)
    memory = tf.sigmoid(f) * memory + tf.sigmoid(i) * tf.tanh(c)
    return tf.sigmoid(o) * tf.tanh(memory), memory


def _gru_step(projected: Any, states: Any, recurrent_kernel: Any, bias: Any) -> tuple[Any, ...]:
    (hidden,) = states
    z, r, h = tf.split(projected, 3, axis=1)
    own_z, own_r, own_h = tf.split(tf.matmul(hidden, recurrent_kernel) + bias, 3, axis=1)
    z = tf.sigmoid(z + own_z)
    return (z * hidden + (1 - z) * tf.tanh(h + tf.sigmoid(r + own_r) * own_h),)


def _simple_step(projected: Any, states: Any, recurrent_kernel: Any, bias: Any) -> tuple[Any, ...]:
    return (tf.tanh(projected + tf.matmul(states[0], recurrent_kernel)),)


FORMAT = Format(
    name="litert",
    runtime="ai-edge-litert",
    extra="litert",
    packages=("ai_edge_litert",),
    quantizations=("float16", "int8"),
    strings=False,
    write=write,
    load=load,
    example=example,
)
