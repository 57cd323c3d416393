"""DCGAN: strided convolutions up from a vector, and down to a logit. Radford et al. 2016, arXiv:1511.06434."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras

from dlcli.architectures.conditioning import labelled, projected
from dlcli.layers.spectral_normalization import SpectralConv2D, SpectralDense
from dlcli.recipe.arguments import PositiveInt, Rate

SMALLEST = 4
"""Least height and width at which a generator begins, and below which a discriminator goes no further."""


def dcgan(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    latent_dimension: PositiveInt = 100,
    filters: PositiveInt = 64,
    normalization: Literal["batch", "layer", "none"] = "batch",
    discriminator_normalization: Literal["batch", "layer", "none"] = "batch",
    spectral_normalization: bool = False,
    dropout: Rate = 0.0,
    upsampling: Literal["transposed_convolution", "nearest"] = "transposed_convolution",
) -> dict[str, keras.Model]:
    """A generator and a discriminator that mirror each other; sides double from 4 to 7 pixels up to the image's.

    As in the paper's section 3: no pooling, ReLU and tanh in the generator, leaky ReLU (0.2) in the discriminator, no
    normalization beside the images. Kernels are 4x4, which the stride divides, so that no chequerboard is drawn
    (Odena et al. 2016); the paper has 5x5.

    Args:
        inputs: images (B, H, W, C); sides of 4 to 7 times a power of two (28, 32, 48, 64, 96, 128, ...).
        num_classes: of labels; 0 for none. They scale the latents, and are projected onto the discriminator's
            features (Miyato and Koyama 2018).
        latent_dimension: Z.
        filters: of the widest layers in size, next to the images; each halving of the sides doubles them.
        normalization: of the generator.
        discriminator_normalization: of the discriminator.
        spectral_normalization: whether the discriminator's kernels have spectral norm 1 (Miyato et al. 2018).
        dropout: of the discriminator, behind each activation.
        upsampling: how sides double: a strided transposed convolution, or repeated pixels and a convolution.

    Raises:
        ValueError: sides that cannot be halved down to 4 to 7 pixels the same number of times.
    """
    height, width, channels = inputs.shape[1:]
    steps = halvings(height, width)
    latents, x = labelled(latent_dimension, num_classes)
    start = (height >> steps, width >> steps, filters << (steps - 1))
    x = keras.layers.Dense(math.prod(start), use_bias=normalization == "none", kernel_initializer=normal())(x)
    x = keras.layers.Reshape(start)(x)
    x = keras.layers.ReLU()(_normalized(x, normalization))
    for step in reversed(range(steps)):
        wide = filters << (step - 1) if step else channels
        x = _doubled(x, wide, upsampling, use_bias=step == 0 or normalization == "none")
        if step:
            x = keras.layers.ReLU()(_normalized(x, normalization))
    images = keras.layers.Activation("tanh", dtype="float32")(x)  # (B, H, W, C)
    generator = keras.Model(latents, images, name="generator")
    discriminator = _discriminator(
        inputs.shape[1:],
        steps,
        num_classes,
        filters,
        discriminator_normalization,
        spectral_normalization,
        dropout,
    )
    return {"generator": generator, "discriminator": discriminator}


def normal() -> keras.initializers.Initializer:
    """Of all kernels, section 4; each layer draws for itself."""
    return keras.initializers.RandomNormal(stddev=0.02)


def halvings(height: int, width: int) -> int:
    """How often both sides can be halved until the smaller one is 4 to 7 pixels.

    Raises:
        ValueError: they cannot.
    """
    steps = max(1, int(math.log2(min(height, width) / SMALLEST))) if min(height, width) >= 2 * SMALLEST else 0
    if not steps or height % (1 << steps) or width % (1 << steps):
        raise ValueError(
            "Expected sides of at least 8 pixels, 4 to 7 times a power of two (28, 32, 48, 64, 128). "
            f"Received: {height}x{width}; set dataset.image_size"
        )
    return steps


def _doubled(x: Any, filters: int, upsampling: str, use_bias: bool) -> Any:
    options = {"padding": "same", "use_bias": use_bias, "kernel_initializer": normal()}
    if upsampling == "nearest":
        return keras.layers.Conv2D(filters, 3, **options)(keras.layers.UpSampling2D()(x))
    return keras.layers.Conv2DTranspose(filters, 4, strides=2, **options)(x)


def _normalized(x: Any, normalization: str) -> Any:
    if normalization == "batch":
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras.layers.GroupNormalization(groups=1)(x) if normalization == "layer" else x


def _discriminator(
    shape: tuple[int, ...],
    steps: int,
    num_classes: int,
    filters: int,
    normalization: str,
    spectral: bool,
    dropout: float,
) -> keras.Model:
    convolution = SpectralConv2D if spectral else keras.layers.Conv2D
    dense = SpectralDense if spectral else keras.layers.Dense
    images = x = keras.Input(shape, name="images")
    for step in range(steps):
        normalized = step > 0 and normalization != "none"
        x = convolution(
            filters << step,
            4,
            strides=2,
            padding="same",
            use_bias=not normalized,
            kernel_initializer=normal(),
        )(x)
        x = keras.layers.LeakyReLU(0.2)(_normalized(x, normalization) if normalized else x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
    features = keras.layers.Flatten()(x)  # (B, D)
    logits = dense(1, dtype="float32", name="logits", kernel_initializer=normal())(features)
    return projected(images, features, logits, num_classes)
