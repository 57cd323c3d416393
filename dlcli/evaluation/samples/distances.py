"""How far two sets of feature vectors are apart: numpy, float64, in blocks of bounded memory.

All functions take features of real images and of drawn ones, each (N, D) with one row an image; the numbers of rows may
differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

# Comes with scikit-learn.
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

BLOCK_NUMBERS = 4_000_000
"""Elements of a block of distances: 32 MB."""

SUBSETS = 100
SUBSET_SIZE = 1000
"""Of `kernel_distance`, as in the paper's code."""

NARROW = 512
"""Features of which the products are small enough for one thread."""


def quick_products(width: int) -> AbstractContextManager[Any]:
    """Around calls of this module's functions with features (N, width).

    On a busy machine OpenBLAS's threads wait for each other in loops: products of 1,000 x 256 numbers on 2 cores with 6
    processes then take a thousand times as long as on one thread.
    """
    return threadpool_limits(limits=1 if width <= NARROW else None, user_api="blas")


def frechet_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """Fréchet distance between the normal distributions with the sets' means and covariances, squared.

    Dowson and Landau 1982; Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6:
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With C1 = A'A and C2 = B'B the trace of the root is the sum of the
    singular values of AB', so that no root of a product is taken, which is singular for fewer rows than features.

    Args:
        real: (N, D), two rows or more.
        drawn: (M, D), two rows or more.

    Returns:
        0 or more. Few rows make it larger than between the distributions that they come from.
    """
    first, second = _normal(_checked(real, 2)), _normal(_checked(drawn, 2))
    _same_width(first.mean, second.mean)
    roots = np.linalg.svd(first.factor @ second.factor.T, compute_uv=False).sum()
    traces = np.square(first.factor).sum() + np.square(second.factor).sum()
    gap = np.square(first.mean - second.mean).sum()
    return max(0.0, float(gap + traces - 2 * roots))


class Normal(NamedTuple):
    """A normal distribution."""

    mean: np.ndarray
    """(D,)."""
    factor: np.ndarray
    """(min(N, D), D): its transpose times itself is the covariance."""


def _normal(features: np.ndarray) -> Normal:
    mean = features.mean(axis=0)
    factor = (features - mean) / np.sqrt(len(features) - 1)
    if len(factor) > factor.shape[1]:
        factor = np.linalg.qr(factor, mode="r")
    return Normal(mean, factor)


def squared_discrepancy(real: np.ndarray, drawn: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)^3, unbiased: below 0 by chance for equal sets.

    Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3; Bińkowski et al. 2018, "Demystifying MMD GANs",
    section 4.

    Args:
        real: (N, D), two rows or more.
        drawn: (M, D), two rows or more.
    """
    real, drawn = _checked(real, 2), _checked(drawn, 2)
    _same_width(real[0], drawn[0])
    return (
        _mean_of_pairs(real) + _mean_of_pairs(drawn) - 2 * _kernel_sum(real, drawn) / (len(real) * len(drawn))
    )


def kernel_distance(
    real: np.ndarray, drawn: np.ndarray, seed: int = 0, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE
) -> tuple[float, float]:
    """Mean and standard deviation of `squared_discrepancy` over random subsets (Bińkowski et al. 2018, section 4).

    Args:
        real: (N, D), four rows or more.
        drawn: (M, D), four rows or more.
        seed: of the subsets.
        subsets: how many.
        subset_size: rows of each, of both sets; half of the smaller set when that is less.

    Returns:
        The mean, and the deviation of a single subset.
    """
    real, drawn = _checked(real, 4), _checked(drawn, 4)
    size = min(subset_size, len(real) // 2, len(drawn) // 2)
    generator = np.random.default_rng(seed)
    values = [
        squared_discrepancy(
            real[generator.choice(len(real), size, replace=False)],
            drawn[generator.choice(len(drawn), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _kernel_sum(left: np.ndarray, right: np.ndarray) -> float:
    rows = max(1, BLOCK_NUMBERS // len(right))
    width = left.shape[1]
    total = 0.0
    for start in range(0, len(left), rows):
        kernel = left[start : start + rows] @ right.T / width + 1
        total += float(np.sum(kernel * kernel * kernel))  # `kernel ** 3` takes ten times as long
    return total


def _mean_of_pairs(features: np.ndarray) -> float:
    """Mean kernel of two different rows."""
    alone = ((np.square(features).sum(axis=1) / features.shape[1] + 1) ** 3).sum()
    return (_kernel_sum(features, features) - float(alone)) / (len(features) * (len(features) - 1))


class Overlap(NamedTuple):
    """Where two sets lie in each other's neighbourhoods; the mean of each array is the measure."""

    precision: np.ndarray
    """(M,) whether a drawn image lies within the k-th nearest neighbour of some real one."""
    recall: np.ndarray
    """(N,) whether a real image lies so among the drawn ones."""
    density: np.ndarray
    """(M,) in how many neighbourhoods of real images a drawn one lies, divided by k; 1 on average for equal sets."""
    coverage: np.ndarray
    """(N,) whether some drawn image lies in a real one's neighbourhood."""


def overlap(
    real: np.ndarray, drawn: np.ndarray, manifold_neighbors: int = 3, density_neighbors: int = 5
) -> Overlap:
    """Precision and recall, density and coverage.

    Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", equation 1, with 3
    neighbours; Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", equations 5 and 6,
    with 5. A neighbourhood holds its edge.

    Args:
        real: (N, D).
        drawn: (M, D).
        manifold_neighbors: k of precision and recall.
        density_neighbors: k of density and coverage.
    """
    nearest = max(manifold_neighbors, density_neighbors) + 1
    real, drawn = _checked(real, nearest), _checked(drawn, nearest)
    _same_width(real[0], drawn[0])
    # Differences do not depend on where the origin is, and near it fewer digits of them are lost.
    center = real.mean(axis=0)
    real, drawn = real - center, drawn - center
    manifold, dense = neighbor_distances(real, (manifold_neighbors, density_neighbors))
    (of_drawn,) = neighbor_distances(drawn, (manifold_neighbors,))
    precise, counts = np.zeros(len(drawn), bool), np.zeros(len(drawn))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, squares in squared_distances(real, drawn):
        precise |= (squares <= manifold[rows, None]).any(axis=0)
        inside = squares <= dense[rows, None]
        counts += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squares <= of_drawn[None]).any(axis=1)
    return Overlap(precise, recalled, counts / density_neighbors, covered)


def neighbor_distances(features: np.ndarray, neighbors: tuple[int, ...]) -> list[np.ndarray]:
    """Squared distance of each row (N, D) to its k-th nearest other row, for each k: a list of (N,)."""
    found = [np.empty(len(features)) for _ in neighbors]
    for rows, squares in squared_distances(features, features):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1  # itself, before all others
        nearest = np.partition(squares, sorted(neighbors), axis=1)
        for place, k in zip(found, neighbors, strict=True):
            place[rows] = nearest[:, k]
    return found


def squared_distances(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances of some rows of `left` to all of `right`, block by block: rows, and (rows, M)."""
    rows = max(1, BLOCK_NUMBERS // len(right))
    lengths = np.square(right).sum(axis=1)
    for start in range(0, len(left), rows):
        part = left[start : start + rows]
        squares = np.square(part).sum(axis=1)[:, None] + lengths - 2 * part @ right.T
        yield slice(start, start + len(part)), np.maximum(squares, 0)


def mean_distance(features: np.ndarray) -> float:
    """Mean distance between two different rows of (N, D): how diverse a set is."""
    features = _checked(features, 2)
    features = features - features.mean(axis=0)
    total = sum(float(np.sqrt(squares).sum()) for _, squares in squared_distances(features, features))
    return total / (len(features) * (len(features) - 1))


def _checked(features: np.ndarray, fewest: int) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < fewest:
        raise ValueError(f"Expected {fewest} rows of features or more. Received: shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("Expected finite features. Received: NaN or infinity among them")
    return features


def _same_width(left: np.ndarray, right: np.ndarray) -> None:
    if left.shape != right.shape:
        raise ValueError(f"Expected as many features of both. Received: {left.shape[0]} and {right.shape[0]}")
