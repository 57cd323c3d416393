"""An attribution's values -> colours, alone and over the image."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.record import Explained, number

SEQUENTIAL = "inferno"
DIVERGING = "RdBu_r"
"""Red speaks for the class, blue against it, white is 0."""

BRIGHTEST = 99.5
"""Percentile of the values that has the full colour: the few pixels above it would leave all others pale."""

THUMBNAIL = 96
"""Pixels of the longer side."""

_PIXELATED = 48
"""Thumbnails up to this size are kept without loss, since a browser enlarges them."""


class Scale(NamedTuple):
    """What the colours of a picture stand for."""

    low: float
    """Value of the first colour; -high where attributions are signed."""
    high: float
    """Value of the last colour."""
    colors: str
    """The name of matplotlib's colour map."""
    clipped: float
    """Share of pixels beyond the last colour."""

    def record(self) -> dict[str, Any]:
        """For explanation.json."""
        return {
            "low": number(self.low),
            "high": number(self.high),
            "colors": self.colors,
            "clipped": number(self.clipped),
        }


def scale_of(attribution: Attribution) -> Scale | None:
    """Centred on 0 for signed values, else from the least value on; None where there is nothing to show."""
    if attribution.problem:
        return None
    values = np.asarray(attribution.values, np.float64)
    sizes = np.abs(values) if attribution.signed else values
    low = -np.inf if attribution.signed else float(values.min())
    high = float(np.percentile(sizes, BRIGHTEST))
    if high <= max(low, 0 if attribution.signed else -np.inf):
        high = float(sizes.max())  # fewer pixels than the percentile leaves out have any attribution
    clipped = float((sizes > high).mean())
    if attribution.signed:
        return Scale(-high, high, DIVERGING, clipped)
    return Scale(low, high, SEQUENTIAL, clipped)


def shown_pixels(image: np.ndarray) -> np.ndarray:
    """Any model's image as uint8 (H, W, 3).

    Args:
        image: (H, W) or (H, W, C). uint8, or numbers in 0..1 or 0..255; others are stretched from their least to their
            largest. One channel is grey, four are colour with transparency (laid over white); of other counts the mean
            is shown.
    """
    pixels: np.ndarray = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if np.asarray(image).dtype != np.uint8:
        low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))
        if low < 0 or high > 255:
            pixels = (pixels - low) * (255 / (high - low))
        elif high <= 1:
            pixels = pixels * 255
    if pixels.shape[-1] == 4:
        opacity = pixels[..., 3:] / 255
        pixels = pixels[..., :3] * opacity + 255 * (1 - opacity)
    elif pixels.shape[-1] != 3:
        pixels = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


def picture_of(subject: Subject) -> np.ndarray:
    """The image as the file has it, uint8 (H', W', 3); what the model reads where that is all there is."""
    return shown_pixels(subject.inputs if subject.original is None else subject.original)


def heatmap(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Colours of the values: (H, W) -> uint8 (H, W, 3)."""
    return _colors(scale.colors)[np.rint(255 * _positions(values, scale)).astype(int)]


def overlay(picture: np.ndarray, values: np.ndarray, scale: Scale) -> np.ndarray:
    """The heatmap over the image, the denser the larger the attribution.

    The image is paled to grey where there is none, so that no colour of its own is taken for an attribution.

    Args:
        picture: uint8 (H, W, 3).
        values: (H, W).
        scale: of the colours.

    Returns:
        uint8 (H, W, 3).
    """
    positions = _positions(values, scale)
    strength = np.abs(2 * positions - 1) if scale.low < 0 else positions
    opacity = (0.7 * strength**0.6)[..., None]
    pixels = picture.astype(np.float32)
    grey = pixels @ np.asarray([0.299, 0.587, 0.114], np.float32)
    base = 0.3 * pixels + 0.7 * grey[..., None]
    if scale.low < 0:
        base = 0.75 * base + 0.25 * 255  # the diverging colours are dark at both ends
    return np.rint(base * (1 - opacity) + heatmap(values, scale) * opacity).clip(0, 255).astype(np.uint8)


def resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values (H, W) or colours uint8 (H, W, 3) at another size; by squares where it is at least doubled.

    Doubled and more, the model's own pixels stay visible, and no detail is shown that no method has found.
    """
    if array.shape[:2] == (height, width):
        return array
    enlarged = height >= 2 * array.shape[0] and width >= 2 * array.shape[1]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
    source = Image.fromarray(array if array.dtype == np.uint8 else np.asarray(array, np.float32))
    return np.asarray(source.resize((width, height), method))


def thumbnail(subject: Subject, explained: Explained | None = None, side: int = THUMBNAIL) -> bytes | None:
    """A small picture for index.html, as WebP: the image, or the overlay of one explanation.

    Returns:
        None for an explanation that has nothing to show.
    """
    picture = picture_of(subject)
    factor = min(1.0, side / max(picture.shape[:2]))
    height, width = (max(1, round(factor * length)) for length in picture.shape[:2])
    picture = resized(picture, height, width)
    if explained is not None:
        scale = scale_of(explained.attribution)
        if scale is None:
            return None
        values = resized(explained.attribution.values, height, width)
        # Single pixels grow pale where several become one.
        scale = scale_of(replace(explained.attribution, values=values)) or scale
        picture = overlay(picture, values, scale)
    file = BytesIO()
    exact = max(height, width) <= _PIXELATED
    Image.fromarray(picture).save(file, "WEBP", lossless=exact, quality=20 if exact else 70, method=1)
    return file.getvalue()


def _positions(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Places on the colour map, in 0..1."""
    # Of one pixel the lowest value is the highest.
    positions = (np.asarray(values, np.float32) - scale.low) / ((scale.high - scale.low) or 1.0)
    return positions.clip(0, 1)


@cache
def _colors(name: str) -> np.ndarray:
    """The 256 colours of one of matplotlib's maps, uint8 (256, 3)."""
    import matplotlib

    table = matplotlib.colormaps[name](np.linspace(0, 1, 256), bytes=True)
    return np.asarray(table, np.uint8)[:, :3]
