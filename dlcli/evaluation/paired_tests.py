"""Do two models differ on the same examples? McNemar's exact test, the paired bootstrap, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from dlcli.evaluation.intervals import CONFIDENCE, Interval, percentiles, resampled_means

RESAMPLES = 10_000
"""A p-value is no finer than one part in so many."""

Metrics = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Means of per-example quantities (R, Q) -> each metric (R,)."""


class Difference(NamedTuple):
    """First minus second."""

    value: float
    interval: Interval
    """95 %."""
    p: float
    """Two-sided: how often chance alone makes at least this difference between equal models."""


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of two classifiers' answers to the same questions.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages", in the
    exact form: of the examples that only one of them has right, each has them with probability 1/2.

    Args:
        only_first: examples that the first has right and the second wrong.
        only_second: the other way round.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"Expected counts of at least 0. Received {only_first} and {only_second}")
    trials, fewer = only_first + only_second, min(only_first, only_second)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    taken = np.arange(fewer + 1)
    logs = log_factorials[trials] - log_factorials[taken] - log_factorials[trials - taken]
    return min(1.0, 2 * float(np.exp(logs - trials * math.log(2)).sum()))


def share_difference_interval(only_first: int, only_second: int, count: int) -> Interval:
    """95 % interval of the difference of two shares of the same examples.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": Wald's interval
    with 1/2 added to each cell, which says something also where the two never differ.

    Args:
        only_first: examples that count for the first alone.
        only_second: for the second alone.
        count: all examples, at least 1.
    """
    if count < max(1, only_first + only_second):
        raise ValueError(f"Expected at least {only_first} + {only_second} examples. Received {count}")
    gained, lost, total = only_first + 0.5, only_second + 0.5, count + 2
    difference = (gained - lost) / total
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    half = z * math.sqrt(gained + lost - (gained - lost) ** 2 / total) / total
    return [max(-1.0, difference - half), min(1.0, difference + half)]


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, metrics: Metrics, seed: int = 0
) -> dict[str, Difference]:
    """Differences of two models' metrics over resamples of the examples, the same ones for both.

    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 16; Koehn 2004 for BLEU. The p-value
    counts the resamples whose difference is as far from the one that was seen as that is from 0.

    Args:
        first: quantities (N, Q) of each example, N at least 2.
        second: of the other model, in the same order.
        metrics: makes metrics of the means of quantities.
        seed: of the resamples.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"Expected two arrays (N, Q), N at least 2. Received {first.shape} and {second.shape}"
        )
    both = np.hstack([first, second])
    drawn = resampled_means(both, np.random.default_rng(seed), RESAMPLES)
    seen = _differences(both.astype(np.float64).mean(axis=0)[None], metrics)
    resampled = _differences(drawn, metrics)
    return {name: _difference(float(values[0]), resampled[name]) for name, values in seen.items()}


def _differences(means: np.ndarray, metrics: Metrics) -> dict[str, np.ndarray]:
    first, second = (metrics(part) for part in np.split(means, 2, axis=1))
    return {name: first[name] - second[name] for name in first}


def _difference(seen: float, resampled: np.ndarray) -> Difference:
    resampled = resampled[~np.isnan(resampled)]  # where the metric was undefined
    if math.isnan(seen) or not len(resampled):
        return Difference(math.nan, [math.nan, math.nan], math.nan)
    # Equal differences must count as equal, whatever the order in which they were added up.
    as_far = np.abs(resampled - seen) >= abs(seen) * (1 - 1e-9)
    return Difference(seen, percentiles(resampled), float((1 + as_far.sum()) / (1 + len(resampled))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that all of them together are wrong no more often than each said.

    Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p_values: in any order.

    Returns:
        In the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted
