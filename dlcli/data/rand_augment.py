"""RandAugment: a few operations for each image, chosen at random, all of one strength.

Cubuk et al. 2020, arXiv 1909.13719; the operations and their strengths are torchvision's, of 31 magnitudes.
Keras's layer computes all its operations for all images and keeps one, the same for the whole batch. Here the
batch is parted by operation, so that an image pays for its own operations alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Position, as_float
from dlcli.data.color import LUMA, channel_mean, in_range, recolor, scale_and_offset
from dlcli.data.geometry import warp
from dlcli.recipe.arguments import Field

Operation = Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]
"""(images, level from 0 to 1, sign -1 or 1 (B,)) -> images, all float32 in [0, 255]."""


def rand_augment(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    num_ops: Annotated[int, Field(ge=1, le=14)] = 2,
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply `num_ops` of 14 operations to each image, one after the other.

    They are identity, auto contrast, equalize, rotate, solarize, color, posterize, contrast, brightness,
    sharpness, shear and translate along x and y. Outside of a moved image is black. `color` leaves grey
    images as they are.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        num_ops: operations for each image; one may come twice.
        magnitude: strength of every operation, 0 to 30.
    """
    images = as_float(images)
    draws = position.uniform(2 * num_ops)
    for choice, coin in zip(draws[:num_ops], draws[num_ops:], strict=True):
        images = _each_its_own(images, choice, tf.where(coin < 0.5, -1.0, 1.0), magnitude / 30)
    return images, targets


def _each_its_own(images: tf.Tensor, choice: tf.Tensor, sign: tf.Tensor, level: float) -> tf.Tensor:
    """One operation for each image, by its draw `choice` in [0, 1)."""
    count = len(OPERATIONS)
    operation = tf.cast(choice * count, tf.int32)
    places = tf.dynamic_partition(tf.range(tf.size(operation)), operation, count)
    done = [
        function(tf.gather(images, place), level, tf.gather(sign, place))
        for function, place in zip(OPERATIONS, places, strict=True)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(places, done), images.shape)


def _identity(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return images


def _auto_contrast(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Stretch each channel to the whole range; a channel of one value stays."""
    low, high = tf.reduce_min(images, axis=(1, 2)), tf.reduce_max(images, axis=(1, 2))  # (B, C)
    flat = high <= low
    scale = tf.where(flat, 1.0, 255.0 / tf.where(flat, 1.0, high - low))
    return in_range(scale_and_offset(images, scale, tf.where(flat, 0.0, -low * scale)))


def _equalize(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Make the values of each channel equally frequent, as PIL.ImageOps.equalize does."""
    height, width, channels = images.shape[1:]
    table = tf.range(tf.shape(images)[0] * channels) * 256  # where each channel's 256 entries begin
    values = tf.reshape(tf.cast(tf.round(images), tf.int32), [-1, height * width, channels])
    entries = values + tf.reshape(table, [-1, 1, channels])
    ones = tf.ones([tf.size(entries)], tf.int32)
    counts = tf.math.unsorted_segment_sum(ones, tf.reshape(entries, [-1]), tf.size(table) * 256)
    counts = tf.reshape(counts, [-1, 256])
    below = tf.cumsum(counts, axis=1, exclusive=True)
    largest = tf.reshape(tf.reduce_max(values, axis=1), [-1, 1])
    step = (height * width - tf.gather(counts, largest, axis=1, batch_dims=1)) // 255
    # A step of 0 means too few values to spread: the channel stays.
    spread = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    lookup = tf.cast(tf.where(step == 0, tf.range(256), spread), tf.float32)
    return tf.reshape(tf.gather(tf.reshape(lookup, [-1]), entries), [-1, height, width, channels])


def _rotate(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    cosine, sine = math.cos(math.radians(30 * level)), math.sin(math.radians(30 * level))
    return warp(images, linear=(cosine, -sine * sign, sine * sign, cosine), fill_mode="constant")


def _solarize(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Invert what is brighter than a threshold."""
    return tf.where(images >= 255 * (1 - level), 255 - images, images)


def _color(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Away from grey or towards it."""
    if images.shape[-1] == 1:
        return images
    share = (1 + 0.9 * level * sign)[:, None, None]
    to_grey = np.repeat(LUMA[:, None], 3, axis=1)
    return in_range(recolor(images, to_grey + share * (np.eye(3, dtype="float32") - to_grey)))


def _posterize(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Keep the 8 to 4 highest bits."""
    step = 2.0 ** round(4 * level)
    return tf.floor(images / step) * step


def _contrast(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Away from the image's mean grey or towards it."""
    share = (1 + 0.9 * level * sign)[:, None]
    mean = channel_mean(images)
    weights = LUMA if images.shape[-1] == 3 else np.ones(1, "float32")
    grey = tf.reduce_sum(mean * weights, axis=1, keepdims=True) * tf.ones_like(mean)
    return in_range(scale_and_offset(images, share, (1 - share) * grey))


def _brightness(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return in_range(images * (1 + 0.9 * level * sign)[:, None, None, None])


def _sharpness(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    """Away from a smoothed image or towards it; the outermost pixels stay, as in PIL."""
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    inner = images[:, 1:-1, 1:-1]
    smooth = (box + 4 * inner) / 13  # the kernel [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13
    change = tf.pad(inner - smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return in_range(images + change * (0.9 * level * sign)[:, None, None, None])


def _shear_x(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return warp(images, linear=(1.0, 0.3 * level * sign, 0.0, 1.0), fill_mode="constant")


def _shear_y(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return warp(images, linear=(1.0, 0.0, 0.3 * level * sign, 1.0), fill_mode="constant")


def _translate_x(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return warp(images, shift=(150 / 331 * images.shape[2] * level * sign, 0.0), fill_mode="constant")


def _translate_y(images: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
    return warp(images, shift=(0.0, 150 / 331 * images.shape[1] * level * sign), fill_mode="constant")


OPERATIONS: tuple[Operation, ...] = (
    _identity, _auto_contrast, _equalize, _rotate, _solarize, _color, _posterize, _contrast, _brightness,
    _sharpness, _shear_x, _shear_y, _translate_x, _translate_y,
)  # fmt: skip
