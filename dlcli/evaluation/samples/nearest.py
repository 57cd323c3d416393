"""The train image that is nearest to a sample: whether a network draws, or remembers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlcli.data.examples import Examples
from dlcli.evaluation.samples.image_features import images_at, some_images

AMONG = 60_000
"""Train images that are looked at; of more, as many at random."""


class Nearest(NamedTuple):
    """Of each of N images."""

    images: np.ndarray
    """uint8 (N, H, W, C), the nearest train images."""
    distances: np.ndarray
    """(N,): the root of the mean square difference of pixels in [0, 1]."""


def nearest_images(images: np.ndarray, train: Examples) -> Nearest:
    """The nearest train image of each image, in pixels.

    Args:
        images: uint8 (N, H, W, C).
        train: of the same shape.
    """
    queries = images.reshape(len(images), -1).astype(np.float64) / 255
    lengths = np.square(queries).sum(axis=1)
    best = np.full(len(images), np.inf)
    found: Any = np.zeros_like(images)
    for batch in images_at(train, some_images(train, AMONG)):
        rows = batch.reshape(len(batch), -1).astype(np.float64) / 255
        squares = lengths[:, None] + np.square(rows).sum(axis=1) - 2 * queries @ rows.T
        place = squares.argmin(axis=1)
        values = squares[np.arange(len(images)), place]
        nearer = values < best
        best[nearer] = values[nearer]
        found[nearer] = batch[place[nearer]]
    return Nearest(found, np.sqrt(np.maximum(best, 0) / queries.shape[1]))
