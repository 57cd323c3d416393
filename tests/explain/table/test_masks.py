from __future__ import annotations

import warnings
from itertools import permutations

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.data.table_preprocessing import table_preprocessing
from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.table.masks import lime, shap
from dlcli.explain.table.players import Columns
from dlcli.layers.predictions import Predictions


def linear(weights: np.ndarray) -> Network:
    width, outputs = weights.shape
    dense = keras.layers.Dense(outputs)
    model = keras.Sequential([keras.Input((width,)), dense])
    dense.set_weights([weights.astype(np.float32), np.full(outputs, 3, np.float32)])
    return Network(model, "table", np.zeros((1, width), np.float32))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (60, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def words_and_numbers() -> tuple[Network, dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    columns = {
        "column_size": random.normal(size=(40, 1)).astype(np.float32),
        "column_colour": random.choice(["red", "green", "blue"], (40, 1)).astype(object),
        "column_age": random.normal(size=(40, 1)).astype(np.float32),
        "column_kind": random.choice(["cat", "dog"], (40, 1)).astype(object),
    }
    columns["column_age"][::7] = np.nan
    keras.utils.set_random_seed(1)
    preprocessing = table_preprocessing(ArrayExamples(columns, np.zeros(40, np.int32)))
    hidden = keras.layers.Dense(16, "tanh", kernel_initializer="random_normal")(3 * preprocessing.output)
    outputs = Predictions("classes", ["no", "yes"])(keras.layers.Dense(1)(hidden))
    model = keras.Model(preprocessing.input, outputs)
    example = {name: values[:1] for name, values in columns.items()}
    return Network(model, "table", example, class_names=["no", "yes"]), columns


def subjects_of(columns: dict[str, np.ndarray], indices: list[int]) -> list[Subject]:
    return [Subject(str(row), {name: values[row] for name, values in columns.items()}) for row in indices]


def test_shap_of_a_linear_model_is_the_difference_from_the_mean_times_the_weight(rows: np.ndarray) -> None:
    # The closed form of shap's tests/explainers/test_kernel.py::test_linear.
    weights = np.random.default_rng(2).normal(size=(6, 2))
    weights[4] = 0
    subjects = [Subject(str(index), rows[index]) for index in (50, 51)]
    first, second = shap(linear(weights), subjects, np.array([0, 1]), background=rows[:40])
    mean = rows[:40].mean(axis=0)
    np.testing.assert_allclose(first.values, (rows[50] - mean) * weights[:, 0], atol=2e-5)
    np.testing.assert_allclose(second.values, (rows[51] - mean) * weights[:, 1], atol=2e-5)
    assert first.base == pytest.approx(mean @ weights[:, 0] + 3, abs=1e-5)
    assert first.settings["background_rows"] == 40


@pytest.mark.parametrize(
    ("baseline", "values"),
    [([0, 0, 0], [76.66667, 196.66667, 116.66667]), ([10, 20, 10], [40, 120, 80])],
)
def test_shap_of_captums_network(baseline: list[float], values: list[float]) -> None:
    # captum tests/attr/test_kernel_shap.py: BasicModel_MultiLayer, and its masked perturbation with a baseline.
    hidden, last = keras.layers.Dense(4, "relu"), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((3,)), hidden, last])
    hidden.set_weights([np.ones((3, 4), np.float32), np.array([-10, 1, 1, 1], np.float32)])
    last.set_weights([np.ones((4, 1), np.float32), np.array([-1], np.float32)])
    network = Network(model, "table", np.zeros((1, 3), np.float32))
    subject = Subject("row", np.array([20, 50, 30], np.float32))
    (found,) = shap(network, [subject], np.array([0]), background=np.array([baseline], np.float32))
    np.testing.assert_allclose(found.values, values, rtol=1e-5)


def test_shap_of_words_and_gaps_is_the_mean_over_all_orders(
    words_and_numbers: tuple[Network, dict[str, np.ndarray]],
) -> None:
    network, columns = words_and_numbers
    (subject,) = subjects_of(columns, [7])  # its age is missing
    (found,) = shap(network, [subject], np.array([1]), background={k: v[:10] for k, v in columns.items()})
    players = Columns(network, subject, 1, {k: v[:10] for k, v in columns.items()})
    values = np.zeros(4)
    for order in permutations(range(4)):
        present = np.array([[column in order[:count] for column in range(4)] for count in range(5)])
        values[list(order)] += np.diff(players.value(present)) / 24
    np.testing.assert_allclose(found.values, values, atol=1e-5)
    output = network.outputs(network.batch([subject]))[0, 1]
    assert found.base + found.values.sum() == pytest.approx(output, abs=1e-4)
    assert np.abs(found.values).max() > 0.05


def test_shap_agrees_with_the_shap_package(words_and_numbers: tuple[Network, dict[str, np.ndarray]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from shap import KernelExplainer
    network, columns = words_and_numbers
    tables = [np.asarray(values[:, 0]) for values in columns.values()]

    def outputs(codes: np.ndarray) -> np.ndarray:
        """Numbers of rows stand for their cells."""
        picked = codes.astype(int)
        cells = {
            name: table[picked[:, place]][:, None]
            for place, (name, table) in enumerate(zip(columns, tables, strict=True))
        }
        return network.outputs(cells)[:, 0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = KernelExplainer(outputs, np.repeat(np.arange(10.0)[:, None], 4, axis=1))
        expected = explainer.shap_values(np.full((1, 4), 33.0), silent=True)[0]
    background = {name: values[:10] for name, values in columns.items()}
    (found,) = shap(network, subjects_of(columns, [33]), np.array([0]), background=background)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert found.base == pytest.approx(explainer.expected_value, abs=1e-4)


def test_more_columns_than_can_all_be_tried_are_sampled() -> None:
    random = np.random.default_rng(3)
    weights, background = random.normal(size=(20, 1)), random.normal(size=(12, 20)).astype(np.float32)
    subject = Subject("row", random.normal(size=20).astype(np.float32))
    network = linear(weights)
    (found,) = shap(network, [subject], np.array([0]), background=background, samples=200)
    np.testing.assert_allclose(
        found.values, (subject.inputs - background.mean(axis=0)) * weights[:, 0], atol=1e-3
    )
    (again,) = shap(network, [subject], np.array([0]), background=background, samples=200)
    assert found.values.tobytes() == again.values.tobytes()


def test_a_row_like_all_of_the_background_has_no_explanation(rows: np.ndarray) -> None:
    network, same = linear(np.ones((6, 1))), np.tile(rows[0], (5, 1))
    for method in (shap, lime):
        (found,) = method(network, [Subject("row", rows[0])], np.array([0]), background=same)
        assert found.values.tolist() == [0] * 6
        assert found.problem == "flat_map"
        assert "like all of the background" in found.warnings[0]


@pytest.mark.parametrize("method", [shap, lime])
def test_neither_the_batch_nor_the_order_matters(
    words_and_numbers: tuple[Network, dict[str, np.ndarray]], method: object
) -> None:
    network, columns = words_and_numbers
    subjects = subjects_of(columns, [3, 9, 21])
    together = method(network, subjects, np.array([1, 0, 1]), background=columns)  # type: ignore[operator]
    (alone,) = method(network, subjects[1:2], np.array([0]), background=columns)  # type: ignore[operator]
    assert together[1].values.tobytes() == alone.values.tobytes()
    (other,) = method(network, subjects[1:2], np.array([1]), background=columns)  # type: ignore[operator]
    np.testing.assert_allclose(other.values, -alone.values, atol=1e-6)  # the two sides of one logit


def test_lime_of_a_linear_model_is_the_weight_times_the_step_out_of_the_bin(rows: np.ndarray) -> None:
    weights = np.array([[3.0], [-2.0], [1.0], [0.0], [-4.0], [2.0]])
    subject = Subject("row", rows[50])
    (found,) = lime(linear(weights), [subject], np.array([0]), background=rows, samples=4000)
    expected = []
    for column, value in zip(rows.T, rows[50], strict=True):
        bounds = np.percentile(column, (25, 50, 75))
        alike = np.searchsorted(bounds, column) == np.searchsorted(bounds, value)
        # The row itself is one of those that are alike.
        expected.append(np.append(column[alike], value).mean() - column[~alike].mean())
    expected = np.array(expected) * weights[:, 0]
    np.testing.assert_allclose(found.values, expected, atol=0.05 * np.abs(expected).max())
    assert found.scores["r2"] > 0.75
    assert found.warnings == ()


def test_lime_agrees_with_the_lime_package() -> None:
    package = pytest.importorskip("lime.lime_tabular", reason="compares with the lime package")
    random = np.random.default_rng(4)
    rows = random.normal(size=(400, 8)).astype(np.float32)
    hidden, last = keras.layers.Dense(16, "relu"), keras.layers.Dense(1)
    network = Network(keras.Sequential([keras.Input((8,)), hidden, last]), "table", rows[:1])
    hidden.set_weights([random.normal(size=(8, 16)), random.normal(size=16)])
    last.set_weights([random.normal(size=(16, 1)), np.zeros(1)])
    explainer = package.LimeTabularExplainer(rows, mode="regression", random_state=0)
    for index in (0, 1, 2):
        theirs = explainer.explain_instance(
            rows[index].astype(float),
            lambda given: network.outputs(given.astype(np.float32))[:, 0],
            num_features=8,
        )
        expected = np.zeros(8)
        for column, weight in theirs.as_map()[1]:
            expected[column] = weight
        (found,) = lime(network, [Subject("row", rows[index])], np.array([0]), background=rows)
        assert np.corrcoef(found.values, expected)[0, 1] > 0.9


def test_lime_says_when_a_line_does_not_fit() -> None:
    class Parity(keras.layers.Layer):
        """The product of the columns' signs."""

        def call(self, inputs: object) -> object:
            return keras.ops.prod(keras.ops.sign(inputs), axis=1, keepdims=True)

    network = Network(keras.Sequential([keras.Input((4,)), Parity()]), "table", np.ones((1, 4), np.float32))
    rows = np.random.default_rng(5).normal(size=(100, 4)).astype(np.float32)
    (found,) = lime(network, [Subject("row", rows[0])], np.array([0]), background=rows)
    assert found.scores["r2"] < 0.3
    assert len(found.warnings) == 1  # that there are 4 columns is no fault
    assert "below 0.3" in found.warnings[0]


@pytest.mark.parametrize("method", [shap, lime])
def test_without_background_it_is_refused(rows: np.ndarray, method: object) -> None:
    with pytest.raises(DlcliError, match="rows to compare"):
        method(linear(np.ones((6, 1))), [Subject("row", rows[0])], np.array([0]))  # type: ignore[operator]
