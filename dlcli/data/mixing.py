"""Augmentations that cut or blend: random_erasing in an image, mix_up and cut_mix between two of a batch."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Position, as_float, between, per_image
from dlcli.recipe.arguments import Field, Positive, PositiveInt, Probability


def mix_up(
    images: tf.Tensor, targets: tf.Tensor, position: Position, *, alpha: Positive = 0.2
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each image and its target with another of the batch (Zhang et al. 2018, arXiv 1710.09412).

    The batch is in random order, so that the image before is a random partner.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        alpha: the share of the image is drawn from Beta(alpha, alpha); small values mix little, 1 is uniform.
    """
    images, targets = as_float(images), _checked(targets)
    share = _beta(position, alpha)
    return _lerp(_partner(images), images, per_image(share)), _lerp(
        _partner(targets), targets, share[:, None]
    )


def cut_mix(
    images: tf.Tensor, targets: tf.Tensor, position: Position, *, alpha: Positive = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of another image of the batch into each (Yun et al. 2019, arXiv 1905.04899, section 3.1).

    The targets mix by the area that the box really covers, after rounding and clipping at the border.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        alpha: the share of the image is drawn from Beta(alpha, alpha) before clipping.
    """
    targets = _checked(targets)
    height, width = images.shape[1:3]
    side = tf.sqrt(1 - _beta(position, alpha))
    draw_y, draw_x = position.uniform(2)
    center = (tf.floor(draw_y * height), tf.floor(draw_x * width))
    inside = _boxes(images, center, (tf.round(side * height), tf.round(side * width)))
    kept = 1 - tf.reduce_mean(tf.cast(inside[..., 0], tf.float32), axis=(1, 2))
    mixed = tf.where(_all_channels(inside, images), _partner(images), images)
    return mixed, _lerp(_partner(targets), targets, kept[:, None])


def random_erasing(
    images: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    factor: Probability = 1.0,
    scale: tuple[Probability, Probability] = (0.02, 0.33),
    ratio: tuple[Positive, Positive] = (0.3, 3.3),
    size: PositiveInt | None = None,
    fill_value: Annotated[float, Field(ge=0, le=255)] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Erase a box of each image: Random Erasing (Zhong et al. 2020, arXiv 1708.04896), or Cutout with `size`.

    Args:
        images: (B, H, W, C).
        targets: (B,) or (B, K).
        position: of the batch.
        factor: probability that an image loses a box.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest height / width of the box.
        size: side of a square in pixels instead of `scale` and `ratio`. Its centre lies anywhere, so that
            part of it may fall outside (Cutout: DeVries and Taylor 2017, arXiv 1708.04552).
        fill_value: what the box is filled with; left out, random values from 0 to 255.
    """
    if scale[0] > scale[1] or ratio[0] > ratio[1]:
        raise ValueError(f"Expected [smallest, largest]. Received: scale={scale}, ratio={ratio}")
    height, width = images.shape[1:3]
    # For the whole batch, and then cut: see `Position.own`.
    chance, area, aspect, draw_y, draw_x = position.uniform_of_all(5)
    if size is None:
        pixels = between(area, *scale) * (height * width)
        aspect = tf.exp(between(aspect, float(np.log(ratio[0])), float(np.log(ratio[1]))))
        tall = tf.clip_by_value(tf.round(tf.sqrt(pixels * aspect)), 1, height)
        wide = tf.clip_by_value(tf.round(tf.sqrt(pixels / aspect)), 1, width)
        # Within the image: the upper left corner is drawn among those that fit.
        center = (
            tf.floor(draw_y * (height + 1 - tall)) + tf.floor(tall / 2),
            tf.floor(draw_x * (width + 1 - wide)) + tf.floor(wide / 2),
        )
    else:
        tall = wide = tf.fill(tf.shape(chance), float(size))
        center = (tf.floor(draw_y * height), tf.floor(draw_x * width))
    chosen = tf.cast(chance < factor, tf.float32)
    center_y, center_x, tall, wide = map(position.own, (*center, tall * chosen, wide * chosen))
    inside = _boxes(images, (center_y, center_x), (tall, wide))
    if fill_value is None:
        shape = [position.whole, *images.shape[1:]]
        filling = position.own(tf.random.stateless_uniform(shape, position.keyed("filling").seed, 0.0, 255.0))
    else:
        filling = tf.fill(tf.shape(images), float(fill_value))
    return tf.where(_all_channels(inside, images), tf.cast(filling, images.dtype), images), targets


def _boxes(
    images: tf.Tensor, center: tuple[tf.Tensor, tf.Tensor], size: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """True inside each image's box, (B, H, W, 1); whole numbers (y, x) and (height, width), each (B,)."""
    spans = []
    for middle, length, side in zip(center, size, images.shape[1:3], strict=True):
        start = (middle - tf.floor(length / 2))[:, None]
        pixel = tf.range(float(side))
        spans.append((pixel >= start) & (pixel < start + length[:, None]))  # (B, H) and (B, W)
    return (spans[0][:, :, None] & spans[1][:, None, :])[..., None]


def _all_channels(mask: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    # tf.where is several times slower when it has to broadcast.
    return tf.repeat(mask, images.shape[-1], axis=-1)


def _partner(batch: tf.Tensor) -> tf.Tensor:
    return tf.roll(batch, shift=1, axis=0)


def _lerp(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """`first` at share 0, `second` at 1."""
    return first + share * (second - first)


def _beta(position: Position, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), (B,)."""
    shape = [2, position.whole]
    # Gamma(a) is Gamma(a + 1) * U ** (1 / a); its logarithm stays finite where small alphas underflow.
    above = tf.random.stateless_gamma(shape, position.keyed("gamma").seed, alpha + 1)
    power = tf.random.stateless_uniform(shape, position.keyed("power").seed)
    logarithms = tf.math.log(above) + tf.math.log1p(-power) / alpha
    return position.own(tf.sigmoid(logarithms[0] - logarithms[1]))


def _checked(targets: tf.Tensor) -> tf.Tensor:
    if not targets.dtype.is_floating or targets.shape.rank != 2:
        raise ValueError(
            "Expected float targets (B, K) to mix, such as one-hot classes. "
            f"Received: {targets.dtype.name} {targets.shape}"
        )
    return targets
