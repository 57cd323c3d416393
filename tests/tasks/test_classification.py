"""Losses, metrics and outputs of the classification tasks against hand-computed values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.errors import DataError
from dlcli.recipe.names import keras_class_name, keras_names
from dlcli.tasks.classification import NOT_OF_CLASSES, ImageClassification, TabularClassification

LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], "float32"))


def image_info(*names: str, target: str = "classes") -> DataInfo:
    return DataInfo("image", (8, 8, 1), target, names)  # type: ignore[arg-type]


def test_three_classes_use_cross_entropy_on_logits() -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1, 2]))
    loss = float(task.loss_function(0.0, one_hot=False)(np.array([0, 2]), LOGITS))
    assert loss == pytest.approx(-(np.log(0.7) + np.log(0.6)) / 2, rel=1e-5)


def test_label_smoothing_spreads_the_target() -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1, 2]))
    assert task.wants_one_hot(0.3, mixes=False)
    assert task.wants_one_hot(0.0, mixes=True)
    assert not task.wants_one_hot(0.0, mixes=False)
    loss = float(task.loss_function(0.3, one_hot=True)(np.array([[1.0, 0, 0]]), LOGITS[:1]))
    expected = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_two_classes_have_one_logit_and_two_probabilities() -> None:
    task = TabularClassification(DataInfo("table", (2,), "classes", ("no", "yes")), np.array([0, 1]))
    inputs = keras.Input((1,))
    model = keras.Model(inputs, task.predictions(inputs))
    probabilities = model(np.array([[0.0], [np.log(3.0)]], "float32")).numpy()
    np.testing.assert_allclose(probabilities, [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)
    assert task.encode(np.array([0, 1])).tolist() == [[0.0], [1.0]]
    loss = float(task.loss_function(0.0, one_hot=False)(np.array([[1.0]]), np.array([[np.log(3.0)]])))
    assert loss == pytest.approx(-np.log(0.75), rel=1e-5)


@pytest.mark.parametrize("names", [("no", "yes"), ("a", "b", "c")])
def test_accuracy_of_logits(names: tuple[str, ...]) -> None:
    task = ImageClassification(image_info(*names), np.arange(len(names)))
    metric = task.metric_functions()[0]
    if len(names) == 2:
        metric.update_state(np.array([[1.0], [0.0], [1.0]]), np.array([[0.2], [0.3], [-1.0]]))
        assert float(metric.result()) == pytest.approx(1 / 3)
    else:
        metric.update_state(np.array([0, 1]), LOGITS)
        assert float(metric.result()) == pytest.approx(0.5)
        metric.reset_state()
        metric.update_state(
            np.array([[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]]), LOGITS
        )  # mixed targets: the larger share
        assert float(metric.result()) == pytest.approx(1.0)


def test_a_loss_on_probabilities_gets_probabilities() -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1, 2]), loss="mean_squared_error")
    assert task.wants_one_hot(0.0, mixes=False)
    loss = float(task.loss_function(0.0, one_hot=True)(np.array([[1.0, 0, 0]], "float32"), LOGITS[:1]))
    assert loss == pytest.approx((0.3**2 + 0.2**2 + 0.1**2) / 3, rel=1e-5)


@pytest.mark.parametrize(("name", "expected"), [("top_k_categorical_accuracy", 1.0), ("auc", 1.0)])
def test_metrics_by_name_read_probabilities(name: str, expected: float) -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1, 2]), metrics=[name])
    metric = task.metric_functions()[1]
    metric.update_state(np.array([0, 2]), LOGITS)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-3)


def test_label_smoothing_with_a_loss_that_has_none_is_refused() -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1]), loss="mean_squared_error")
    with pytest.raises(DataError, match=r"label_smoothing does not work with task\.loss mean_squared_error"):
        task.loss_function(0.1, one_hot=True)


def test_wrong_kind_of_data_is_refused() -> None:
    with pytest.raises(DataError, match="learns from data of kind table, and this data set is of kind image"):
        TabularClassification(image_info("a", "b"), np.array([0, 1]))
    with pytest.raises(DataError, match="use `task: regression`"):
        ImageClassification(image_info("y", target="values"), np.array([[0.5]]))


def test_labels_get_a_sigmoid_each() -> None:
    info = DataInfo("table", (2,), "labels", ("rain", "wind"))
    task = TabularClassification(info, np.array([[0, 1]]))
    inputs = keras.Input((2,))
    model = keras.Model(inputs, task.predictions(inputs))
    np.testing.assert_allclose(
        model(np.array([[0.0, np.log(3.0)]], "float32")).numpy(), [[0.5, 0.75]], rtol=1e-6
    )


def test_features_of_a_wrong_rank_are_refused() -> None:
    task = ImageClassification(image_info("a", "b", "c"), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"Expected features \(B, D\) or \(B, H, W, D\)"):
        task.outputs(keras.Input((4, 4)))


TARGETS: dict[str, tuple[DataInfo, Any]] = {
    "two classes": (DataInfo("table", (2,), "classes", ("no", "yes")), np.array([0, 1, 1, 0])),
    "three classes": (DataInfo("table", (2,), "classes", ("a", "b", "c")), np.array([0, 1, 2, 0])),
    "labels": (
        DataInfo("table", (2,), "labels", ("x", "y")),
        np.array([[0, 1], [1, 1], [0, 0], [1, 0]], "float32"),
    ),
}


def batch(task: TabularClassification, targets: Any) -> tuple[Any, Any]:
    """Targets as the loss gets them, and logits that are right with a margin."""
    encoded = task.encode(targets)
    if task.wants_one_hot(0.0, mixes=False):
        encoded = np.eye(task.num_classes, dtype="float32")[targets]
    right = targets.reshape(-1, 1) if task.num_logits == 1 else targets
    if task.info.target == "classes" and task.num_logits > 1:
        right = np.eye(task.num_classes)[targets]
    return encoded, (8.0 * right - 4.0).astype("float32")


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", keras_names("metrics"))
def test_each_metric_of_keras_works_or_is_refused(name: str, kind: str) -> None:
    info, targets = TARGETS[kind]
    try:
        task = TabularClassification(info, targets, metrics=[name])
    except DataError:
        assert kind == "labels" or keras_class_name("metrics", name) in NOT_OF_CLASSES
        return
    metrics = task.metric_functions()
    for metric in metrics:
        metric.update_state(*batch(task, targets))
    assert np.isfinite(metrics[-1].result()).all()
    assert np.ndim(metrics[-1].result()) == 0
    if any(word in name for word in ("accuracy", "auc", "f1", "precision", "recall")):
        assert float(metrics[-1].result()) > 0.95, "right predictions score high"


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", keras_names("losses"))
def test_each_loss_of_keras_prefers_the_right_answer_or_is_refused(name: str, kind: str) -> None:
    info, targets = TARGETS[kind]
    try:
        task = TabularClassification(info, targets, loss=name)
    except DataError:
        assert kind == "labels" or keras_class_name("losses", name) in NOT_OF_CLASSES
        return
    encoded, logits = batch(task, targets)
    loss = task.loss_function(0.0, one_hot=task.wants_one_hot(0.0, mixes=False))
    right, wrong = float(loss(encoded, logits)), float(loss(encoded, -logits))
    assert np.isfinite([right, wrong]).all()
    assert right < wrong
