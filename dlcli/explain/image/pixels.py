"""What methods of images share: baselines for what is hidden, and how many images go through a model at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from skimage.filters import gaussian

Baseline = Literal["mean", "black", "white", "blur"]
"""What stands for pixels that are not there: the image's own mean colour, black, white, or the image out of focus."""

BLUR = 1 / 8
"""Standard deviation of the blur, in shorter sides of the image."""

PIXELS_AT_ONCE = 128 * 64 * 64
"""Pixels in one call of the model: its activations are tens to hundreds of times as large."""

IMAGES_AT_ONCE = 128
"""Images in one call of the model at most; more are not faster."""


def baseline_images(images: np.ndarray, baseline: Baseline) -> np.ndarray:
    """Images without what is in them, of the same shape and dtype.

    Args:
        images: uint8 or float32 (B, H, W, C); floats are taken for 0..1 unless one is above 1.
        baseline: what stands for pixels that are not there.

    Raises:
        ValueError: there is no such baseline.
    """
    if baseline not in get_args(Baseline):
        raise ValueError(f"baseline is one of {', '.join(get_args(Baseline))}; received: {baseline!r}")
    whole = images.dtype.kind in "iu"
    if baseline == "black":
        return np.zeros_like(images)
    if baseline == "white":
        return np.full_like(images, 255 if whole or images.max(initial=0) > 1 else 1)
    if baseline == "mean":
        hidden = np.broadcast_to(images.mean((1, 2), np.float64, keepdims=True), images.shape)
    else:
        deviation = BLUR * min(images.shape[1:3])
        hidden = np.stack(
            [gaussian(image.astype(np.float32), deviation, channel_axis=-1) for image in images]
        )
    return (np.rint(hidden) if whole else hidden).astype(images.dtype)


def images_at_once(height: int, width: int) -> int:
    """How many images of this size go through a model in one call."""
    return int(np.clip(PIXELS_AT_ONCE // (height * width), 1, IMAGES_AT_ONCE))


def parts(count: int, size: int) -> Iterator[slice]:
    """0..count in slices of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
