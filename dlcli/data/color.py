"""Augmentations that change pixel values; each returns float32 in [0, 255], for grey and RGB images."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Position, as_float, between, per_image
from dlcli.recipe.arguments import Probability

LUMA = np.array([0.299, 0.587, 0.114], "float32")
"""Weights of red, green and blue in grey (ITU-R BT.601), as in Pillow."""

# RGB -> YIQ (NTSC: luma and two axes of colour); grey is (Y, 0, 0), and hue an angle in the plane of I and Q.
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], "float32")
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype("float32")


def random_brightness(
    images: tf.Tensor, targets: tf.Tensor, position: Position, *, factor: Probability = 0.2
) -> tuple[tf.Tensor, tf.Tensor]:
    """Add one number to all pixels of an image.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        factor: largest change, as a share of the range 0 to 255.
    """
    (draw,) = position.uniform(1)
    return in_range(as_float(images) + per_image(between(draw, -255 * factor, 255 * factor))), targets


def random_contrast(
    images: tf.Tensor, targets: tf.Tensor, position: Position, *, factor: Probability = 0.2
) -> tuple[tf.Tensor, tf.Tensor]:
    """Stretch or shrink the distance of pixels from the mean of their image's channel.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        factor: the distance is multiplied by a draw in [1 - factor, 1 + factor].
    """
    (draw,) = position.uniform(1)
    images = as_float(images)
    stretch = between(draw, 1 - factor, 1 + factor)[:, None]
    return in_range(scale_and_offset(images, stretch, (1 - stretch) * channel_mean(images))), targets


def random_color_jitter(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    brightness_factor: Probability = 0.2,
    contrast_factor: Probability = 0.2,
    saturation_factor: Probability = 0.2,
    hue_factor: Probability = 0.05,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Change brightness, contrast, saturation and hue; grey images change in brightness and contrast alone.

    All four are linear in the pixel (hue turns in the YIQ plane), so that an image needs one matrix and one
    offset, and is clipped once, at the end.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        brightness_factor: as `factor` of random_brightness.
        contrast_factor: as `factor` of random_contrast.
        saturation_factor: the distance from grey is multiplied by a draw in [1 - factor, 1 + factor].
        hue_factor: largest turn of the hue, 1 for half the colour circle either way.
    """
    bright, contrast, saturation, hue = position.uniform_of_all(4)
    bright, contrast = position.own(bright), position.own(contrast)
    images = as_float(images)
    stretch = between(contrast, 1 - contrast_factor, 1 + contrast_factor)[:, None]
    change = between(bright, -255 * brightness_factor, 255 * brightness_factor)[:, None]
    offset = (1 - stretch) * channel_mean(images) + change  # (B, C)
    if images.shape[-1] == 3:
        matrix = _saturation_and_hue(
            between(saturation, 1 - saturation_factor, 1 + saturation_factor),
            between(hue, -hue_factor, hue_factor) * math.pi,
        )
        matrix = position.own(matrix)
        offset = (offset[:, None] @ matrix)[:, 0]
        images = recolor(images, matrix)
    return in_range(scale_and_offset(images, stretch, offset)), targets


def in_range(images: tf.Tensor) -> tf.Tensor:
    """Values clipped to [0, 255]."""
    return tf.clip_by_value(images, 0.0, 255.0)


def channel_mean(images: tf.Tensor) -> tf.Tensor:
    """(B, H, W, C) -> (B, C)."""
    return tf.reduce_mean(images, axis=(1, 2))


def scale_and_offset(images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """`scale * images + offset`, with scale (B, 1) or (B, C), offset (B, C)."""
    height, width, channels = images.shape[1:]
    # Broadcasting over rows of W * C numbers is three times faster than over pixels of C numbers.
    lines = tf.reshape(images, [-1, height, width * channels])
    if scale.shape[-1] != 1:
        scale = tf.tile(scale, [1, width])
    lines = lines * scale[:, None] + tf.tile(offset, [1, width])[:, None]
    return tf.reshape(lines, [-1, height, width, channels])


def recolor(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Multiply each pixel, a row vector, by a matrix: (3, 3) for all or (B, 3, 3) by image."""
    height, width, channels = images.shape[1:]
    pixels = tf.reshape(images, [-1, height * width, channels])
    return tf.reshape(pixels @ matrices, [-1, height, width, channels])


def _saturation_and_hue(saturation: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """(B, 3, 3) for `recolor`, from a factor (B,) and an angle (B,) in radians."""
    cosine, sine = saturation * tf.cos(angle), saturation * tf.sin(angle)
    one, zero = tf.ones_like(cosine), tf.zeros_like(cosine)
    turn = tf.reshape(
        tf.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine], axis=1), [-1, 3, 3]
    )
    return _TO_YIQ.T @ turn @ _FROM_YIQ.T
