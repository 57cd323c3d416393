"""LIME over the parts of any input: a line through what the model says when random parts are hidden.

Ribeiro et al. 2016, "Why Should I Trust You?", section 3.3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlcli.explain.attribution import Attribution, Players

KERNEL_WIDTH = 0.25
"""Of the proximity of an input with hidden parts to the whole one, in cosine distance: the lime package's."""

RIDGE = 4e-3
"""Penalty of the coefficients' squares, in variances of a part's presence: coefficients get 0.4 % too small, and fewer
samples than parts can be solved."""

NOISE = 1e-6
"""Outputs that differ by less, relative to the largest, differ by float32's rounding alone."""

LOW_R2 = 0.3
"""A line that explains less of the model's outputs does not describe it."""

FEW_PARTS = 8
"""Fewer parts say too little about where the evidence is."""


def explained(
    players: Players,
    *,
    samples: int,
    generator: np.random.Generator,
    settings: Mapping[str, Any],
    few: int = FEW_PARTS,
) -> Attribution:
    """What `lime` says of the parts, as an Attribution of the input."""
    each, scores, warnings = lime(players, samples=samples, generator=generator, few=few)
    return Attribution(players.spread(each), signed=True, scores=scores, settings=settings, warnings=warnings)


def lime(
    players: Players, *, samples: int, generator: np.random.Generator, few: int = FEW_PARTS
) -> tuple[np.ndarray, dict[str, float], tuple[str, ...]]:
    """What it does to the output that a part is present: the coefficients of a weighted ridge regression.

    Each part is present in half of the samples. Where there are no more subsets of parts than samples, all are tried
    equally often, and there is no chance in it.

    Args:
        players: the parts.
        samples: calls of the model.
        generator: of random numbers.
        few: fewer parts than this are warned of; 0 for no such warning, since a table has the columns that it has.

    Returns:
        Coefficients, float64 (M,), all NaN where the model gave something that is not finite; scores `r2`, of samples
        that the line has not seen (leave-one-out, weighted) where subsets are drawn, and `segments`, which is M; and
        sentences that warn.
    """
    if samples < 1:
        raise ValueError(f"Expected `samples` of at least 1. Received: {samples}")
    count = players.count
    if not count:
        return np.zeros(0), {"r2": 0.0, "segments": 0.0}, ("there are no parts to hide",)
    complete = count < 31 and 2**count <= samples
    if complete:
        # Several times: players may draw what stands for a hidden part, as of tables.
        present = np.tile(all_coalitions(count), (samples // 2**count, 1))
    else:
        present = drawn(count, samples, generator)
    values = np.asarray(players.value(present), np.float64)
    coefficients, r2 = fit(present, values, proximity(present), unseen=not complete)
    scores = {"r2": r2, "segments": float(count)}
    return coefficients, scores, _warnings(count, r2, few)


def all_coalitions(count: int) -> np.ndarray:
    """Every subset of M parts, bool (2 ** M, M); row i holds the parts whose bits are set in i."""
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)


def drawn(count: int, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Random subsets, bool (N, M), each part in with probability 1/2; the first is the whole input."""
    present = generator.random((samples, count)) < 0.5
    present[0] = True
    return present


def proximity(present: np.ndarray, width: float = KERNEL_WIDTH) -> np.ndarray:
    """Weights (N,) in 0..1 of subsets (N, M): exp(-d^2 / (2 width^2)), d their cosine distance from the whole input."""
    distance = 1 - np.sqrt(present.mean(axis=1))
    return np.exp(-(distance**2) / (2 * width**2))


def fit(
    present: np.ndarray, values: np.ndarray, weights: np.ndarray, *, unseen: bool = True
) -> tuple[np.ndarray, float]:
    """A weighted ridge regression of the values on which parts are present.

    Args:
        present: bool (N, M).
        values: (N,).
        weights: (N,), above 0.
        unseen: whether R2 is of each sample by a line through all others; else by the line itself.

    Returns:
        Coefficients (M,), and R2: 1 for a perfect line, 0 for one no better than the mean, or worse.
    """
    count = present.shape[1]
    if not np.isfinite(values).all():
        return np.full(count, np.nan), 0.0
    if np.ptp(values) <= NOISE * np.abs(values).max():
        return np.zeros(count), 1.0
    weights = weights / weights.sum()
    mean, middle = weights @ present, weights @ values
    root = np.sqrt(weights)
    x = (present - mean) * root[:, None]
    y = (values - middle) * root
    products = x.T @ x
    penalty = RIDGE * max(float(np.diag(products).mean()), 1e-9)
    inverse = np.linalg.inv(products + penalty * np.eye(count))
    coefficients = inverse @ (x.T @ y)
    residual = y - x @ coefficients
    if unseen:
        # What the line through all other samples misses, in closed form: residual / (1 - leverage), intercept included.
        leverage = np.einsum("nm,mk,nk->n", x, inverse, x, optimize=True) + weights
        residual = residual / np.maximum(1 - leverage, 1e-9)
    r2 = 1 - float(residual @ residual) / float(y @ y)
    return coefficients, max(0.0, r2)


def _warnings(count: int, r2: float, few: int) -> tuple[str, ...]:
    warnings = []
    if r2 < LOW_R2:
        warnings.append(f"R2 {r2:.2f} is below {LOW_R2}: a line does not describe the model here")
    if count < few:
        parts = "1 part" if count == 1 else f"{count} parts"
        warnings.append(f"{parts}, which is fewer than {few}: too coarse to say where the evidence is")
    return tuple(warnings)
