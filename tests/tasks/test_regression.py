"""Regression learns standardized targets, and speaks in the target's own unit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.errors import DataError
from dlcli.tasks.regression import Regression

INFO = DataInfo("table", (2,), "values", ("price",))
TARGETS = np.array([[100.0], [300.0]], "float32")  # mean 200, deviation 100


def test_targets_are_standardized_and_predictions_are_not() -> None:
    task = Regression(INFO, TARGETS)
    assert task.encode(TARGETS).tolist() == [[-1.0], [1.0]]
    inputs = keras.Input((1,))
    model = keras.Model(inputs, task.predictions(inputs))
    assert model(np.array([[-1.0], [0.5]], "float32")).numpy().tolist() == [[100.0], [250.0]]


def test_metrics_are_in_the_targets_own_unit() -> None:
    task = Regression(INFO, TARGETS, metrics=["root_mean_squared_error"])
    mae, rmse = task.metric_functions()
    for metric in (mae, rmse):
        metric.update_state(np.array([[0.0], [0.0]], "float32"), np.array([[0.3], [0.4]], "float32"))
    assert float(mae.result()) == pytest.approx(35.0, rel=1e-5)
    assert float(rmse.result()) == pytest.approx(np.sqrt((30**2 + 40**2) / 2), rel=1e-5)


def test_standardizing_can_be_turned_off() -> None:
    assert Regression(INFO, TARGETS, standardize_targets=False).encode(TARGETS).tolist() == [[100.0], [300.0]]


def test_a_constant_target_does_not_divide_by_zero() -> None:
    assert Regression(INFO, np.array([[5.0], [5.0]])).encode(np.array([[5.0]])).tolist() == [[0.0]]


def test_classes_are_refused() -> None:
    with pytest.raises(DataError, match="use `task: tabular_classification`"):
        Regression(DataInfo("table", (2,), "classes", ("a", "b")), np.array([0, 1]))
