"""From raw uint8 images to what a network sees: scaling that becomes the first layer of the saved model."""

from __future__ import annotations

from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import Examples

PixelScaling = Literal["rescale", "standardize", "none"]
PREPROCESSING = ("rescale", "standardize", "cast")
"""Names of the layers that `image_preprocessing` makes."""
_CHUNK = 512  # images read at once while statistics are taken


def channel_statistics(examples: Examples, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel over all images, in levels 0..255.

    Counts of the 256 levels are kept instead of sums of squares, so the result is exact and the order of
    the images does not matter; memory is that of one chunk.

    Args:
        examples: images that read as uint8 (B, H, W, C).
        channels: C.

    Returns:
        Two float64 arrays (C,).
    """
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(examples), _CHUNK):
        indices = np.arange(start, min(start + _CHUNK, len(examples)))
        images = np.asarray(examples.read(tf.constant(indices)))
        for channel in range(channels):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    levels = np.arange(256, dtype=np.float64)
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, variance


def image_preprocessing(
    train: Examples, image_shape: tuple[int, ...], normalization: PixelScaling = "rescale"
) -> keras.Model:
    """Layers from raw pixels to network inputs.

    Args:
        train: the train split; only `standardize` reads it.
        image_shape: (H, W, C).
        normalization: `rescale` divides by 255 (0..1); `standardize` subtracts each channel's mean over the
            train split and divides by its standard deviation; `none` only casts (0..255).

    Returns:
        A model from uint8 (B, H, W, C), named `image`, to float32 (B, H, W, C).
    """
    image = keras.Input(image_shape, dtype="uint8", name="image")
    layer: keras.layers.Layer
    if normalization == "rescale":
        layer = keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")
    elif normalization == "standardize":
        mean, variance = channel_statistics(train, image_shape[-1])
        # A constant channel has no spread to divide by; one level stands in, so other images stay finite.
        variance = np.where(variance > 0, variance, 1.0)
        layer = keras.layers.Normalization(
            mean=mean.tolist(), variance=variance.tolist(), dtype="float32", name="standardize"
        )
    elif normalization == "none":
        layer = keras.layers.Rescaling(1.0, dtype="float32", name="cast")
    else:
        raise ValueError(
            f"Expected normalization to be rescale, standardize or none. Received: {normalization!r}"
        )
    return keras.Model(image, layer(image), name="preprocessing")
