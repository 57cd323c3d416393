"""Many small images as one picture: tiles in rows, small ones enlarged without blur, names beside rows or columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dlcli.files import atomic_path

TILE = 56
"""Pixels: smaller images are enlarged by a whole factor up to about this side."""
LARGEST_SIDE = 4096
"""Pixels of the picture: larger tiles than fit are made smaller."""
PAPER, INK = 255, 40
LONGEST_NAME = 160
"""Pixels that a name may take; the rest becomes an ellipsis."""
POINTS = 12


class Grid(NamedTuple):
    """What a picture of tiles shows."""

    images: np.ndarray
    """uint8 (N, H, W, C), row after row."""
    columns: int
    row_names: Sequence[str] = ()
    """Beside the rows; none when empty."""
    column_names: Sequence[str] = ()
    """Above the columns; none when empty."""


def write_grid(grid: Grid, path: Path) -> None:
    """Writes the picture, whole or not at all."""
    write_image(grid_picture(grid), path)


def write_image(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 (H, W, C) with C of 1, 3 or 4 as a picture of its suffix's format, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(temporary)


def grid_picture(grid: Grid) -> np.ndarray:
    """Tiles on white paper: uint8 (height, width, C)."""
    images = np.asarray(grid.images)
    if images.ndim != 4 or not len(images) or images.dtype != np.uint8:
        raise ValueError(f"Expected uint8 images (N, H, W, C). Received: {images.dtype} {images.shape}")
    columns = min(grid.columns, len(images))
    rows = math.ceil(len(images) / columns)
    images = _resized(images, max(rows, columns))
    _, height, width, channels = images.shape
    gap = 2 if height <= 2 * TILE else 4
    left = _widest(grid.row_names) + 2 * gap if grid.row_names else gap
    top = POINTS + 4 * gap if grid.column_names else gap
    shape = (top + rows * (height + gap), left + columns * (width + gap), channels)
    paper = np.full(shape, PAPER, np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        y, x = top + row * (height + gap), left + column * (width + gap)
        paper[y : y + height, x : x + width] = image
    if not grid.row_names and not grid.column_names:
        return paper
    picture = Image.fromarray(paper[..., 0] if channels == 1 else paper)
    draw = ImageDraw.Draw(picture)
    ink = INK if channels == 1 else (INK, INK, INK, 255)[:channels]
    for row, name in enumerate(grid.row_names[:rows]):
        y = top + row * (height + gap) + height / 2
        draw.text((left - gap, y), shortened(name, LONGEST_NAME), ink, _font(), anchor="rm")
    for column, name in enumerate(grid.column_names[:columns]):
        x = left + column * (width + gap) + width / 2
        draw.text((x, (top - gap) / 2), shortened(name, width), ink, _font(), anchor="mm")
    drawn = np.asarray(picture)
    return drawn[..., None] if channels == 1 else drawn


def columns_for(count: int) -> int:
    """Columns of a picture that is about as wide as high."""
    return max(1, math.ceil(math.sqrt(count)))


def shortened(name: str, pixels: float) -> str:
    """As much of the beginning of a name as fits into `pixels`, in one line, and an ellipsis."""
    text = " ".join(str(name).split())
    if _font().getlength(text) <= pixels:
        return text
    while text and _font().getlength(text + "…") > pixels:
        text = text[:-1]
    return text + "…"


def _resized(images: np.ndarray, most: int) -> np.ndarray:
    """Enlarged by repeating pixels; made smaller where `most` of them in a line would be wider than the picture."""
    height, width = images.shape[1:3]
    side = max(height, width)
    room = max(8, LARGEST_SIDE // most)
    factor = min(max(1, round(TILE / side)), max(1, room // side))
    if factor > 1:
        return images.repeat(factor, axis=1).repeat(factor, axis=2)
    if side <= room:
        return images
    size = (max(1, width * room // side), max(1, height * room // side))
    smaller = [
        np.asarray(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).resize(size))
        for image in images
    ]
    return np.stack(smaller).reshape(len(images), size[1], size[0], images.shape[-1])


def _widest(names: Sequence[str]) -> int:
    return math.ceil(max(_font().getlength(shortened(name, LONGEST_NAME)) for name in names))


@cache
def _font() -> ImageFont.FreeTypeFont:
    # matplotlib's own font, which every installation has.
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), POINTS)
