"""Preprocessing of tables: what the network sees, learnt from the train split and kept in the saved model."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.examples import ArrayExamples
from dlcli.data.table_preprocessing import column_name, input_name, model_columns, table_preprocessing
from dlcli.layers import Imputation


def numeric(*values):
    return np.array(values, np.float32)[:, None]


def text(*values):
    return np.array(values, dtype=object)[:, None]


def examples(**columns):
    count = len(next(iter(columns.values())))
    inputs = {input_name(name): values for name, values in columns.items()}
    return ArrayExamples(inputs, np.zeros(count, np.int32))


def features(model, **columns):
    return np.array(model({input_name(name): tf.constant(values) for name, values in columns.items()}))


def test_numbers_are_filled_standardized_and_indicated():
    model = table_preprocessing(examples(a=numeric(1, np.nan, 3, 8), b=numeric(10, 20, 30, 40)))
    out = features(model, a=numeric(3, np.nan), b=numeric(25, np.nan))
    # Median 3 fills a: 1, 3, 3, 8 has mean 3.75, variance 6.6875; b has mean and median 25.
    expected = (3 - 3.75) / np.sqrt(6.6875)
    np.testing.assert_allclose(out, [[expected, 0, 0], [expected, 0, 1]], atol=1e-6)


def test_only_the_given_examples_teach():
    every = examples(a=numeric(0, 2, 1000, np.nan), c=text("x", "y", "z", "x"))
    model = table_preprocessing(every.subset(np.array([0, 1])))
    out = features(model, a=numeric(0, 2), c=text("x", "z"))
    np.testing.assert_allclose(out, [[-1, 1, 0], [1, 0, 0]], atol=1e-6)  # z was not seen: zeros


def test_categories_are_one_hot_with_missing_as_one_of_them():
    model = table_preprocessing(examples(c=text("b", "", "a", "b")))
    out = features(model, c=text("", "a", "b", "new"))
    np.testing.assert_array_equal(out, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize("values", [(5, 5, 5), (np.nan, np.nan, np.nan), (0, 0, 0), (1e6, 1e6, 1e6)])
def test_constant_columns_do_not_explode(values):
    model = table_preprocessing(examples(a=numeric(*values)))
    out = features(model, a=numeric(6, np.nan))
    assert np.isfinite(out).all()
    assert np.abs(out[:, 0]).max() <= 1e6


def test_precision_is_kept_under_mixed_precision():
    large = numeric(100_000, 200_000, 300_000)  # beyond float16
    keras.config.set_dtype_policy("mixed_float16")
    try:
        out = features(
            table_preprocessing(examples(a=large, c=text("x", "y", "x"))), a=large, c=text("x", "y", "x")
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[:, 0], [-1.2247449, 0, 1.2247449], rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "age",
        "hours per week",
        "a/b",
        "_private",
        "1st",
        "0x20_",
        "00x5f_x",
        "a0x20_b",
        "年齢",
        "dense",
        "a.b:c",
        "#",
        "€ (%)",
    ],
)
def test_input_names_give_the_column_back(name):
    assert column_name(input_name(name)) == name
    assert input_name(name).replace("_", "").isalnum()
    assert input_name(name).isascii()


def test_input_names_differ_where_columns_do():
    names = ["a b", "a0x20_b", "a-b", "a_b", "A b", "a  b", "0x20_", " "]
    assert len({input_name(name) for name in names}) == len(names)
    with pytest.raises(ValueError, match="column_"):
        column_name("age")


def test_columns_may_be_named_like_layers():
    columns = {"dense": numeric(1, 2), "a/b": numeric(3, 5), "imputation": text("x", "y")}
    inputs = {input_name(name): values for name, values in columns.items()}
    preprocessing = table_preprocessing(ArrayExamples(inputs, np.zeros(2, np.int32)))
    outputs = keras.layers.Dense(1, name="dense")(preprocessing.output)
    model = keras.Model(preprocessing.input, outputs)
    assert model({name: tf.constant(values) for name, values in inputs.items()}).shape == (2, 1)


def test_a_saved_model_predicts_from_raw_columns_in_plain_keras(tmp_path):
    source = examples(**{"a b": numeric(1, np.nan, 3), "c": text("x", "", "ü")})
    model = table_preprocessing(source)
    model.save(tmp_path / "model.keras")
    expected = np.array(model(source.read(tf.range(3))))
    code = """
import json, sys, keras, numpy, tensorflow
import dlcli.layers
model = keras.saving.load_model(sys.argv[1])
columns = {"column_a0x20_b": [[1.0], [float("nan")], [3.0]], "column_c": [["x"], [""], ["ü"]]}
inputs = {name: tensorflow.constant(values) for name, values in columns.items()}
print(json.dumps(numpy.array(model(inputs)).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_array_equal(np.array(json.loads(done.stdout), np.float32), expected)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert model_columns(loaded) == (["a b"], ["c"])


def test_runs_inside_a_data_stream():
    source = examples(a=numeric(1, np.nan, 3), c=text("x", "", "y"))
    model = table_preprocessing(source)
    batches = tf.data.Dataset.range(3).batch(2).map(lambda indices: model(source.read(indices)))
    streamed = np.concatenate([batch.numpy() for batch in batches])
    np.testing.assert_array_equal(streamed, np.array(model(source.read(tf.range(3)))))


def test_other_examples_are_refused():
    with pytest.raises(ValueError, match="dict of columns"):
        table_preprocessing(ArrayExamples(np.zeros((2, 3)), np.zeros(2, np.int32)))


def test_imputation_refuses_indicators_of_columns_that_are_not_there():
    with pytest.raises(ValueError, match="below 2"):
        Imputation([0.0, 1.0], indicators=[2])
