"""Does an explanation stay the same with another seed, or with a little noise on the input?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dlcli.explain.attribution import Attribution, Subject

Explain = Callable[[Sequence[Subject], np.ndarray], list[Attribution]]
"""A method with all but the subjects and their explained outputs filled in."""

NOISE = 0.02
"""Largest change of a pixel, as a share of the image's range."""


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


def noise_sensitivity(
    explain: Explain,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    attributions: Sequence[Attribution],
    *,
    seed: int = 0,
    repeats: int = 3,
) -> list[float]:
    """How far small noise on an image moves its map: max |E(x + noise) - E(x)| / |E(x)| over the repeats.

    The maximal sensitivity of Yeh et al. 2019, "On the (In)fidelity and Sensitivity of Explanations", section 4.
    0 is a map that does not move; about 1 and above is another map. The explained output stays the same.

    Args:
        explain: the method.
        subjects: images.
        outputs: int (N,), the explained outputs.
        attributions: what `explain` gave for them.
        seed: of the noise, uniform within +-2 % of the image's range.
        repeats: noisy copies of each image.
    """
    worst = np.zeros(len(subjects))
    for repeat in range(repeats):
        noisy = [_with_noise(each, seed + repeat) for each in subjects]
        for place, moved in enumerate(explain(noisy, outputs)):
            still = np.asarray(attributions[place].values, np.float64)
            distance = np.linalg.norm(np.asarray(moved.values, np.float64) - still)
            norm = np.linalg.norm(still)
            # A flat map has no length to compare with: it has moved, or has not.
            share = distance / norm if norm > 0 else float(distance > 0)
            worst[place] = np.maximum(worst[place], share)
    return worst.tolist()


def _with_noise(subject: Subject, seed: int) -> Subject:
    image = np.asarray(subject.inputs)
    whole = image.dtype.kind in "iu"
    low, high = (0.0, 255.0) if whole else (float(image.min()), float(image.max()))
    radius = NOISE * (high - low)
    noise = subject.generator(seed).uniform(-radius, radius, image.shape)
    noisy = np.clip(image + noise, low, high)
    return replace(subject, inputs=(np.round(noisy) if whole else noisy).astype(image.dtype))
