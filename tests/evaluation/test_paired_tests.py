"""Paired tests against tables worked out by hand, scipy and simulations with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from dlcli.evaluation.paired_tests import holm, mcnemar, paired_bootstrap, share_difference_interval


def mean(means: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": means[:, 0]}


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 10, 2 / 1024),
        (9, 1, 2 * (1 + 10) / 1024),
        (3, 8, 2 * (1 + 11 + 55 + 165) / 2048),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


@pytest.mark.parametrize(("only_first", "only_second"), [(150, 86), (21_000, 20_400), (3, 40)])
def test_mcnemar_is_the_binomial_test_of_scipy(only_first: int, only_second: int) -> None:
    expected = scipy.stats.binomtest(only_first, only_first + only_second).pvalue
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-7)


def test_interval_of_a_difference_of_shares_by_hand() -> None:
    low, high = share_difference_interval(20, 10, 100)
    # (20.5 - 10.5) / 102 = 0.098039; 1.959964 * sqrt(31 - 100 / 102) / 102 = 0.105281
    assert (low, high) == pytest.approx((-0.007242, 0.203320), abs=1e-6)
    low, high = share_difference_interval(0, 0, 50)
    assert -0.06 < low < 0 < high < 0.06, "two models that never differ on 50 examples may yet differ"
    assert share_difference_interval(0, 3, 3)[0] == -1


def test_interval_of_a_difference_of_shares_holds_the_truth_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).multinomial(80, [0.15, 0.05, 0.8], size=2000)
    bounds = np.array([share_difference_interval(int(b), int(c), 80) for b, c, _ in drawn])
    covered = ((bounds[:, 0] <= 0.10) & (bounds[:, 1] >= 0.10)).mean()
    assert 0.935 < covered < 0.975


def test_paired_bootstrap_agrees_with_scipy() -> None:
    random = np.random.default_rng(1)
    shared = random.normal(0, 3, 200)
    first, second = shared + random.normal(0.15, 1, 200), shared + random.normal(0, 1, 200)
    found = paired_bootstrap(first[:, None], second[:, None], mean)["mean"]
    differences = first - second
    assert found.value == pytest.approx(differences.mean())
    expected = scipy.stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=10_000, rng=random
    ).confidence_interval
    assert found.interval == pytest.approx([expected.low, expected.high], abs=0.02)
    assert found.p == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue, abs=0.02)
    assert found.interval[1] - found.interval[0] < 0.5, "what both models find hard does not widen it"


def test_a_metric_that_is_no_mean_is_resampled_as_a_whole() -> None:
    random = np.random.default_rng(2)
    errors = random.normal(0, [1.0, 1.2], (400, 2))
    squares = errors**2

    def rmse(means: np.ndarray) -> dict[str, np.ndarray]:
        return {"rmse": np.sqrt(means[:, 0])}

    found = paired_bootstrap(squares[:, :1], squares[:, 1:], rmse)["rmse"]
    first, second = np.sqrt(squares.mean(axis=0))
    assert found.value == pytest.approx(first - second)
    # The delta method: each error adds (e1^2 / 2 rmse1 - e2^2 / 2 rmse2) to the difference.
    influence = squares[:, 0] / (2 * first) - squares[:, 1] / (2 * second)
    half = 1.96 * influence.std() / np.sqrt(400)
    assert found.interval == pytest.approx([found.value - half, found.value + half], abs=0.012)


def test_p_of_equal_models_is_one_and_of_models_far_apart_the_smallest() -> None:
    values = np.random.default_rng(3).normal(size=(50, 1))
    assert paired_bootstrap(values, values, mean)["mean"][:] == (0, [0, 0], 1)
    far = paired_bootstrap(values + 1, values, mean)["mean"]
    assert far.p == pytest.approx(1 / 10_001)
    assert far.interval == pytest.approx([1, 1])


def test_p_values_of_equal_models_are_spread_evenly() -> None:
    """Of tests of two equal models, 5 % say p <= 0.05."""
    random = np.random.default_rng(4)
    values = [
        paired_bootstrap(*random.normal(size=(2, 25, 1)), mean, seed=seed)["mean"].p for seed in range(200)
    ]
    assert 0.02 < np.mean(np.array(values) <= 0.05) < 0.09
    assert 0.4 < np.mean(values) < 0.6


def test_the_seed_decides_the_resamples() -> None:
    first, second = np.random.default_rng(5).normal(size=(2, 30, 1))
    assert paired_bootstrap(first, second, mean) == paired_bootstrap(first, second, mean)
    assert paired_bootstrap(first, second, mean, seed=1) != paired_bootstrap(first, second, mean)


def test_bootstrap_refuses_what_does_not_pair() -> None:
    with pytest.raises(ValueError, match=r"N at least 2\. Received \(3, 1\) and \(4, 1\)"):
        paired_bootstrap(np.zeros((3, 1)), np.zeros((4, 1)), mean)
    with pytest.raises(ValueError, match=r"Received \(1, 1\)"):
        paired_bootstrap(np.zeros((1, 1)), np.zeros((1, 1)), mean)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # as R's p.adjust has them
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.7], [0.7]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)
