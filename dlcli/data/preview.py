"""A picture of training images as augmentation makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dlcli.data.augmentation import Position, build_augment, mixes_targets
from dlcli.data.examples import Data, DataInfo, Examples
from dlcli.errors import DataError
from dlcli.recipe.schema import Recipe

DRAWS = 7
"""Augmented columns beside the original."""

MOST_ROWS = 64
INCHES = 1.3
"""Side of one picture."""


def write_preview(recipe: Recipe, out: Path, count: int = 8) -> Path:
    """Draw a PNG grid: a training image a row, first as it is, then as seven epochs would see it.

    Args:
        recipe: of image data.
        out: where the picture goes; its folder is made.
        count: rows, at most 64; fewer when there are fewer images.

    Returns:
        `out`.

    Raises:
        DataError: the recipe's data are not images.
    """
    from dlcli.data.load import load_data

    data = load_data(recipe)
    if data.info.kind != "image":
        raise DataError(f"dataset {recipe.dataset.name}: a preview needs images; this is a {data.info.kind}")
    count = max(1, min(count, len(data.train), MOST_ROWS))
    indices = np.random.default_rng(recipe.training.seed).permutation(len(data.train))[:count].astype("int32")
    columns, targets = _views(data, recipe, indices)
    figure = _grid(columns, targets, data.info)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png", dpi=110, facecolor="white")
    return out


def _views(data: Data, recipe: Recipe, indices: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images and targets of each column, the original first."""
    images, targets = _read(data.train, indices), tf.constant(data.train.targets[indices])
    specs = recipe.dataset.augmentation
    if mixes_targets(specs) and targets.dtype.is_integer:
        targets = tf.one_hot(targets, len(data.info.class_names))
    columns, labels = [images.numpy()], [targets.numpy()]
    augment = build_augment(specs)
    if augment is None:
        return columns, labels
    for epoch in range(DRAWS):
        place = tf.constant(epoch, tf.int64)
        position = Position.of(recipe.training.seed, place, place, tf.constant(indices))
        changed, mixed = augment(images, targets, position)
        columns.append(changed.numpy())
        labels.append(mixed.numpy())
    return columns, labels


def _read(examples: Examples, indices: np.ndarray) -> tf.Tensor:
    images: tf.Tensor = examples.read(tf.constant(indices))
    return images


def _grid(columns: list[np.ndarray], targets: list[np.ndarray], info: DataInfo) -> Figure:
    rows, width = len(columns[0]), len(columns)
    height_share = columns[0].shape[1] / columns[0].shape[2]
    figure = Figure(
        figsize=(INCHES * max(width, 3), (INCHES * height_share + 0.24) * rows + 0.3), layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, width, squeeze=False)
    for column, (images, labels) in enumerate(zip(columns, targets, strict=True)):
        for row in range(rows):
            _draw(grid[row, column], images[row], _title(labels[row], info))
    figure.suptitle(
        "as stored" + (" | as training sees it, epoch by epoch" if width > 1 else ""),
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure


def _draw(axes: Axes, image: np.ndarray, title: str) -> None:
    pixels = np.clip(np.round(image), 0, 255).astype("uint8")
    # A grey image has no colour axis for matplotlib.
    picture = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=7, pad=2)
    axes.set_axis_off()


def _title(target: np.ndarray, info: DataInfo) -> str:
    """Class names; of a blend the two largest, with their shares."""
    if info.target == "values":
        return ", ".join(f"{value:.3g}" for value in np.atleast_1d(target))
    if np.ndim(target) == 0:
        return _shortened(info.class_names[int(target)])
    best = [index for index in np.argsort(-target)[:2] if target[index] > 0.005]
    if len(best) == 1 or info.target == "labels":
        return _shortened(", ".join(info.class_names[index] for index in best) or "none")
    return " + ".join(f"{_shortened(info.class_names[index], 9)} {target[index]:.0%}" for index in best)


def _shortened(name: str, length: int = 18) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
