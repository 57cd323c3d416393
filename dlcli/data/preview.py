"""A picture of training images as augmentation makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dlcli.data import IMAGE_KINDS, TEXT_KINDS
from dlcli.data.augmentation import Position, build_augment, mixes_targets
from dlcli.data.examples import Data, DataInfo, Examples
from dlcli.errors import DataError
from dlcli.evaluation.figure import check_picture, save_figure
from dlcli.recipe.schema import Recipe

DRAWS = 7
"""Augmented columns beside the original."""

INCHES = 1.3
"""Width of one picture; the two below are shares of it."""

TITLE = 0.2
GAP = 0.08


def write_preview(recipe: Recipe, out: Path, count: int = 8) -> Path:
    """Draw a grid: a training image a row, first as it is, then as seven epochs would see it; or texts as tokens.

    Args:
        recipe: of images or texts.
        out: where the picture goes, in the format of its suffix; its folder is made.
        count: rows; fewer when there are fewer examples.

    Returns:
        `out`.

    Raises:
        DataError: the recipe's data are neither.
        DlcliError: no picture can have this suffix.
    """
    check_picture(out)
    from dlcli.data.load import load_data

    data = load_data(recipe)
    if data.info.kind in TEXT_KINDS:
        from dlcli.data.text.preview import write_text_preview

        write_text_preview(recipe, data, out, count)
        return out
    if data.info.kind not in IMAGE_KINDS:
        raise DataError(
            f"dataset {recipe.dataset.name}: a preview needs images or texts; this is a {data.info.kind}"
        )
    count = max(1, min(count, len(data.train)))
    indices = np.random.default_rng(recipe.training.seed).permutation(len(data.train))[:count].astype("int32")
    columns, targets = _views(data, recipe, indices)
    info = data.info
    if isinstance(columns[0], dict):
        columns, targets, info = _one_below_the_other(columns, info)
    figure = _grid(columns, targets, info)
    save_figure(figure, out, dpi=110, facecolor="white")
    return out


def _views(data: Data, recipe: Recipe, indices: np.ndarray) -> tuple[list[Any], list[np.ndarray]]:
    """The images and targets of each column, the original first."""
    images, targets = _read(data.train, indices), tf.constant(data.train.targets[indices])
    specs = recipe.dataset.augmentation
    if mixes_targets(specs) and targets.dtype.is_integer:
        targets = tf.one_hot(targets, len(data.info.class_names))
    columns, labels = [tree.map_structure(np.asarray, images)], [targets.numpy()]
    augment = build_augment(specs, alike=data.info.kind == "image_pairs")
    if augment is None:
        return columns, labels
    for epoch in range(DRAWS):
        place = tf.constant(epoch, tf.int64)
        position = Position.of(recipe.training.seed, place, place, tf.constant(indices))
        changed, mixed = augment(images, targets, position)
        columns.append(tree.map_structure(np.asarray, changed))
        labels.append(mixed.numpy())
    return columns, labels


def _read(examples: Examples, indices: np.ndarray) -> Any:
    return examples.read(tf.constant(indices))


def _one_below_the_other(
    columns: list[dict[str, np.ndarray]], info: DataInfo
) -> tuple[list[np.ndarray], list[np.ndarray], DataInfo]:
    """Source and target, or A and B, as rows that are named so."""
    names = tuple(columns[0])
    stacked = [np.stack([column[name] for name in names], axis=1) for column in columns]
    rows = [images.reshape(-1, *images.shape[2:]) for images in stacked]
    which = np.tile(np.arange(len(names)), len(stacked[0]))
    return rows, [which] * len(rows), replace(info, target="classes", class_names=names)


def _grid(columns: list[np.ndarray], targets: list[np.ndarray], info: DataInfo) -> Figure:
    """All pictures in one pair of axes: a pair for each would take ten times as long."""
    rows, width = len(columns[0]), max(len(columns), 3)
    height = columns[0].shape[1] / columns[0].shape[2]  # of a picture, in units of its width
    below = height + TITLE
    figure = Figure(figsize=(INCHES * (width + GAP * (width + 2)), INCHES * (below * rows + TITLE + GAP)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    heading = "as stored" if len(columns) == 1 else "as stored, then as the first epochs see it"
    axes.text(GAP, TITLE / 2, heading, fontsize=9, fontweight="bold", va="center")
    for column, (images, labels) in enumerate(zip(columns, targets, strict=True)):
        # A wider gap sets the original apart.
        left = GAP + column * (1 + GAP) + (GAP if column else 0)
        for row in range(rows):
            top = TITLE + row * below + TITLE
            title = _title(labels[row], info)
            # A class named "$x_1$" is a name, not a formula.
            axes.text(left + 0.5, top - 0.04, title, fontsize=7, ha="center", va="bottom", parse_math=False)
            _draw(axes, images[row], (left, left + 1, top + height, top))
    axes.set_xlim(0, width + GAP * (width + 2))
    axes.set_ylim(below * rows + TITLE + GAP, 0)
    axes.set_axis_off()
    return figure


def _draw(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    pixels = np.clip(np.round(image), 0, 255).astype("uint8")
    # A grey image has no colour axis for matplotlib.
    picture = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent, aspect="auto")


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
