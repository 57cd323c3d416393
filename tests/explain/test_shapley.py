from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import keras
import numpy as np
import pytest

from dlcli.explain.lime import all_coalitions
from dlcli.explain.shapley import coalitions, exact_values, shap_values


class Game:
    """Players whose value is a function of which of them are present, as floats (N, M)."""

    def __init__(self, count: int, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.count, self.function = count, function
        self.asked = np.zeros((0, count), bool)

    def value(self, present: np.ndarray) -> np.ndarray:
        self.asked = np.concatenate([self.asked, present])
        return self.function(np.asarray(present, float))

    def spread(self, each: np.ndarray) -> np.ndarray:
        return each.astype(np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def small_network(x: np.ndarray) -> np.ndarray:
    """`BasicModel_MultiLayer` of captum 0.9 (captum/testing/helpers/basic_models.py), its first output."""
    return np.maximum(x.sum(-1, keepdims=True) + np.array([-10, 1, 1, 1]), 0).sum(-1) - 1


X = np.array([20.0, 50.0, 30.0])


@pytest.mark.parametrize(
    ("baseline", "groups", "expected"),
    [
        ([0, 0, 0], [[0], [1], [2]], [76.66666, 196.66666, 116.66666]),
        ([0, 0, 0], [[0, 1], [2]], [275.0, 115.0]),
        ([10, 20, 10], [[0], [1], [2]], [40.0, 120.0, 80.0]),
    ],
)
def test_values_of_captum(baseline: list[float], groups: list[list[int]], expected: list[float]) -> None:
    """Captum 0.9, tests/attr/test_kernel_shap.py."""
    member = np.array([[feature in group for feature in range(3)] for group in groups], float)

    def function(present: np.ndarray) -> np.ndarray:
        seen = present @ member
        return small_network(seen * X + (1 - seen) * np.array(baseline))

    values, base, scores = shap_values(Game(len(groups), function), samples=1, generator=generator())
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert base == small_network(np.array(baseline, float))
    assert scores["exact"] == 1
    assert scores["residual"] < 1e-9


def test_exact_values_are_means_over_all_orders() -> None:
    """Shapley's own definition."""
    table = generator(1).normal(size=2**5)
    expected = np.zeros(5)
    for order in permutations(range(5)):
        subset = 0
        for part in order:
            expected[part] += table[subset | 1 << part] - table[subset]
            subset |= 1 << part
    np.testing.assert_allclose(exact_values(table), expected / math.factorial(5), atol=1e-12)


@pytest.mark.parametrize("count", [1, 12, 20])
@pytest.mark.parametrize("samples", [100, 1000])
def test_a_linear_model_gives_difference_times_weight(count: int, samples: int) -> None:
    """As in shap's tests/explainers/test_kernel.py, test_linear."""
    x, mean, w = generator(count).normal(size=(3, count))
    game = Game(count, lambda present: (present * x + (1 - present) * mean) @ w)
    values, base, _ = shap_values(game, samples=samples, generator=generator())
    np.testing.assert_allclose(values, (x - mean) * w, atol=1e-9)
    assert base == pytest.approx(mean @ w)


@pytest.mark.parametrize("count", [5, 25])
def test_second_order_interactions_are_shared_in_halves(count: int) -> None:
    """x0 x2 + x1 + x2 + x2 x3, as in shap's tests/explainers/test_permutation.py; sampled pairs are exact too."""
    x = generator(2).normal(size=count)

    def function(present: np.ndarray) -> np.ndarray:
        z = present * x
        return z[:, 0] * z[:, 2] + z[:, 1] + z[:, 2] + z[:, 2] * z[:, 3]

    values, _, scores = shap_values(Game(count, function), samples=400, generator=generator())
    expected = np.zeros(count)
    expected[:4] = [
        x[0] * x[2] / 2,
        x[1],
        x[2] + x[0] * x[2] / 2 + x[2] * x[3] / 2,
        x[2] * x[3] / 2,
    ]
    np.testing.assert_allclose(values, expected, atol=1e-9)
    assert scores["exact"] == float(count == 5)


def test_a_part_that_changes_nothing_gets_exactly_zero() -> None:
    w = generator(3).normal(size=(8, 16))
    game = Game(10, lambda present: np.maximum(present[:, [0, 1, 2, 3, 5, 6, 7, 9]] @ w, 0).sum(1))
    values, _, _ = shap_values(game, samples=100, generator=generator())
    assert values[4] == 0 == values[8]
    assert (values[[0, 1, 2, 3]] != 0).all()


def test_equal_parts_get_equal_values() -> None:
    game = Game(8, lambda present: np.maximum(present[:, :3].sum(1) - 1, 0) ** 2 + present[:, 3])
    values, _, _ = shap_values(game, samples=1, generator=generator())
    assert values[0] == pytest.approx(values[1], abs=1e-12) == pytest.approx(values[2], abs=1e-12)
    assert values[:3].sum() == pytest.approx(4)


def test_sampled_values_come_near_to_exact_ones() -> None:
    w, b, v = generator(4).normal(size=(14, 32)), generator(5).normal(size=32), generator(6).normal(size=32)
    game = Game(14, lambda present: np.maximum(present @ w + b, 0) @ v)
    exact, base, _ = shap_values(game, samples=2**14, generator=generator())

    def error(samples: int) -> float:
        found = [shap_values(game, samples=samples, generator=generator(seed)) for seed in range(4)]
        for _, found_base, scores in found:
            assert found_base == base
            assert scores["residual"] < 1e-9
            assert scores["exact"] == 0
            assert samples - 2 <= scores["evaluations"] <= samples
        return float(np.mean([np.abs(values - exact).max() for values, _, _ in found]) / np.abs(exact).max())

    assert error(2000) < 0.02
    assert error(2000) < error(200) < 0.1


def test_subsets_weigh_as_shapleys_kernel_and_come_in_pairs() -> None:
    count = 16
    present, weights = coalitions(count, 20_000, generator())
    size = present.sum(axis=1)
    kernel = np.array([(count - 1) / (each * (count - each)) for each in range(1, count)])
    found = np.bincount(size, weights, count + 1)[1:count]
    np.testing.assert_allclose(found, kernel / kernel.sum(), rtol=0.1)
    assert weights.sum() == pytest.approx(1)
    # All of one, two ... parts and all but those, once each.
    single = present[size == 1]
    assert len(single) == len(np.unique(single, axis=0)) == count
    _, times = np.unique(np.concatenate([present, ~present]), axis=0, return_counts=True)
    assert (times % 2 == 0).all()
    assert 0 < size.min() <= size.max() < count


def test_all_subsets_of_the_middle_size_are_there_once() -> None:
    """Their complements are of the same size, which must not count them twice."""
    present, weights = coalitions(4, 100, generator())
    assert len(present) == len(np.unique(present, axis=0)) == 14
    kernel = np.array([3 / (math.comb(4, s) * s * (4 - s)) for s in present.sum(axis=1)])
    np.testing.assert_allclose(weights, kernel / kernel.sum())


@pytest.mark.parametrize("samples", [1, 4, 20])
def test_fewer_samples_than_parts_still_sum_up(samples: int) -> None:
    game = Game(40, lambda present: np.tanh(present @ np.linspace(-1, 1, 40)) + 3)
    values, base, scores = shap_values(game, samples=samples, generator=generator())
    assert np.isfinite(values).all()
    assert base + values.sum() == pytest.approx(game.function(np.ones((1, 40)))[0], abs=1e-9)
    assert scores["evaluations"] == len(game.asked)


def test_seeds() -> None:
    game = Game(30, lambda present: np.tanh(present.sum(1) - 15))
    one, two, other = (
        shap_values(game, samples=200, generator=generator(seed))[0].tobytes() for seed in (0, 0, 1)
    )
    assert one == two != other


@pytest.mark.parametrize("count", [10, 20])
def test_no_difference_and_no_number(count: int) -> None:
    noise = generator(7)
    game = Game(count, lambda present: 5 + 1e-7 * noise.normal(size=len(present)))
    assert not shap_values(game, samples=100, generator=generator())[0].any()
    game = Game(count, lambda present: np.where(present[:, 0], np.nan, 1.0))
    assert np.isnan(shap_values(game, samples=100, generator=generator())[0]).all()


def test_no_parts() -> None:
    values, base, scores = shap_values(
        Game(0, lambda present: np.full(len(present), 4.0)), samples=10, generator=generator()
    )
    assert values.shape == (0,)
    assert base == 4
    assert scores["segments"] == 0
    with pytest.raises(ValueError, match="Received: 0"):
        shap_values(Game(0, lambda present: np.zeros(len(present))), samples=0, generator=generator())


@pytest.mark.parametrize("layer", ["mlp", "lstm"])
def test_networks_sum_up_and_agree_with_the_shap_package(layer: str) -> None:
    """Additivity to 1e-4; 14 parts with all subsets, against shap's KernelExplainer with 4,000."""
    shap = pytest.importorskip("shap")
    keras.utils.set_random_seed(0)
    body = (
        [keras.layers.Dense(16, activation="tanh")]
        if layer == "mlp"
        else [keras.layers.Reshape((14, 1)), keras.layers.LSTM(4)]
    )
    model = keras.Sequential([keras.Input((14,)), *body, keras.layers.Dense(1)])
    x, mean = generator(8).normal(size=(2, 14)).astype(np.float32)

    def function(rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(rows.astype(np.float32)), np.float64)[:, 0]

    game = Game(14, lambda present: function(present * x + (1 - present) * mean))
    exact, base, _ = shap_values(game, samples=2**14, generator=generator())
    sampled, _, _ = shap_values(game, samples=2000, generator=generator())
    whole = function(x[None])[0]
    assert base + exact.sum() == pytest.approx(whole, abs=1e-4)
    assert base + sampled.sum() == pytest.approx(whole, abs=1e-4)
    largest = np.abs(exact).max()
    assert np.abs(sampled - exact).max() < 0.05 * largest
    state = np.random.get_state()
    np.random.seed(0)
    try:
        explainer = shap.KernelExplainer(function, mean[None])
        theirs = explainer.shap_values(x[None], nsamples=4000, l1_reg=False, silent=True)[0]
    finally:
        np.random.set_state(state)
    assert np.abs(theirs - exact).max() < 0.05 * largest


def test_subsets_are_in_the_order_of_their_bits() -> None:
    assert all_coalitions(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
