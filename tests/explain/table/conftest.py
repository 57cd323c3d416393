"""A model of a table whose columns are numbers with a gap, and words."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.data.table_preprocessing import input_name, table_preprocessing
from dlcli.explain.network import Network
from dlcli.layers.predictions import Predictions

NAN = float("nan")


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    """Numbers with a gap, and words; out of alphabetical order, in which Keras sorts inputs."""
    random = np.random.default_rng(0)
    numbers = random.normal(40, 10, (30, 2)).astype(np.float32)
    numbers[3, 1] = NAN
    words = random.choice(["red", "green", "blue"], 30).astype(object)
    return {
        input_name("weight kg"): numbers[:, [0]],
        input_name("colour"): words[:, None],
        input_name("age"): numbers[:, [1]],
    }


@pytest.fixture(scope="module")
def model(columns: dict[str, np.ndarray]) -> keras.Model:
    keras.utils.set_random_seed(0)
    preprocessing = table_preprocessing(ArrayExamples(columns, np.zeros(30, np.int32)))
    hidden = keras.layers.Dense(8, "tanh")(preprocessing.output)
    outputs = Predictions("classes", ["no", "yes", "maybe"])(keras.layers.Dense(3)(hidden))
    return keras.Model(preprocessing.input, outputs)


@pytest.fixture(scope="module")
def network(model: keras.Model, columns: dict[str, np.ndarray]) -> Network:
    return Network(
        model,
        "table",
        {name: values[:1] for name, values in columns.items()},
        class_names=["no", "yes", "maybe"],
    )
