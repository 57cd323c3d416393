"""What is exported is the run's model: without strings, and in float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.data.table_preprocessing import table_preprocessing
from dlcli.export.exportable import arranged, as_numbers, in_float32, inputs_of, without_strings
from dlcli.export.verify import keras_run
from dlcli.layers.predictions import Predictions

COLOURS = ["red", "blue", "", "grün"]


def table(rows=40):
    random = np.random.default_rng(0)
    return {
        "column_size": random.normal(5, 2, (rows, 1)).astype("float32"),
        "column_colour": random.choice(COLOURS, (rows, 1)),
        "column_form": random.choice(["round", "square"], (rows, 1)),
        "column_age": np.where(random.random((rows, 1)) < 0.2, np.nan, 30).astype("float32"),
    }


@pytest.fixture(scope="module")
def model():
    """As `build_models` makes it: preprocessing, a model inside, predictions."""
    keras.utils.set_random_seed(0)
    columns = table()
    before = table_preprocessing(ArrayExamples(columns, np.zeros(40, np.int32)))
    inside = keras.Input(before.output.shape[1:], name="features")
    logits = keras.layers.Dense(3)(keras.layers.Dense(8, activation="relu")(inside))
    body = keras.Model(inside, logits, name="mlp")
    predictions = Predictions("classes", ["a", "b", "c"], name="predictions")
    return keras.Model(before.input, predictions(body(before.output)), name="predictor")


def test_a_table_of_numbers_gives_exactly_what_the_table_of_words_gives(model):
    numeric, vocabularies = without_strings(model)
    inputs = {
        **table(),
        "column_colour": np.array([[*COLOURS, "never seen"][i % 5] for i in range(40)])[:, None],
    }
    numbers = as_numbers(inputs, vocabularies)
    assert {each.name: each.dtype for each in inputs_of(numeric)} == {
        "column_size": "float32", "column_age": "float32", "column_colour": "int32", "column_form": "int32",
    }  # fmt: skip
    assert vocabularies["column_colour"] == tuple(sorted(COLOURS))
    assert numbers["column_colour"][4] == -1
    assert numbers["column_colour"].dtype == np.int32
    expected = keras_run(model)(inputs)
    assert np.ptp(expected, axis=0).min() > 1e-3  # rows differ, so that equality says something
    np.testing.assert_array_equal(keras_run(numeric)(numbers), expected)


def test_an_unseen_word_is_not_the_first_word_of_the_vocabulary(model):
    numeric, vocabularies = without_strings(model)
    row = {name: column[:1] for name, column in as_numbers(table(), vocabularies).items()}
    unseen = keras_run(numeric)({**row, "column_colour": np.array([[-1]], np.int32)})
    first = keras_run(numeric)({**row, "column_colour": np.array([[0]], np.int32)})
    assert np.abs(unseen - first).max() > 1e-3


def test_the_network_without_strings_shares_the_weights_and_can_be_saved(model, tmp_path):
    numeric, vocabularies = without_strings(model)
    assert {id(weight) for weight in numeric.weights} == {id(weight) for weight in model.weights}
    numeric.save(tmp_path / "numeric.keras")
    loaded = keras.models.load_model(tmp_path / "numeric.keras")
    numbers = as_numbers(table(), vocabularies)
    np.testing.assert_array_equal(keras_run(loaded)(numbers), keras_run(model)(table()))


def test_a_model_without_words_stays_what_it_is():
    inputs = keras.Input((4,), name="features")
    plain = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert without_strings(plain) == (plain, {})
    assert in_float32(plain) is plain


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_left_behind(precision):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="features")
    hidden = keras.layers.Dense(16, activation="tanh", dtype=precision)(inputs)
    mixed = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(hidden))
    values = {"features": np.random.default_rng(0).normal(size=(50, 6)).astype("float32")}
    whole = in_float32(mixed)
    assert {layer.compute_dtype for layer in whole.layers} == {"float32"}
    hidden_units = np.tanh(values["features"] @ mixed.weights[0].numpy() + mixed.weights[1].numpy())
    exact = hidden_units @ mixed.weights[2].numpy() + mixed.weights[3].numpy()
    np.testing.assert_allclose(keras_run(whole)(values), exact, atol=1e-5)
    assert np.abs(keras_run(mixed)(values) - exact).max() > 1e-5


def test_inputs_go_to_the_places_of_their_names(model):
    given = {name: name for name in table()}
    assert arranged(model, given) == given
