"""Distances between sets of features: closed forms, naive loops and scipy say the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.linalg

from dlcli.evaluation.samples import distances
from dlcli.evaluation.samples.distances import (
    frechet_distance,
    kernel_distance,
    mean_distance,
    neighbor_distances,
    overlap,
    squared_discrepancy,
)


def with_moments(count: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose mean and covariance are exactly `mean` and `root' root`."""
    rows = np.random.default_rng(seed).standard_normal((count, len(mean)))
    rows -= rows.mean(axis=0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return mean + whitened @ root


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_frechet_distance_of_independent_features_is_that_of_their_means_and_deviations(shift: float) -> None:
    means, deviations = np.array([[0.0, 1, -2], [0.5, 1, 3]]), np.array([[1.0, 2, 0.5], [3, 2, 0.1]])
    real, drawn = (with_moments(50, means[k] + shift, np.diag(deviations[k]), k) for k in range(2))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_dependent_features_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    real = random.standard_normal((200, 12)) @ random.standard_normal((12, 12))
    drawn = random.standard_normal((150, 12)) @ random.standard_normal((12, 12)) + 1
    first, second = np.cov(real.T), np.cov(drawn.T)
    root = scipy.linalg.sqrtm(first @ second)
    expected = ((real.mean(0) - drawn.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root.real)
    assert frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_fewer_images_than_features() -> None:
    random = np.random.default_rng(1)
    real, drawn = random.standard_normal((9, 30)), random.standard_normal((40, 30)) + 0.3
    first, second = np.cov(real.T), np.cov(drawn.T)
    eigenvalues = np.linalg.eigvals(first @ second).real
    trace = np.sqrt(eigenvalues[eigenvalues > 1e-9]).sum()
    expected = ((real.mean(0) - drawn.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * trace
    assert frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [5, 400])
def test_equal_sets_have_no_distance(count: int) -> None:
    features = 100 + np.random.default_rng(0).standard_normal((count, 20))
    assert frechet_distance(features, features[::-1]) < 1e-9
    collapsed = np.repeat(features[:1], 10, axis=0)
    expected = ((features.mean(0) - features[0]) ** 2).sum() + features.var(axis=0, ddof=1).sum()
    assert frechet_distance(features, collapsed) == pytest.approx(expected, rel=1e-9)


def naive_discrepancy(real: np.ndarray, drawn: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(np.dot(x, y)) / len(x) + 1) ** 3

    def mean_of_pairs(rows: np.ndarray) -> float:
        return np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    between = np.mean([kernel(x, y) for x, y in product(real, drawn)])
    return mean_of_pairs(real) + mean_of_pairs(drawn) - 2 * between


@pytest.mark.parametrize("block", [4_000_000, 50])
def test_discrepancy_is_that_of_a_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_NUMBERS", block)
    random = np.random.default_rng(0)
    real, drawn = random.standard_normal((14, 6)), 0.5 + random.standard_normal((11, 6))
    assert squared_discrepancy(real, drawn) == pytest.approx(naive_discrepancy(real, drawn), rel=1e-10)


def test_discrepancy_of_one_distribution_is_zero_on_average() -> None:
    random = np.random.default_rng(0)
    values = [
        squared_discrepancy(random.standard_normal((20, 4)), random.standard_normal((20, 4)))
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_kernel_distance_is_the_mean_over_subsets_with_their_deviation() -> None:
    random = np.random.default_rng(0)
    real, drawn = random.standard_normal((300, 5)), 0.7 + random.standard_normal((200, 5))
    mean, deviation = kernel_distance(real, drawn, seed=3, subsets=50, subset_size=40)
    generator = np.random.default_rng(3)
    values = [
        squared_discrepancy(
            real[generator.choice(300, 40, replace=False)], drawn[generator.choice(200, 40, replace=False)]
        )
        for _ in range(50)
    ]
    assert (mean, deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert mean == pytest.approx(squared_discrepancy(real, drawn), abs=4 * deviation / 50**0.5)
    # No subset is more than half of a set: the deviation of equal ones would be 0.
    assert kernel_distance(real, drawn, subset_size=10_000)[1] > 0
    assert kernel_distance(real, drawn, subset_size=10_000) == kernel_distance(real, drawn, subset_size=100)


def naive_overlap(real: np.ndarray, drawn: np.ndarray, k_manifold: int, k_dense: int) -> tuple[float, ...]:
    def radius(rows: np.ndarray, i: int, k: int) -> float:
        return sorted(np.linalg.norm(rows[i] - other) for j, other in enumerate(rows) if j != i)[k - 1]

    def inside(x: np.ndarray, rows: np.ndarray, k: int) -> list[bool]:
        return [bool(np.linalg.norm(x - row) <= radius(rows, i, k)) for i, row in enumerate(rows)]

    precision = np.mean([any(inside(x, real, k_manifold)) for x in drawn])
    recall = np.mean([any(inside(x, drawn, k_manifold)) for x in real])
    hits = np.array([inside(x, real, k_dense) for x in drawn])
    return precision, recall, hits.sum() / (k_dense * len(drawn)), np.mean(hits.any(axis=0))


@pytest.mark.parametrize("block", [4_000_000, 60])
def test_overlap_is_that_of_a_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK_NUMBERS", block)
    random = np.random.default_rng(0)
    real, drawn = random.standard_normal((25, 3)), 1.3 + random.standard_normal((20, 3))
    found = [float(values.mean()) for values in overlap(real, drawn, 2, 4)]
    assert found == pytest.approx(naive_overlap(real, drawn, 2, 4))
    assert 0.1 < found[0] < 1 and 0.1 < found[1] < 1 and found[3] < 1  # none of them says nothing


def test_overlap_of_what_is_the_same_and_of_what_is_far() -> None:
    random = np.random.default_rng(0)
    rows, others = random.standard_normal((2, 300, 8)) + 50
    same = [float(values.mean()) for values in overlap(rows, others)]
    assert same[0] > 0.8 and same[1] > 0.8 and same[2] == pytest.approx(1, abs=0.1)
    assert same[3] == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al., section 3.3: for any distribution
    assert [float(values.mean()) for values in overlap(rows, others + 100)] == [0, 0, 0, 0]
    # One image again and again is real, and covers nothing.
    one = [float(values.mean()) for values in overlap(rows, np.repeat(rows[:1], 50, axis=0))]
    assert one[0] == 1 and one[1] <= 0.02 and one[3] < 0.1


def test_a_row_is_no_neighbour_of_itself_but_its_copy_is() -> None:
    rows = np.array([[0.0], [0.0], [3.0], [10.0]])
    first, second = neighbor_distances(rows, (1, 2))
    assert first.tolist() == [0, 0, 9, 49]
    assert second.tolist() == [9, 9, 9, 100]


def test_mean_distance_is_that_of_a_naive_loop() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 7)) + 1000
    naive = np.mean([np.linalg.norm(x - y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])
    assert mean_distance(rows) == pytest.approx(naive, rel=1e-6)
    assert mean_distance(np.ones((5, 3))) == 0


@pytest.mark.parametrize("measure", [frechet_distance, squared_discrepancy, overlap])
def test_what_cannot_be_compared_is_refused(measure: object) -> None:
    good = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(ValueError, match="3 and 2"):
        measure(good, good[:, :2])  # type: ignore[operator]
    with pytest.raises(ValueError, match="finite"):
        measure(good, np.where(good > 1, np.nan, good))  # type: ignore[operator]
    with pytest.raises(ValueError, match="rows"):
        measure(good, good[:1])  # type: ignore[operator]
