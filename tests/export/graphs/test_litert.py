"""LiteRT files in their own interpreter say what Keras says; where shapes must be fixed, they are, and it is said."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.export import litert
from dlcli.export.format import Input, Options, Written

pytest.importorskip("ai_edge_litert")

TOKENS = Input("tokens", (None,), "int32")


def export(case, folder, **options):
    """The artefact as loaded, and what was written."""
    written = litert.write(case.item, folder, Options(**options))
    return litert.load(folder, case.manifest(written)), written


def large_types(folder):
    """Types of the larger tensors of the file, most of them weights."""
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(str(folder / "model.tflite")).get_tensor_details()
    return [each["dtype"] for each in found if np.prod(each["shape"]) >= 100]


@pytest.mark.parametrize("name", ["image", "table", "gpt", "bilstm", "lstm", "gru", "simple_rnn", "fasttext"])
def test_says_what_keras_says_whatever_the_shape(name, case, tmp_path):
    one = case(name)
    run, written = export(one, tmp_path)
    assert (written.batch_size, written.length, written.notes) == (None, None, ())
    shapes = [(1,), (5,)] if one.item.kind != "text" else [(1, 12), (5, 12), (4, 3), (1, 1)]
    for shape in shapes:
        inputs = one.inputs(*shape)
        np.testing.assert_allclose(run(inputs), one.keras(inputs), rtol=1e-4, atol=1e-5)


class OpenLength(keras.layers.Layer):
    """As a mask for attention: two new sides in the middle, of open length, which LiteRT does not have."""

    def call(self, inputs):
        return tf.cast(inputs, "float32")[:, None, None, :]

    def compute_output_shape(self, shape):
        return (shape[0], 1, 1, shape[1])


def masked_case(case, last):
    """The texts of another model, read by `last` after a slice of open length."""
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    return case("lstm").with_model(keras.Model(inputs, last(OpenLength()(inputs))), TOKENS)


def test_a_length_that_must_be_fixed_is_fixed_and_told(case, tmp_path):
    one = masked_case(case, lambda x: keras.ops.squeeze(x * 2, (1, 2))[:, :, None])
    run, written = export(one, tmp_path)
    assert (written.batch_size, written.length) == (None, 12)
    assert "12 tokens" in written.notes[0] and "StridedSlice" in written.notes[0]
    inputs = one.inputs(5, 7)
    np.testing.assert_allclose(
        run(inputs), one.keras(inputs)
    )  # (5, 7, 1): the added tokens are cut off again


def test_a_loop_of_keras_takes_one_text_at_a_time(case, tmp_path):
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.LSTM(4, activation="softsign")(keras.layers.Embedding(40, 4, mask_zero=True)(inputs))
    one = case("lstm").with_model(keras.Model(inputs, x), TOKENS)
    run, written = export(one, tmp_path)
    assert (written.batch_size, written.length) == (1, 12)
    assert "one example at a time" in written.notes[0] and "TensorList" in written.notes[0]
    given = one.inputs(3, 5)
    np.testing.assert_allclose(run(given), one.keras(given), atol=1e-5)


def test_a_batch_that_litert_cannot_take_is_refused(case, monkeypatch, tmp_path):
    monkeypatch.setattr(litert, "_probe", refuse)
    with pytest.raises(DlcliError, match="format litert: LiteRT: no such batch"):
        litert.write(case("table").item, tmp_path, Options(batch_size=4))
    assert not list(tmp_path.iterdir())


def refuse(*_):
    raise RuntimeError("no such batch")


def test_a_fixed_batch(case, tmp_path):
    one = case("image")
    run, written = export(one, tmp_path, batch_size=4)
    assert written.batch_size == 4
    inputs = one.inputs(6)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=1e-5)


def test_a_graph_that_says_something_else_is_not_taken(case, monkeypatch, tmp_path):
    monkeypatch.setattr(litert, "_lstm_step", lambda projected, states, *_: states)
    with pytest.raises(DlcliError, match="other outputs than Keras"):
        litert.write(case("lstm").item, tmp_path, Options())
    assert not list(tmp_path.iterdir())


def test_float16(case, tmp_path):
    one = case("image")
    run, _ = export(one, tmp_path, quantize="float16")
    assert np.float16 in large_types(tmp_path)
    inputs = one.inputs(5)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=5e-3)


def test_float16_would_take_the_digits_of_large_columns(case, tmp_path):
    with pytest.raises(DlcliError, match="means and deviations"):
        litert.write(case("table").item, tmp_path, Options(quantize="float16"))


def test_int8_images_are_calibrated_and_come_as_pixels(case, tmp_path):
    one = case("image")
    run, written = export(one, tmp_path, quantize="int8", calibration=one.inputs(32))
    assert written.notes == ()
    kinds = large_types(tmp_path)
    assert np.int8 in kinds and np.uint8 in kinds
    assert kinds.count(np.float32) == 1  # the pixels on their way from uint8; all else is small integers
    inputs = one.inputs(30)
    assert (run(inputs).argmax(-1) == one.keras(inputs).argmax(-1)).mean() > 0.9
    with pytest.raises(DlcliError, match="calibration samples"):
        litert.write(one.item, tmp_path, Options(quantize="int8"))


@pytest.mark.parametrize(("name", "why"), [("lstm", "recurrent"), ("table", "tables")])
def test_int8_of_others_is_of_the_weights_alone(name, why, case, tmp_path):
    one = case(name)
    run, written = export(one, tmp_path, quantize="int8", calibration=one.inputs(8))
    assert "the weights alone" in written.notes[0] and why in written.notes[0]
    inputs = one.inputs(5)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=0.05)


def test_the_example_renames_what_litert_cannot_call(case, tmp_path):
    one = case("table")
    _, written = export(one, tmp_path)
    assert written.details["arguments"] == {"age (years)": "age__years_", "work-class": "work_class"}
    manifest = one.manifest(written)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "sample.json").write_text(
        json.dumps({"age (years)": None, "work-class": "state"}), encoding="utf-8"
    )
    (tmp_path / "example.py").write_text(litert.example(manifest), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    row = {"age (years)": np.full((1, 1), np.nan, "float32"), "work-class": np.ones((1, 1), "int32")}
    expected = one.keras(row)[0]
    assert done.stdout.split() == ["abc"[expected.argmax()], f"{expected.max():.4f}"], done.stderr


def test_the_example_needs_no_names_where_they_fit(case):
    assert "run(**inputs)" in litert.example(
        case("image").manifest(Written(details={"arguments": {"image": "image"}}))
    )
