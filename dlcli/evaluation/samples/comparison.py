"""Drawn images beside real ones in a network's features: every measure with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlcli.evaluation.intervals import percentiles, resampled_means, wilson_interval
from dlcli.evaluation.samples.distances import (
    NARROW,
    SUBSET_SIZE,
    frechet_distance,
    kernel_distance,
    mean_distance,
    overlap,
    quick_products,
)
from dlcli.evaluation.samples.image_features import Described, FeatureNetwork

FEWEST = 10
"""Images of each set that distances take."""
CONFIDENT = 0.9
RESAMPLES = 100
DIVERSITY_IMAGES = 256


@dataclass(frozen=True)
class Comparison:
    """Measures of one set of images against another."""

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    details: dict[str, Any] = field(default_factory=dict)
    """What the report holds beside them."""


def compare(real: Described, drawn: Described, intervals: bool = True) -> Comparison:
    """Distances, precision and recall, density and coverage.

    Args:
        real: 10 images or more.
        drawn: as many, best: few images make the Fréchet distance larger.
        intervals: whether to say how sure they are; not for what is only a floor.
    """
    with quick_products(real.features.shape[1]):
        distance = frechet_distance(real.features, drawn.features)
        kernel, deviation = kernel_distance(real.features, drawn.features)
        found = overlap(real.features, drawn.features)
        metrics = {
            "frechet_distance": distance,
            "kernel_distance": kernel,
            **{name: float(np.mean(values)) for name, values in found._asdict().items()},
        }
        if not intervals:
            return Comparison(metrics, {})
        bounds: dict[str, list[float]] = {}
        if real.features.shape[1] <= NARROW:
            bounds["frechet_distance"] = _frechet_interval(real.features, drawn.features, distance)
    half = 1.96 * deviation * _subset_scale(min(len(real.features), len(drawn.features)))
    bounds["kernel_distance"] = [kernel - half, kernel + half]
    for name in ("precision", "recall", "coverage"):
        hits = getattr(found, name)
        bounds[name] = wilson_interval(int(hits.sum()), len(hits))
    means = resampled_means(found.density[:, None], np.random.default_rng(0))
    bounds["density"] = percentiles(means[:, 0])
    return Comparison(metrics, bounds, {"kernel_distance_deviation": deviation})


def _subset_scale(count: int) -> float:
    """The standard error of an estimate from `count` images, as a share of the deviation among its subsets.

    Shao and Wu 1989, "A General Theory for Jackknife Variance Estimation": subsets without replacement differ by less
    than samples of their size do, and by as much as samples of `count` when they are halves.
    """
    size = min(SUBSET_SIZE, count // 2)
    return float(np.sqrt(size / (count - size)))


def _frechet_interval(real: np.ndarray, drawn: np.ndarray, estimate: float) -> list[float]:
    """From the deviation over resamples of both sets.

    Their percentiles would lie above the estimate: images that stand twice in a resample are as if there were fewer.
    """
    generator = np.random.default_rng(0)
    values = [
        frechet_distance(
            real[generator.integers(len(real), size=len(real))],
            drawn[generator.integers(len(drawn), size=len(drawn))],
        )
        for _ in range(RESAMPLES)
    ]
    half = 1.96 * float(np.std(values, ddof=1))
    return [max(0.0, estimate - half), estimate + half]


def judged(
    network: FeatureNetwork, drawn: Described, wanted: tuple[np.ndarray, tuple[str, ...]] | None
) -> Comparison:
    """What a classifier says of images: how sure it is, and of which classes they are.

    Args:
        network: whose classes.
        drawn: images.
        wanted: class indices (N,) that the images were drawn for, and the names of those classes.
    """
    if drawn.probabilities is None:
        return Comparison({}, {})
    count, predicted = len(drawn.probabilities), drawn.probabilities.argmax(axis=1)
    sure = int((drawn.probabilities.max(axis=1) > CONFIDENT).sum())
    metrics, bounds = {"confident_share": sure / count}, {"confident_share": wilson_interval(sure, count)}
    if wanted is not None and wanted[1] == network.class_names:
        right = int((predicted == wanted[0]).sum())
        metrics["class_agreement"] = right / count
        bounds["class_agreement"] = wilson_interval(right, count)
    shares = np.bincount(predicted, minlength=len(network.class_names)) / count
    return Comparison(
        metrics, bounds, {"class_shares": dict(zip(network.class_names, shares.tolist(), strict=True))}
    )


def diversity(images: np.ndarray) -> float:
    """Mean distance of two of the images, per pixel: the root of the mean square, of pixels in [0, 1].

    Args:
        images: uint8 (N, H, W, C), two or more; of more than 256, the first ones.
    """
    pixels = images[:DIVERSITY_IMAGES].reshape(min(len(images), DIVERSITY_IMAGES), -1) / 255
    with quick_products(1):
        return mean_distance(pixels) / pixels.shape[1] ** 0.5
