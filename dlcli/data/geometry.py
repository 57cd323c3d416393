"""Augmentations that move pixels: crop, flip, and the affine family, one resampling by six numbers."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Position, as_float, between
from dlcli.errors import DataError
from dlcli.recipe.arguments import Count, Field, Fraction, Probability

FillMode = Literal["reflect", "constant", "wrap", "nearest"]
PixelValue = Annotated[float, Field(ge=0, le=255)]


def random_flip(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal",
    alternate: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirror half of the images.

    With `alternate` each image is mirrored in every other epoch, beginning at random (K. Jordan, "94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6); independent draws often show an image alike
    several epochs on end.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        mode: left-right, upside-down, or both, each with its own draw.
        alternate: every other epoch instead of by chance; with both directions the four views take turns.
    """
    if alternate:
        turn = tf.cast(position.epoch, tf.int32) + position.phase(4)
        horizontal, vertical = turn % 2 == 1, turn % 2 == 1
        if mode == "horizontal_and_vertical":
            vertical = turn // 2 % 2 == 1
    else:
        first, second = position.uniform(2)
        horizontal, vertical = first < 0.5, second < 0.5
    if mode != "vertical":
        images = _mirror_columns(images, horizontal)
    if mode != "horizontal":
        images = _mirror_rows(images, vertical)
    return images, targets


def random_crop(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    padding: Count = 4,
    fill_mode: Literal["reflect", "constant"] = "reflect",
    fill_value: PixelValue = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pad each side, then cut the original size out at random (He et al. 2016, section 4.2).

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        padding: pixels added to each side.
        fill_mode: `reflect` mirrors at the edge pixel without repeating it; `constant` is the paper's.
        fill_value: of the padding when it is `constant`.
    """
    height, width, channels = images.shape[1:]
    if fill_mode == "reflect" and padding >= min(height, width):
        raise DataError(
            f"random_crop: padding {padding} cannot reflect images of {height} x {width} pixels; "
            f"use at most {min(height, width) - 1}, or fill_mode: constant"
        )
    rows, columns = np.arange(height + 2 * padding), np.arange(width + 2 * padding)
    if fill_mode == "reflect":  # padding exists in the index tables alone
        rows, columns = (np.pad(np.arange(size), padding, mode="reflect") for size in (height, width))
        stored_height, stored_width = height, width
    else:
        margin = [padding, padding]
        images = tf.pad(
            images, [[0, 0], margin, margin, [0, 0]], constant_values=tf.cast(fill_value, images.dtype)
        )
        stored_height, stored_width = height + 2 * padding, width + 2 * padding
    batch = tf.shape(images)[0]
    down, right = (tf.cast(draw * (2 * padding + 1), tf.int32) for draw in position.uniform(2))
    y = tf.gather(rows.astype("int32"), down[:, None] + tf.range(height))  # (B, H)
    x = tf.gather(columns.astype("int32"), right[:, None] + tf.range(width))  # (B, W)
    y += tf.range(batch)[:, None] * stored_height
    pixels = tf.reshape(images, [-1, channels])
    return tf.gather(pixels, y[:, :, None] * stored_width + x[:, None, :]), targets  # one gather does it all


def random_rotation(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    factor: Probability = 0.05,
    fill_mode: FillMode = "reflect",
    fill_value: PixelValue = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turn each image about its centre.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        factor: largest turn either way, as a share of the full circle (0.05 is 18 degrees).
        fill_mode: what lies outside; `reflect` repeats the edge pixel, as in Keras.
        fill_value: of what lies outside when `constant`.
    """
    (draw,) = position.uniform_of_all(1)
    linear = rotation(between(draw, -factor, factor) * (2 * math.pi))
    return warp(
        images, linear=tuple(map(position.own, linear)), fill_mode=fill_mode, fill_value=fill_value
    ), targets


def random_translation(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    height_factor: Probability = 0.1,
    width_factor: Probability = 0.1,
    fill_mode: FillMode = "reflect",
    fill_value: PixelValue = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Move each image by a fraction of its size; positions between pixels are interpolated.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        height_factor: largest move up or down, as a share of the height.
        width_factor: largest move left or right, as a share of the width.
        fill_mode: what lies outside; `reflect` repeats the edge pixel, as in Keras.
        fill_value: of what lies outside when `constant`.
    """
    vertical, horizontal = position.uniform(2)
    height, width = images.shape[1:3]
    shift = (
        between(horizontal, -width_factor, width_factor) * width,
        between(vertical, -height_factor, height_factor) * height,
    )
    return warp(images, shift=shift, fill_mode=fill_mode, fill_value=fill_value), targets


def random_zoom(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    height_factor: Fraction = 0.1,
    width_factor: Fraction | None = None,
    fill_mode: FillMode = "reflect",
    fill_value: PixelValue = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Zoom each image in or out about its centre.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        height_factor: largest zoom; 0.2 shows 80 % to 120 % of the height.
        width_factor: the same for the width; left out, the aspect ratio is kept.
        fill_mode: what lies outside; `reflect` repeats the edge pixel, as in Keras.
        fill_value: of what lies outside when `constant`.
    """
    vertical, horizontal = position.uniform(2)
    shown_height = 1 + between(vertical, -height_factor, height_factor)
    shown_width = (
        shown_height if width_factor is None else 1 + between(horizontal, -width_factor, width_factor)
    )
    linear = (shown_width, 0.0, 0.0, shown_height)
    return warp(images, linear=linear, fill_mode=fill_mode, fill_value=fill_value), targets


def random_shear(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    x_factor: Probability = 0.1,
    y_factor: Probability = 0.0,
    fill_mode: FillMode = "reflect",
    fill_value: PixelValue = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Slant each image about its centre.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        x_factor: largest sideways move of a pixel, in pixels for each row of distance from the centre.
        y_factor: largest up or down move, for each column of distance.
        fill_mode: what lies outside; `reflect` repeats the edge pixel, as in Keras.
        fill_value: of what lies outside when `constant`.
    """
    sideways, updown = position.uniform(2)
    linear = (1.0, between(sideways, -x_factor, x_factor), between(updown, -y_factor, y_factor), 1.0)
    return warp(images, linear=linear, fill_mode=fill_mode, fill_value=fill_value), targets


def rotation(angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The linear part of a counter-clockwise turn by `angle` (B,), in radians."""
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return cosine, -sine, sine, cosine


def warp(
    images: tf.Tensor,
    *,
    linear: tuple[tf.Tensor | float, ...] = (1.0, 0.0, 0.0, 1.0),
    shift: tuple[tf.Tensor | float, ...] = (0.0, 0.0),
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
) -> tf.Tensor:
    """Resample each image, bilinearly, by its own affine map; float32 (B, H, W, C).

    Args:
        images: (B, H, W, C).
        linear: (a, b, c, d), each (B,) or one number: the pixel at (x, y) from the centre shows what was at
            (a x + b y, c x + d y) from the centre.
        shift: then move the picture right and down, in pixels, each (B,) or one number.
        fill_mode: constant, reflect, wrap or nearest.
        fill_value: for constant.
    """
    batch, (height, width) = tf.shape(images)[:1], images.shape[1:3]
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    a, b, c, d = linear
    right, down = shift
    rows = [
        a, b, center_x - a * (center_x + right) - b * (center_y + down),
        c, d, center_y - c * (center_x + right) - d * (center_y + down),
        0.0, 0.0,
    ]  # fmt: skip
    transforms = tf.stack(
        [tf.broadcast_to(tf.cast(value, tf.float32), batch) for value in rows], axis=1
    )  # (B, 8)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=as_float(images),
        transforms=transforms,
        output_shape=[height, width],
        fill_value=fill_value,
        interpolation="BILINEAR",
        fill_mode=fill_mode.upper(),
    )


def _mirror_columns(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Left-right mirror images of the chosen ones."""
    height, width, channels = images.shape[1:]
    # tf.reverse has a fast path for rank 3, and gathering from a concatenation copies whole images: together
    # 15 times faster than tf.where(chosen, images[:, :, ::-1], images).
    mirrored = tf.reverse(tf.reshape(images, [-1, width, channels]), [1])
    both = tf.concat([images, tf.reshape(mirrored, [-1, height, width, channels])], axis=0)
    batch = tf.shape(images)[0]
    return tf.gather(both, tf.range(batch) + tf.where(chosen, batch, 0))


def _mirror_rows(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Upside-down images of the chosen ones."""
    height, width, channels = images.shape[1:]
    down = tf.range(height)
    rows = (
        tf.where(chosen[:, None], down[::-1], down) + tf.range(tf.shape(images)[0])[:, None] * height
    )  # (B, H)
    picked = tf.gather(tf.reshape(images, [-1, width * channels]), rows)
    return tf.reshape(picked, [-1, height, width, channels])
