"""ONNX graphs in onnxruntime say what Keras says, for every kind of model, number of rows and length."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.architectures.seq2seq_transformer import seq2seq_transformer
from dlcli.errors import DlcliError
from dlcli.export.format import Exportable, Input, Options

onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from dlcli.export import onnx_graph  # noqa: E402  only where its packages are

MODELS = ["image", "table", "transformer", "gpt", "bilstm", "lstm", "gru", "simple_rnn", "fasttext"]


def export(case, folder, **options):
    """The artefact as loaded, the graph, and what was written."""
    folder.mkdir(exist_ok=True)
    written = onnx_graph.write(case.item, folder, Options(**options))
    graph = onnx.load(folder / "model.onnx")
    return onnx_graph.load(folder, case.manifest(written)), graph, written


def operations(graph):
    return {node.op_type for node in graph.graph.node}


@pytest.mark.parametrize("name", MODELS)
def test_says_what_keras_says_whatever_the_shape(name, case, tmp_path):
    one = case(name)
    run, graph, written = export(one, tmp_path)
    assert (written.batch_size, written.length) == (None, None)
    shapes = [(1,), (5,)] if one.item.kind != "text" else [(1, 12), (5, 12), (4, 3), (1, 1)]
    for shape in shapes:
        inputs = one.inputs(*shape)
        np.testing.assert_allclose(run(inputs), one.keras(inputs), rtol=1e-4, atol=1e-5)
    assert not {"Loop", "Erfc"} & operations(graph)


def test_names_and_open_sides_are_readable(case, tmp_path):
    _, graph, _ = export(case("table"), tmp_path / "table")
    assert [each.name for each in graph.graph.input] == ["age (years)", "work-class"]
    assert [each.name for each in graph.graph.output] == ["predictions"]
    _, graph, _ = export(case("lstm"), tmp_path / "text")
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param for side in sides] == ["batch", "length"]


def test_two_texts_have_lengths_of_their_own(case, tmp_path):
    """onnxruntime takes sides of one name for equal, and reuses memory of the wrong size."""
    sides = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    arguments = {"num_layers": 1, "num_heads": 2, "width": 8, "feedforward_width": 8}
    features = seq2seq_transformer(sides, 20, 12, **arguments)
    model = keras.Model(sides, keras.layers.Dense(20, name="logits")(features))
    given = tuple(Input(name, (None,), "int32") for name in sides)
    item = Exportable(model, model, given, given, "pairs", "text", (), max_length=12)
    run, graph, _ = export(case("gpt")._replace(item=item), tmp_path)
    assert [side.dim_param for each in graph.graph.input for side in each.type.tensor_type.shape.dim[1:]] == [
        "source_1",
        "target_1",
    ]
    ids = np.arange(1, 13, dtype="int32")[None]
    for source, target in ((6, 4), (3, 5), (5, 4), (5, 9), (12, 2), (1, 10)):
        inputs = {"source": ids[:, :source], "target": ids[:, :target]}
        np.testing.assert_allclose(run(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_exact_gelu_becomes_an_operation_that_onnx_has(case, tmp_path):
    _, graph, _ = export(case("transformer"), tmp_path)
    assert "Erf" in operations(graph)
    onnx.checker.check_model(graph, full_check=True)


def test_recurrent_layers_are_one_operation(case, tmp_path):
    _, graph, _ = export(case("bilstm"), tmp_path)
    assert [node.op_type for node in graph.graph.node].count("LSTM") == 2
    layer = next(each for each in case("bilstm").item.numeric.layers if "bidirectional" in each.name)
    assert "call" not in vars(layer)  # the model itself is as it was


def test_a_fixed_batch_takes_any_number_of_rows_through_the_loader(case, tmp_path):
    one = case("image")
    run, graph, written = export(one, tmp_path, batch_size=4)
    assert written.batch_size == 4
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    inputs = one.inputs(6)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=1e-5)


def test_tied_embeddings_are_stored_once(monkeypatch):
    monkeypatch.setattr(onnx_graph, "_SHARED_FROM", 32)
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    embedding = keras.layers.ReversibleEmbedding(40, 8, tie_weights=True)
    model = keras.Model(inputs, embedding(keras.layers.Dense(8)(embedding(inputs)), reverse=True))
    graph = onnx_graph.convert(model, (Input("tokens", (None,), "int32"),))
    assert [sorted(each.dims) for each in graph.graph.initializer].count([8, 40]) == 1
    assert "Transpose" in operations(graph)


def test_constants_of_layers_are_in_the_graph(case, tmp_path):
    inputs = keras.Input(
        (200,), name="x"
    )  # TensorFlow hands on larger constants in another way than small ones
    scaled = keras.layers.Normalization(mean=np.arange(200.0) * 1000, variance=np.arange(1.0, 201))(inputs)
    one = case("image").with_model(keras.Model(inputs, scaled), Input("x", (200,), "float32"))
    found = {"x": np.ones((2, 200), "float32")}
    for quantize in (None, "float16"):  # a mean of 189,664 dollars has no float16
        run, graph, _ = export(one, tmp_path, quantize=quantize)
        assert [each.name for each in graph.graph.input] == ["x"]
        np.testing.assert_allclose(run(found), one.keras(found), rtol=1e-5)


def test_float16_halves_the_weights(case, tmp_path):
    one = case("image")
    run, graph, _ = export(one, tmp_path, quantize="float16")
    types = {tuple(each.dims): each.data_type for each in graph.graph.initializer}
    assert types[(512, 3)] == onnx.TensorProto.FLOAT16
    inputs = one.inputs(5)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=5e-3)


def test_int8_convolutions_are_calibrated(case, tmp_path):
    one = case("image")
    run, graph, written = export(one, tmp_path, quantize="int8", calibration=one.inputs(32))
    assert {"QuantizeLinear", "DequantizeLinear"} <= operations(graph)
    assert onnx.TensorProto.INT8 in {each.data_type for each in graph.graph.initializer}
    assert written.notes == ()
    inputs = one.inputs(30)
    agree = run(inputs).argmax(-1) == one.keras(inputs).argmax(-1)
    assert agree.mean() > 0.9
    with pytest.raises(DlcliError, match="calibration samples"):
        onnx_graph.write(one.item, tmp_path, Options(quantize="int8"))


def test_int8_texts_keep_their_activations_and_say_so(case, tmp_path):
    one = case("bilstm")
    run, graph, written = export(one, tmp_path, quantize="int8")
    assert "DynamicQuantizeLSTM" in operations(graph)
    assert "as they come" in written.notes[0]
    inputs = one.inputs(5)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=0.05)


@keras.saving.register_keras_serializable("tests")
class Bessel(keras.layers.Layer):
    """An operation that hardly any format has."""

    def call(self, inputs):
        import tensorflow as tf

        return tf.math.bessel_i0e(inputs)

    def compute_output_shape(self, shape):
        return shape


def test_what_onnx_cannot_say_is_refused_by_name(tmp_path):
    inputs = keras.Input((4,), name="x")
    model, given = keras.Model(inputs, Bessel()(inputs)), (Input("x", (4,), "float32"),)
    with pytest.raises(DlcliError, match="ONNX has no operation for BesselI0e"):
        onnx_graph.write(
            Exportable(model, model, given, given, "table", "values", ("y",)), tmp_path, Options()
        )
    assert not list(tmp_path.iterdir())


def test_the_example_runs_without_dlcli(case, tmp_path):
    one = case("image")
    _, _, written = export(one, tmp_path)
    manifest = one.manifest(written)
    pixels = one.inputs(1)["image"]
    Image.fromarray(pixels[0]).save(tmp_path / "sample.png")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "example.py").write_text(onnx_graph.example(manifest), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    expected = one.keras({"image": pixels})[0]
    assert done.stdout.split() == ["abc"[expected.argmax()], f"{expected.max():.4f}"], done.stderr
