"""What integrated gradients of images and of texts share: where gradients are taken, and what the sum misses."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SMALLEST_DIFFERENCE = 1e-3
"""The error of a sum is told relative to f(x) - f(baseline), or to this where that is smaller."""


@lru_cache(maxsize=4)
def way(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Places on the way from a baseline (0) to an input (1), and their weights, which sum to 1: float32 (steps,) each.

    Of the Gauss-Legendre rule; thousands of them take seconds.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    return ((points + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)


def missed(total: float, difference: float) -> float:
    """By how much attributions that sum to `total` miss f(x) - f(baseline), as a share of it."""
    return float(abs(total - difference) / max(abs(difference), SMALLEST_DIFFERENCE))
