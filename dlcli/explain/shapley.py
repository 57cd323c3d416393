"""Shapley values over the parts of any input: each part's fair share of what the output changes by.

Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions", section 4.1. Exact for few parts; for many
by the regression of Kernel SHAP, with subsets drawn in complementary pairs (Covert & Lee 2021, "Improving KernelSHAP",
section 4), which is exact for models in which parts act alone or in twos. Of a CNN's superpixels, errors
are about a fourth of those of shap's KernelExplainer with as many samples (tests/benchmarks/bench_shap.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from dlcli.explain.attribution import Attribution, Players
from dlcli.explain.lime import NOISE, all_coalitions

EXACT = 12
"""Up to so many parts all 2 ** M subsets are tried, whatever `samples` is."""


def explained(
    players: Players, *, samples: int, generator: np.random.Generator, settings: Mapping[str, Any]
) -> Attribution:
    """What `shap_values` says of the parts, as an Attribution of the input."""
    each, base, scores = shap_values(players, samples=samples, generator=generator)
    return Attribution(players.spread(each), signed=True, base=base, scores=scores, settings=settings)


def shap_values(
    players: Players, *, samples: int, generator: np.random.Generator
) -> tuple[np.ndarray, float, dict[str, float]]:
    """Shapley values of the parts.

    Args:
        players: the parts.
        samples: calls of the model, where there are more than 12 parts and more subsets than samples.
        generator: of random numbers.

    Returns:
        Values, float64 (M,); the base, which is the output with all parts hidden; scores: `segments`, which is M,
        `residual`, |base + sum of values - f(x)|, `exact`, 1 or 0, and `evaluations`, how many subsets were tried.
        Values are NaN where the model gave something that is not finite.
    """
    if samples < 1:
        raise ValueError(f"Expected `samples` of at least 1. Received: {samples}")
    count = players.count
    exact = count <= EXACT or (count < 31 and 2**count <= samples)
    if exact:
        present = all_coalitions(count)
        outputs = np.asarray(players.value(present), np.float64)
        base, whole = float(outputs[0]), float(outputs[-1])
        values = exact_values(outputs)
    else:
        present, weights = coalitions(count, samples, generator)
        ends = np.stack([np.zeros(count, bool), np.ones(count, bool)])
        outputs = np.asarray(players.value(np.concatenate([ends, present])), np.float64)
        base, whole = float(outputs[0]), float(outputs[1])
        values = regression(present, outputs[2:], weights, base, whole)
    scores = {
        "segments": float(count),
        "residual": abs(base + float(values.sum()) - whole),
        "exact": float(exact),
        "evaluations": float(len(outputs)),
    }
    return values, base, scores


def exact_values(outputs: np.ndarray) -> np.ndarray:
    """Shapley values (M,) of the outputs of every subset (2 ** M,), in the order of `all_coalitions`.

    A part that never changes anything gets exactly 0.
    """
    count = len(outputs).bit_length() - 1
    if not np.isfinite(outputs).all():
        return np.full(count, np.nan)
    values = np.zeros(count)
    if np.ptp(outputs) <= NOISE * np.abs(outputs).max():
        return values
    subsets = np.arange(len(outputs))
    size = all_coalitions(count).sum(axis=1)
    # |S|! (M - |S| - 1)! / M!
    weights = 1 / (count * np.array([math.comb(count - 1, each) for each in range(count)]))
    for part in range(count):
        without = subsets[subsets >> part & 1 == 0]
        values[part] = weights[size[without]] @ (outputs[without | 1 << part] - outputs[without])
    return values


def coalitions(count: int, samples: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Subsets to try, neither empty nor whole: every one of the smallest and largest, then random ones in pairs.

    Args:
        count: M, at least 2.
        samples: about how many; 2 at least, for the empty and the whole one, are not among them.
        generator: of random numbers.

    Returns:
        Subsets, bool (N, M), and their weights (N,) in the regression.
    """
    sizes = np.arange(1, count)
    mass = (count - 1) / (sizes * (count - sizes))  # of all subsets of a size together
    mass /= mass.sum()
    pairs = max(1, (samples - 2) // 2)
    rows: list[np.ndarray] = []
    weights: list[float] = []
    left = 1.0
    smallest = 1
    while smallest <= count // 2:
        twice = smallest * 2 != count
        share = mass[smallest - 1] * (2 if twice else 1)
        needed = math.comb(count, smallest) // (1 if twice else 2)
        # All of a size are tried as soon as drawing would try so many: their part of the sum then has no chance in it.
        if needed > pairs * share / left:
            break
        half = _subsets(count, smallest)[:needed]
        rows += [half, ~half]
        weights += [share / (2 * needed)] * (2 * needed)
        pairs, left, smallest = pairs - needed, left - share, smallest + 1
    if smallest <= count // 2 and pairs > 0:
        rest = np.arange(smallest, count - smallest + 1)
        half = _drawn(
            count, generator.choice(rest, pairs, p=mass[rest - 1] / mass[rest - 1].sum()), generator
        )
        rows += [half, ~half]
        weights += [left / (2 * pairs)] * (2 * pairs)
    return np.concatenate(rows), np.array(weights)


def regression(
    present: np.ndarray, outputs: np.ndarray, weights: np.ndarray, base: float, whole: float
) -> np.ndarray:
    """Values (M,) that sum to whole - base, and whose sums over subsets come nearest to the subsets' outputs."""
    count = present.shape[1]
    everything = np.array([base, whole, *outputs])
    if not np.isfinite(everything).all():
        return np.full(count, np.nan)
    if np.ptp(everything) <= NOISE * np.abs(everything).max():
        return np.zeros(count)
    # Equal shares, plus a deviation that sums to 0: rows without their mean are orthogonal to (1, ..., 1), so that the
    # smallest solution is too. With fewer samples than parts it leaves unseen directions at equal shares.
    share = (whole - base) / count
    size = present.sum(axis=1)
    root = np.sqrt(weights)
    x = (present - size[:, None] / count) * root[:, None]
    y = (outputs - base - size * share) * root
    deviation = np.linalg.lstsq(x, y, rcond=None)[0]
    return share + deviation - deviation.mean()


def _subsets(count: int, size: int) -> np.ndarray:
    """Every subset of a size, bool (N, M); of half the parts, the first N / 2 have their complements in the rest."""
    chosen = np.array(list(combinations(range(count), size)))
    rows = np.zeros((len(chosen), count), bool)
    rows[np.arange(len(chosen))[:, None], chosen] = True
    return rows


def _drawn(count: int, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random subset of each size, bool (N, M)."""
    ranks = generator.random((len(sizes), count)).argsort(axis=1).argsort(axis=1)
    return ranks < sizes[:, None]
