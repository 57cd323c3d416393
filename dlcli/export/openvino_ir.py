"""OpenVINO: model.xml and model.bin for Intel's runtime on CPU, GPU and NPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.errors import DlcliError
from dlcli.export.example import script
from dlcli.export.fixed_batch import OUTPUT, any_inputs, graph_function
from dlcli.export.format import Exportable, Format, Options, Run, Written
from dlcli.export.recurrent import Recurrent, full_length, marker, replaced

FILE = "model.xml"

_GATES = {"LSTM": "fico", "GRU": "zrh", "RNN": "h"}
"""The order in which OpenVINO wants the gates of a recurrent layer, in Keras's letters."""


def openvino() -> Any:
    """The package, without its telemetry.

    `import openvino` sends statistics of its use to Google Analytics, unless its user has opted out with a file in
    the home folder, or openvino_telemetry cannot be imported: OpenVINO then takes a stub that sends nothing.
    """
    if (
        "openvino" not in sys.modules
    ):  # also where something else has imported it before: importing it now fails
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


@cache
def core() -> Any:
    """OpenVINO's runtime, one for the life of the process.

    With its last Core goes the CPU plugin, and with that the stack for signals which the plugin has given to the
    process: the next signal (Ctrl-C) then ends it with a segmentation fault (OpenVINO 2026.4).
    """
    return openvino().Core()


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes model.xml, and model.bin with the weights: float32, or float16 where `quantize` says so.

    Raises:
        DlcliError: an operation that OpenVINO does not have, or int8.
    """
    if options.quantize == "int8":
        raise DlcliError(
            "format openvino: int8 needs NNCF, which dlcli does not depend on; use --quantize float16, or int8 "
            "with the formats litert and onnx"
        )
    ov = openvino()
    model = _converted(item, options.batch_size)
    for given, port in zip(item.numeric_inputs, model.inputs, strict=True):
        port.get_tensor().set_names({given.name})
    ov.save_model(model, folder / FILE, compress_to_fp16=options.quantize == "float16")
    return Written(batch_size=options.batch_size)


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """model.xml, compiled for the CPU and to compute in float32."""
    model = core().compile_model(folder / FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return any_inputs(
        lambda inputs: model(inputs)[OUTPUT], manifest["inputs"], manifest["batch_size"], manifest["length"]
    )


def example(manifest: Mapping[str, Any]) -> str:
    """The text of example.py."""
    return script(manifest, [], _PREDICT, ["openvino"])


_PREDICT = f"""
sys.modules["openvino_telemetry"] = None  # importing OpenVINO would send statistics of its use
import openvino

model = openvino.Core().compile_model(here / "{FILE}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})


def predict(inputs):
    return model(inputs)["{OUTPUT}"]
"""


def _converted(item: Exportable, batch_size: int | None) -> Any:
    """The model as OpenVINO's graph; recurrent layers as its own operations."""
    ov = openvino()
    import tensorflow as tf
    from openvino.frontend import OpConversionFailure
    from openvino.frontend.tensorflow import ConversionExtension, utils

    # OpenVINO 2026.4 asks with `exec("del tensorflow")`, which Python 3.13 refuses inside a function.
    utils.get_environment_setup = lambda framework: {"tensorflow": tf.__version__}
    layers: dict[str, Recurrent] = {}
    with replaced(item.numeric, full_length(marker(layers))):
        function, signature = graph_function(item.numeric, item.numeric_inputs, batch_size)
        graph = function.get_concrete_function(*signature)
    extensions = [
        ConversionExtension(
            "PyFunc", lambda node: _recurrent_node(layers[node.get_attribute("token")], node)
        ),
        ConversionExtension("FloorMod", _remainder),
    ]
    try:
        return ov.convert_model(graph, extension=extensions, share_weights=False)
    except OpConversionFailure as error:
        raise DlcliError(
            f"format openvino: {_reason(str(error))}; the format onnx may hold this model"
        ) from error


def _reason(message: str) -> str:
    """What OpenVINO's long report says of the operations that it could not convert."""
    unknown = re.search(r"No conversion rule found for operations: (.+)", message)
    if unknown:
        return f"OpenVINO has no operation for {unknown[1].strip()} of this model"
    failed = re.search(r"Conversion is failed for: (.+)", message)
    return f"OpenVINO could not convert {failed[1].strip() if failed else message.strip()[:300]}"


def _recurrent_node(recurrent: Recurrent, node: Any) -> list[Any]:
    """OpenVINO's sequence operation in the place of a mark: outputs (B, T, S * H) and last states (B, S * H)."""
    from openvino import opset13 as ops

    sequences, lengths = node.get_input(0), node.get_input(1)
    count, width = len(recurrent.cells), recurrent.units * len(recurrent.cells)
    kernels, recurrent_kernels, biases = recurrent.stacked(_GATES[recurrent.operation])
    rows = ops.gather(ops.shape_of(sequences), [0], 0)
    state = ops.broadcast(
        np.float32(0), ops.concat([rows, np.array([count, recurrent.units])], 0)
    )  # (B, S, H)
    if recurrent.operation == "GRU":
        # The state's bias stands alone, behind the three sums: with linear_before_reset the reset gate multiplies it.
        summed, own = biases.sum(axis=1), biases[:, 1, -recurrent.units :]
        summed[:, -recurrent.units :] -= own
        found = ops.gru_sequence(
            sequences, state, lengths, kernels, recurrent_kernels, np.concatenate([summed, own], axis=1),
            recurrent.units, recurrent.direction, linear_before_reset=True,
        )  # fmt: skip
    elif recurrent.operation == "LSTM":
        found = ops.lstm_sequence(
            sequences, state, state, lengths, kernels, recurrent_kernels, biases.sum(axis=1),
            recurrent.units, recurrent.direction,
        )  # fmt: skip
    else:
        found = ops.rnn_sequence(
            sequences, state, lengths, kernels, recurrent_kernels, biases.sum(axis=1),
            recurrent.units, recurrent.direction,
        )  # fmt: skip
    outputs = ops.transpose(found.output(0), [0, 2, 1, 3])  # (B, S, T, H) -> (B, T, S, H)
    return [
        ops.reshape(outputs, np.array([0, 0, width]), True).output(0),
        ops.reshape(found.output(1), np.array([0, width]), True).output(0),
    ]


def _remainder(node: Any) -> list[Any]:
    """The remainder of integers: OpenVINO's own on the CPU divides in float32, which has 24 bits, and hashes have 30.

    Twice the float32 quotient is taken off, which leaves at most one divisor too many or too few.
    """
    from openvino import opset13 as ops

    number, divisor = node.get_input(0), node.get_input(1)
    if number.get_element_type().is_real():
        return [ops.floor_mod(number, divisor).output(0)]
    kind, divisor_real = number.get_element_type(), ops.convert(divisor, np.float32)
    for _ in range(2):
        quotient = ops.floor(ops.divide(ops.convert(number, np.float32), divisor_real))
        number = ops.subtract(number, ops.multiply(ops.convert(quotient, kind), divisor))
    number = ops.select(ops.less(number, ops.subtract(divisor, divisor)), ops.add(number, divisor), number)
    number = ops.select(ops.greater_equal(number, divisor), ops.subtract(number, divisor), number)
    return [number.output(0)]


FORMAT = Format(
    name="openvino",
    runtime="openvino",
    extra="openvino",
    packages=("openvino",),
    quantizations=("float16",),
    strings=False,
    write=write,
    load=load,
    example=example,
)
