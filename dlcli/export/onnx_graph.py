"""ONNX: one graph for onnxruntime on any device, also in browsers (onnxruntime-web)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dlcli.errors import DlcliError
from dlcli.export.example import script
from dlcli.export.fixed_batch import OUTPUT, any_inputs, check_size, graph_function, graph_names
from dlcli.export.format import Exportable, Format, Input, Options, Run, Written
from dlcli.export.recurrent import Recurrent, has_attention, marker, replaced

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"

OPSET = 17
"""Has LayerNormalization; read by every onnxruntime, onnxruntime-web and OpenVINO since 2022."""

_GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "h"}
"""The order in which ONNX wants the gates of a recurrent layer, in Keras's letters."""

_DYNAMIC = ["Gather", "Gemm", "LSTM", "MatMul"]
"""Operations whose weights become 8-bit where activations are quantized as they come. A convolution would be slower
so; onnxruntime has none of GRU and RNN."""

_DYNAMIC_NOTE = (
    "int8: the weights of dense, embedding, attention and LSTM layers; activations are quantized as they come"
)

_SHARED_FROM = 2**16
"""Numbers of a matrix from which its transpose is looked for."""

_HALF_FROM = 128
"""Matrices of fewer numbers stay float32, and so does what is no matrix: means and deviations need their digits."""


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes model.onnx.

    Raises:
        DlcliError: an operation of the model that ONNX does not have, or calibration samples are missing.
    """
    import onnx

    check_size(item, "onnx")
    graph = convert(item.numeric, item.numeric_inputs, options.batch_size)
    notes: tuple[str, ...] = ()
    path = folder / FILE
    if options.quantize == "int8":
        notes = _write_int8(graph, path, item, options)
    else:
        if options.quantize == "float16":
            _halve(graph)
        onnx.save(graph, path)
    onnx.checker.check_model(path, full_check=True)
    return Written(batch_size=options.batch_size, notes=notes)


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """model.onnx in onnxruntime on the CPU."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    return any_inputs(
        lambda inputs: session.run([OUTPUT], inputs)[0], manifest["inputs"], manifest["batch_size"], None
    )


def example(manifest: Mapping[str, Any]) -> str:
    """The text of example.py."""
    return script(manifest, ["import onnxruntime"], _PREDICT, ["onnxruntime"])


_PREDICT = f"""
session = onnxruntime.InferenceSession(here / "{FILE}", providers=["CPUExecutionProvider"])


def predict(inputs):
    return session.run(["{OUTPUT}"], inputs)[0]
"""


def convert(model: keras.Model, inputs: tuple[Input, ...], batch_size: int | None = None) -> onnx.ModelProto:
    """The model as a checked graph, its inputs and its output called by their names.

    Raises:
        DlcliError: an operation that ONNX does not have.
    """
    import onnx

    layers: dict[str, Recurrent] = {}
    with replaced(model, marker(layers)):
        import tf2onnx

        function, signature = graph_function(model, inputs, batch_size)
        graph, _ = tf2onnx.convert.from_function(
            function,
            signature,
            opset=OPSET,
            custom_op_handlers={"PyFunc": (_recurrent_node(layers), [])},
            custom_rewriter=[_keep_choices],
        )
        _embed(graph.graph, function.get_concrete_function(*signature).graph.captures)
    _replace_erfc(graph)
    _share_transposed(graph.graph)
    _rename(graph, inputs)
    unknown = sorted({node.op_type for node in graph.graph.node if not _is_known(node)})
    if unknown:
        raise DlcliError(
            f"format onnx: ONNX has no operation for {', '.join(unknown)} of this model; the formats keras and "
            "saved_model hold every model"
        )
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _is_known(node: onnx.NodeProto) -> bool:
    import onnx

    return node.domain != "" or onnx.defs.has(node.op_type, OPSET, "")


def _recurrent_node(layers: Mapping[str, Recurrent]) -> Callable[..., None]:
    """What tf2onnx calls for each mark: puts ONNX's operation in its place, which is time-major."""

    def handle(graph: Any, node: Any, *_: Any) -> None:
        recurrent = layers[node.get_attr_str("token")]
        sequences, lengths = node.input
        outputs, states = node.output
        first, second = (
            {"shapes": [shape], "dtypes": [dtype]}
            for shape, dtype in zip(node.output_shapes, node.output_dtypes, strict=True)
        )
        graph.remove_node(node.name)
        kernels, recurrent_kernels, biases = recurrent.stacked(_GATES[recurrent.operation])
        count, width = len(recurrent.cells), recurrent.units * len(recurrent.cells)

        def constant(name: str, value: Any, dtype: str = "float32") -> str:
            return graph.make_const(f"{node.name}_{name}", np.asarray(value, dtype)).output[0]

        def add(operation: str, inputs: Sequence[str], **attributes: Any) -> list[str]:
            count = attributes.pop("outputs", 1)
            return graph.make_node(operation, list(inputs), attr=attributes, output_count=count).output

        (time_major,) = add("Transpose", [sequences], perm=[1, 0, 2])
        weights = [
            constant("kernels", kernels),
            constant("recurrent_kernels", recurrent_kernels),
            constant("biases", biases.reshape(count, -1)),
        ]
        attributes = {"hidden_size": recurrent.units, "direction": recurrent.direction}
        if recurrent.operation == "GRU":
            attributes["linear_before_reset"] = 1  # as in cuDNN, and in Keras with reset_after
        all_outputs, last = add(
            recurrent.operation, [time_major, *weights, lengths], outputs=2, **attributes
        )  # (T, S, B, H), (S, B, H)
        if count == 1:  # a transpose of sides of 1 would become a reshape, to a shape that tf2onnx gets wrong
            (all_outputs,) = add("Squeeze", [all_outputs, constant("direction", [1], "int64")])
            (last,) = add("Squeeze", [last, constant("first", [0], "int64")])
            graph.make_node("Transpose", [all_outputs], outputs=[outputs], attr={"perm": [1, 0, 2]}, **first)
            graph.make_node("Identity", [last], outputs=[states], **second)
            return
        (all_outputs,) = add("Transpose", [all_outputs], perm=[2, 0, 1, 3])
        (last,) = add("Transpose", [last], perm=[1, 0, 2])
        shape = constant("shape", [0, 0, width], "int64"), constant("state_shape", [0, width], "int64")
        graph.make_node("Reshape", [all_outputs, shape[0]], outputs=[outputs], **first)
        graph.make_node("Reshape", [last, shape[1]], outputs=[states], **second)

    return handle


def _keep_choices(graph: Any, nodes: Any) -> Any:
    """Lets `where` stay a choice: tf2onnx adds both sides, each times 0 or 1, and 0 times infinity is NaN."""
    for node in nodes:
        if node.type in ("Select", "SelectV2"):
            node.set_attr("handles_nan", True)
    return nodes


def _embed(body: onnx.GraphProto, captures: Iterable[tuple[Any, Any]]) -> None:
    """Stores the constants of layers such as Normalization, which tf2onnx takes for inputs of the graph."""
    from onnx import numpy_helper

    values = {inside.name: outside for outside, inside in captures}
    used = {name for node in body.node for name in node.input}  # some were folded into others
    for given in [each for each in body.input if each.name in values]:
        if given.name in used:
            body.initializer.append(numpy_helper.from_array(values[given.name].numpy(), given.name))
        body.input.remove(given)


def _replace_erfc(graph: onnx.ModelProto) -> None:
    """Erfc(x) -> 1 - Erf(x), in subgraphs too: tf2onnx writes Erfc for exact GELU, and ONNX has no such operation."""
    from onnx import helper, numpy_helper

    def replace(body: onnx.GraphProto) -> None:
        nodes = []
        for node in body.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    replace(attribute.g)
            if node.op_type != "Erfc":
                nodes.append(node)
                continue
            (name,) = node.output
            body.initializer.append(numpy_helper.from_array(np.array(1, "float32"), f"{name}_one"))
            nodes += [
                helper.make_node("Erf", node.input, [f"{name}_erf"]),
                helper.make_node("Sub", [f"{name}_one", f"{name}_erf"], [name]),
            ]
        del body.node[:]
        body.node.extend(nodes)

    replace(graph.graph)


def _share_transposed(body: onnx.GraphProto) -> None:
    """Stores a matrix and its transpose once: an embedding that is also the output matrix of a language model."""
    from onnx import helper, numpy_helper

    kept: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for weight in [
        each for each in body.initializer if len(each.dims) == 2 and np.prod(each.dims) >= _SHARED_FROM
    ]:
        values = numpy_helper.to_array(weight)
        same = next(
            (name for name, other in kept.get(values.shape[::-1], ()) if np.array_equal(other.T, values)),
            None,
        )
        if same is None:
            kept.setdefault(values.shape, []).append((weight.name, values))
            continue
        body.node.insert(0, helper.make_node("Transpose", [same], [weight.name], perm=[1, 0]))
        body.initializer.remove(weight)


def _rename(graph: onnx.ModelProto, inputs: Sequence[Input]) -> None:
    """Inputs and output get their names, and open sides are called `batch` and `length`.

    Sides of one name are taken for equal, so those of two texts, or of a picture, have names of their own.
    """
    known = {graph_name: name for name, graph_name in graph_names(given.name for given in inputs).items()}
    body = graph.graph
    one_length = sum(side is None for given in inputs for side in given.shape) <= 1
    names = {value.name: known[value.name.removesuffix(":0")] for value in body.input}
    names |= {value.name: OUTPUT for value in body.output}
    for node in body.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*body.input, *body.output):
        value.name = names[value.name]
        for index, side in enumerate(value.type.tensor_type.shape.dim):
            if not side.HasField("dim_value"):
                open_side = "length" if one_length else f"{value.name}_{index}"
                side.dim_param = open_side if index else "batch"


def _halve(graph: onnx.ModelProto) -> None:
    """Weights become float16 and are cast back when the graph is loaded: half the file, computed in float32."""
    from onnx import TensorProto, helper, numpy_helper

    body, casts = graph.graph, []
    for weight in body.initializer:
        values = numpy_helper.to_array(weight)
        is_matrix = sum(side > 1 for side in values.shape) > 1 and values.size >= _HALF_FROM
        if not is_matrix or values.dtype != np.float32 or np.abs(values).max() > np.finfo("float16").max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *body.node]
    del body.node[:]
    body.node.extend(nodes)


def _write_int8(graph: onnx.ModelProto, path: Path, item: Exportable, options: Options) -> tuple[str, ...]:
    """8-bit weights; of convolutions also 8-bit activations, whose ranges the calibration samples give."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    convolves = any(node.op_type == "Conv" for node in graph.graph.node)
    static = item.kind == "image" and convolves and not has_attention(item.numeric)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        whole, ready = Path(scratch, "whole.onnx"), Path(scratch, "ready.onnx")
        onnx.save(graph, whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        if not static:
            quantize_dynamic(
                ready, path, op_types_to_quantize=_DYNAMIC, weight_type=QuantType.QInt8, per_channel=True
            )
            return (_DYNAMIC_NOTE,)
        quantize_static(
            ready,
            path,
            _samples(options, item),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            reduce_range=True,  # 7-bit weights: sums of 8-bit ones overflow on processors without VNNI
            weight_type=QuantType.QInt8,
        )
        return ()


def _samples(options: Options, item: Exportable) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    if not options.calibration:
        raise DlcliError("format onnx: int8 needs calibration samples of the train split, and there are none")
    samples, rows = options.calibration, options.batch_size or 1

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(samples.values()))) // rows
            self.batches = (
                {k: v[i * rows : (i + 1) * rows] for k, v in samples.items()} for i in range(count)
            )

        def get_next(self) -> Any:
            return next(self.batches, None)

    return Samples()


FORMAT = Format(
    name="onnx",
    runtime="onnxruntime",
    extra="onnx",
    packages=("tf2onnx", "onnx", "onnxruntime"),
    quantizations=("float16", "int8"),
    strings=False,
    write=write,
    load=load,
    example=example,
)
