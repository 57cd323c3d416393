"""PatchGAN: a discriminator with an opinion on each patch of an image. Isola et al. 2017, arXiv:1611.07004."""

from __future__ import annotations

from typing import Any

import keras


def kernel_initializer() -> keras.initializers.Initializer:
    """Normal with standard deviation 0.02, of all kernels: Isola et al. 2017, section 6.2."""
    return keras.initializers.RandomNormal(stddev=0.02)


def instance_normalization() -> keras.layers.Layer:
    """Each channel of each image on its own, nothing learnt: Ulyanov et al. 2016, arXiv:1607.08022."""
    return keras.layers.GroupNormalization(groups=-1, epsilon=1e-5, center=False, scale=False)


def patch_discriminator(
    inputs: Any,
    images: keras.KerasTensor,
    *,
    filters: int,
    layers: int,
    normalization: str,
    name: str,
) -> keras.Model:
    """C64-C128-C256-C512 of the paper's section 6.1.2: 4x4 convolutions, `layers` of which halve the image.

    Args:
        inputs: of the model.
        images: what it looks at (B, H, W, C).
        filters: of the first layer; each of the next ones has twice as many, at most 8 times.
        layers: halvings; 1 to 6 of them see patches of 16, 34, 70, 142, 286 and 574 pixels.
        normalization: `instance` or `batch`, behind all but the first and the last layer.
        name: of the model, which gives logits (B, h, w, 1).

    Raises:
        ValueError: the image is too small.
    """
    sides = images.shape[1:3]
    for _ in range(layers):
        sides = tuple(side // 2 for side in sides)
    if min(sides) < 3:
        raise ValueError(
            f"Expected sides of at least {3 << layers} pixels for discriminator_layers {layers}. "
            f"Received: {images.shape[1]}x{images.shape[2]}; set fewer, or a larger dataset.image_size"
        )
    x = images
    for place in range(layers + 1):
        normalized = place > 0
        x = keras.layers.Conv2D(
            filters * min(1 << place, 8),
            4,
            strides=2 if place < layers else 1,
            use_bias=not (normalized and normalization == "batch"),
            kernel_initializer=kernel_initializer(),
        )(keras.layers.ZeroPadding2D(1)(x))
        if normalized:
            x = normalize(x, normalization)
        x = keras.layers.LeakyReLU(0.2)(x)
    logits = keras.layers.Conv2D(
        1, 4, kernel_initializer=kernel_initializer(), dtype="float32", name="logits"
    )(keras.layers.ZeroPadding2D(1)(x))
    return keras.Model(inputs, logits, name=name)  # (B, h, w, 1)


def normalize(x: keras.KerasTensor, normalization: str) -> keras.KerasTensor:
    """`instance`, or `batch` as pix2pix has it."""
    if normalization == "batch":
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return instance_normalization()(x)
