"""Differentiable augmentation: what a discriminator sees of few images, so that it cannot learn them by heart.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", arXiv:2006.10738. Real and drawn images
go through the same operations, and the generator's gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from dlcli.errors import DlcliError

DRAWS = 7
"""Uniform numbers that one image takes: three for colours, two for the shift, two for the square."""

SHIFT = 1 / 8
"""Farthest shift, of the side (section 4 of the paper)."""
SQUARE = 1 / 2
"""Side of the square that is cut out, of the image's."""


def build_differentiable(policy: Sequence[str]) -> Callable[[Any, Any], Any]:
    """What images go through, each with numbers of its own.

    Args:
        policy: of `color`, `translation`, `cutout`; they are applied in this order.

    Returns:
        (images (B, H, W, C) in [-1, 1], uniform draws in [0, 1), (B, DRAWS)) -> images (B, H, W, C).

    Raises:
        DlcliError: a name is not known, or comes twice.
    """
    for name in policy:
        if name not in _OPERATIONS:
            raise DlcliError(
                f"task.differentiable_augmentation knows {', '.join(_OPERATIONS)}. Received: {name}"
            )
    if len(set(policy)) < len(policy):
        raise DlcliError(
            "task.differentiable_augmentation: name each operation once. Received: " + ", ".join(policy)
        )
    operations = [_OPERATIONS[name] for name in policy]

    def augment(images: Any, draws: Any) -> Any:
        for operation, first, count in operations:
            images = operation(images, draws[:, first : first + count])
        return images

    return augment


def _color(images: Any, draws: Any) -> Any:
    """Brightness +-0.5, then saturation times 0 to 2, then contrast times 0.5 to 1.5."""
    brightness, saturation, contrast = (
        ops.cast(draws[:, place, None, None, None], images.dtype) for place in range(3)
    )
    images = images + brightness - 0.5
    grey = ops.mean(images, axis=-1, keepdims=True)
    images = (images - grey) * (2 * saturation) + grey
    level = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - level) * (contrast + 0.5) + level


def _translation(images: Any, draws: Any) -> Any:
    """A shift by whole pixels along both axes; what comes in is 0, mid-grey."""
    rows = _shift_matrix(images.shape[1], draws[:, 0], images.dtype)
    columns = _shift_matrix(images.shape[2], draws[:, 1], images.dtype)
    images = ops.einsum("bij,bjwc->biwc", rows, images)
    return ops.einsum("bij,bhjc->bhic", columns, images)


def _shift_matrix(side: int, draws: Any, dtype: Any) -> Any:
    """(B, side, side) of ones and zeros: row i takes pixel i - shift.

    A product can be differentiated any number of times on every backend, which penalties on slopes need.
    """
    farthest = int(side * SHIFT + 0.5)
    shift = ops.floor(draws * (2 * farthest + 1)) - farthest  # (B,)
    places = ops.arange(side, dtype=shift.dtype)
    return ops.cast(ops.equal(places[None, None, :], places[None, :, None] - shift[:, None, None]), dtype)


def _cutout(images: Any, draws: Any) -> Any:
    """A square of half the side becomes 0; its centre is anywhere in the image."""
    outside_rows = _outside(images.shape[1], draws[:, 0])  # (B, H)
    outside_columns = _outside(images.shape[2], draws[:, 1])  # (B, W)
    kept = ops.logical_or(outside_rows[:, :, None], outside_columns[:, None, :])
    return images * ops.cast(kept[..., None], images.dtype)


def _outside(side: int, draws: Any) -> Any:
    length = int(side * SQUARE + 0.5)
    first = ops.floor(draws * (side + 1 - length % 2)) - length // 2  # (B,)
    places = ops.arange(side, dtype=first.dtype)[None]
    return ops.logical_or(places < first[:, None], places >= first[:, None] + length)


_OPERATIONS = {"color": (_color, 0, 3), "translation": (_translation, 3, 2), "cutout": (_cutout, 5, 2)}
"""Name -> operation, and which draws it takes."""
