"""Artefacts of fixed shapes take any inputs, and recurrent layers go by other ways and come back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.export import fixed_batch
from dlcli.export.fixed_batch import any_inputs, check_size, graph_function, graph_names
from dlcli.export.format import Input
from dlcli.export.recurrent import full_length, recurrent_layers, replaced

TOKENS = [{"name": "tokens", "shape": [None], "dtype": "int32"}]


def recorder(seen, outputs):
    def run(arrays):
        seen.append({name: array.copy() for name, array in arrays.items()})
        return outputs(arrays)

    return run


def test_rows_are_filled_up_and_cut_off():
    seen = []
    images = [{"name": "image", "shape": [2], "dtype": "uint8"}]
    run = any_inputs(recorder(seen, lambda arrays: arrays["image"] * 10.0), images, 4, None)
    rows = np.arange(10).reshape(5, 2)
    np.testing.assert_array_equal(run({"image": rows}), rows * 10)
    assert [each["image"].shape for each in seen] == [(4, 2), (4, 2)]
    assert seen[0]["image"].dtype == np.uint8
    np.testing.assert_array_equal(seen[1]["image"], [[8, 9]] * 4)


def test_texts_are_padded_with_0_and_outputs_of_tokens_cut():
    seen = []
    run = any_inputs(recorder(seen, lambda arrays: arrays["tokens"][:, :, None] * 2.0), TOKENS, None, 6)
    np.testing.assert_array_equal(run({"tokens": [[1, 2, 3], [4, 0, 0]]})[:, :, 0], [[2, 4, 6], [8, 0, 0]])
    np.testing.assert_array_equal(seen[0]["tokens"], [[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0]])


def test_outputs_of_a_text_as_a_whole_are_not_cut():
    run = any_inputs(lambda arrays: np.ones((len(arrays["tokens"]), 6)), TOKENS, 1, 6)
    assert run({"tokens": np.ones((3, 2))}).shape == (3, 6)


def test_a_translation_has_as_many_outputs_as_its_target():
    both = [{"name": name, "shape": [None], "dtype": "int32"} for name in ("source", "target")]
    run = any_inputs(lambda arrays: np.ones((*arrays["target"].shape, 3)), both, None, 8)
    assert run({"source": np.ones((2, 5)), "target": np.ones((2, 4))}).shape == (2, 4, 3)


def test_a_text_too_long_is_refused_unless_it_is_padding():
    run = any_inputs(lambda arrays: arrays["tokens"], TOKENS, None, 2)
    np.testing.assert_array_equal(run({"tokens": [[1, 2, 0]]}), [[1, 2]])
    with pytest.raises(ValueError, match="at most 2 tokens"):
        run({"tokens": [[1, 2, 3]]})


def test_names_for_graphs_are_plain_and_differ():
    names = graph_names(["age (years)", "age-(years)", "größe", "1st", "tokens"])
    assert list(names) == ["age (years)", "age-(years)", "größe", "1st", "tokens"]
    assert len(set(names.values())) == 5
    assert all(name.isascii() and name.isidentifier() for name in names.values())
    assert names["tokens"] == "tokens"


def test_a_function_takes_inputs_in_their_order_and_of_fixed_shapes():
    inputs = {"b": keras.Input((None,), name="b"), "a": keras.Input((2,), name="a")}
    model = keras.Model(inputs, keras.ops.sum(inputs["b"], -1, keepdims=True) - inputs["a"])
    given = (Input("b", (None,), "float32"), Input("a", (2,), "float32"))
    function, signature = graph_function(model, given, 3, 4)
    assert [(each.name, each.shape.as_list()) for each in signature] == [("b", [3, 4]), ("a", [3, 2])]
    found = function(tf.ones((3, 4)), tf.ones((3, 2)))
    np.testing.assert_array_equal(found["predictions"], np.full((3, 2), 3))


def test_models_too_large_for_a_file_are_refused(case, monkeypatch):
    check_size(case("image").item, "onnx")
    monkeypatch.setattr(fixed_batch, "LARGEST", 100)
    with pytest.raises(DlcliError, match="format onnx: its files end at 2 GiB"):
        check_size(case("image").item, "onnx")


@pytest.mark.parametrize("merge_mode", ["sum", "mul", "ave", "concat"])
def test_both_directions_are_joined_as_the_layer_says(merge_mode):
    """With Keras's own layers in the place of a target's operations."""
    inputs = keras.Input((None, 3))
    layer = keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True), merge_mode=merge_mode)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    expected, asked = np.asarray(model(x)), []

    def run(recurrent, sequences, lengths):
        asked.append(recurrent.direction)
        (cell,) = recurrent.cells
        own = keras.layers.GRU(2, return_sequences=True)
        own.build(sequences.shape)
        own.set_weights([cell.kernel, cell.recurrent_kernel, cell.bias])
        return own(sequences), None

    with replaced(model, full_length(run)):
        found = np.asarray(model(x))
    assert asked == ["forward", "forward"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "call" not in vars(layer)


def test_layers_that_differ_from_what_targets_have_keep_their_loop():
    inputs = keras.Input((None, 3))
    x = keras.layers.LSTM(2, activation="relu", return_sequences=True)(inputs)
    x = keras.layers.GRU(2, reset_after=False, return_sequences=True)(x)
    x = keras.layers.SimpleRNN(2, activation="relu", return_sequences=True)(x)
    model = keras.Model(inputs, keras.layers.RNN(keras.layers.LSTMCell(2))(x))
    assert len(recurrent_layers(model)) == 4
    with replaced(model, lambda *_: pytest.fail("asked for a layer that it does not compute")):
        assert model(np.ones((1, 4, 3), "float32")).shape == (1, 2)
