from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.table.importance import importance, permutation_importance
from dlcli.layers.predictions import Predictions


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


def network_of(weights: list[list[float]], target: str, names: list[str]) -> Network:
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(len(weights[0]), use_bias=False)
    logits = dense(inputs)
    scales = {"scale": [1.0] * len(names), "offset": [0.0] * len(names)} if target == "values" else {}
    model = keras.Model(inputs, Predictions(target, names, **scales)(logits))
    dense.set_weights([np.array(weights, np.float32)])
    return Network(model, "table", np.zeros((1, 3), np.float32), class_names=names)


def as_columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {str(place): rows[:, [place]] for place in range(rows.shape[1])}


def test_only_the_column_that_decides_is_important(rows: np.ndarray) -> None:
    network = network_of([[9.0], [0.0], [0.0]], "classes", ["no", "yes"])
    targets = (rows[:, 0] > 0).astype(np.int32)
    found = importance(network, as_columns(rows), targets, stack=True)
    share = targets.mean()
    assert found.metric == "accuracy"
    assert found.score == 1
    assert found.rows == 400
    # Of a shuffled column a row gets the other class with probability 2 p (1 - p).
    assert found.mean[0] == pytest.approx(2 * share * (1 - share), abs=0.02)
    assert found.mean[1:].tolist() == [0, 0]
    assert 0.005 < found.deviation[0] < 0.05
    assert found.deviation[1:].tolist() == [0, 0]


def test_it_agrees_with_scikit_learn(rows: np.ndarray) -> None:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.inspection import permutation_importance as theirs

    network = network_of([[1.0], [-3.0], [0.5]], "values", ["price"])

    class Ours(RegressorMixin, BaseEstimator):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Ours:
            self.fitted_ = True
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return network.outputs(x)[:, 0]

    targets = rows @ np.array([1, -3, 0.5], np.float32) + np.random.default_rng(1).normal(size=400)
    expected = theirs(
        Ours().fit(rows, targets),
        rows,
        targets,
        scoring="neg_mean_absolute_error",
        n_repeats=20,
        random_state=0,
    )
    found = importance(network, as_columns(rows), targets[:, None], repeats=20, stack=True)
    assert found.metric == "mean_absolute_error"
    assert found.score == pytest.approx(np.abs(network.outputs(rows)[:, 0] - targets).mean(), rel=1e-5)
    np.testing.assert_allclose(found.mean, expected.importances_mean, atol=0.03)
    np.testing.assert_allclose(found.deviation, expected.importances_std, atol=0.03)


def test_labels_and_values_have_an_importance_for_each(rows: np.ndarray) -> None:
    network = network_of([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]], "labels", ["left", "right"])
    targets = (rows[:, :2] > 0).astype(np.float32)
    subjects = [Subject(str(index), rows[index]) for index in range(3)]
    first, second, third = permutation_importance(
        network, subjects, np.array([0, 1, 0]), labelled=(rows, targets), samples=3
    )
    assert first.values[0] > 0.3
    assert first.values[1:].tolist() == [0, 0]
    assert second.values[1] > 0.3
    assert second.values[[0, 2]].tolist() == [0, 0]
    assert third is first
    assert "the same for every row" in first.warnings[0]
    assert len(first.settings["deviations"]) == 3


def test_without_labels_the_models_own_answers_count(rows: np.ndarray) -> None:
    network = network_of([[0.0], [5.0], [0.0]], "classes", ["no", "yes"])
    (found,) = permutation_importance(
        network, [Subject("row", rows[0])], np.array([1]), background=rows[:100]
    )
    assert found.scores["accuracy"] == 1
    assert found.values[1] > 0.3
    assert "own answers" in found.settings["metric"]
    assert any("no labels" in sentence for sentence in found.warnings)
    few = permutation_importance(network, [Subject("row", rows[0])], np.array([1]), background=rows[:9])
    assert any("9 rows are too few" in sentence for sentence in few[0].warnings)
    with pytest.raises(DlcliError, match="rows to compare"):
        permutation_importance(network, [Subject("row", rows[0])], np.array([1]))


def test_the_seed_alone_decides(rows: np.ndarray) -> None:
    network = network_of([[1.0], [1.0], [1.0]], "classes", ["no", "yes"])
    targets = (rows.sum(axis=1) > 0).astype(np.int32)
    first, again, other = (
        importance(network, as_columns(rows), targets, seed=seed, stack=True).mean for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_words_are_shuffled_too() -> None:
    words = np.array(["a", "b"] * 50, object)[:, None]
    numbers = np.zeros((100, 1), np.float32)
    inputs = {
        "word": keras.Input((1,), dtype="string", name="word"),
        "number": keras.Input((1,), name="number"),
    }
    one_hot = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(inputs["word"])
    dense = keras.layers.Dense(2)
    outputs = Predictions("classes", ["a", "b"])(dense(one_hot[:, 1:]))
    network = Network(
        keras.Model(inputs, outputs),
        "table",
        {"word": words[:1], "number": numbers[:1]},
        class_names=["a", "b"],
    )
    dense.set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    found = importance(network, {"word": words, "number": numbers}, np.tile([0, 1], 50))
    assert found.score == 1
    assert found.mean[0] == pytest.approx(0.5, abs=0.05)
    assert found.mean[1] == 0
    # Values stand in the order of the row's columns, whatever that of the rows is.
    subject = Subject("row", {"word": words[0], "number": numbers[0]})
    (one,) = permutation_importance(
        network, [subject], np.array([0]), labelled=({"number": numbers, "word": words}, np.tile([0, 1], 50))
    )
    assert one.values[0] > 0.4
    assert one.values[1] == 0
