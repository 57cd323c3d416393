"""Does an explanation stay the same with another seed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dlcli.explain.attribution import Attribution, Subject

Explain = Callable[[Sequence[Subject], np.ndarray], list[Attribution]]
"""A method with all but the subjects and their explained outputs filled in."""


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two maps, in -1..1.

    Not a number when one is not finite. Two flat maps are the same (1); a flat one says nothing about another (0).
    """
    first, second = np.asarray(first, np.float64).reshape(-1), np.asarray(second, np.float64).reshape(-1)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    one, other = _ranks(first), _ranks(second)
    lengths = float((one**2).sum()), float((other**2).sum())
    if min(lengths) <= 0:
        return float(max(lengths) <= 0)
    return float(np.clip((one * other).sum() / np.sqrt(lengths[0] * lengths[1]), -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks around 0; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2 - len(values) / 2)[which]


def seed_stability(attributions: Sequence[Attribution], others: Sequence[Attribution]) -> list[float]:
    """Spearman's correlation of each map with that of the same method and another seed: `Trust.stability`."""
    return [spearman(each.values, other.values) for each, other in zip(attributions, others, strict=True)]
