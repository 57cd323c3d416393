"""CycleGAN: two ResNet generators and two PatchGANs. Zhu et al. 2017, arXiv:1703.10593, appendix 7.2."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.patch_discriminator import (
    instance_normalization,
    kernel_initializer,
    patch_discriminator,
)
from dlcli.layers.reflection_padding import ReflectionPadding2D
from dlcli.recipe.arguments import Annotated, Field, PositiveInt, Rate

PatchLayers = Annotated[int, Field(ge=1, le=6)]
Blocks = Annotated[int, Field(ge=1, le=50)]

LARGE = 256
"""Pixels of the shorter side from which the paper takes nine blocks; below it takes six."""


def cycle_gan(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    filters: PositiveInt = 64,
    blocks: Blocks | None = None,
    upsampling: Literal["transposed_convolution", "nearest"] = "transposed_convolution",
    dropout: Rate = 0.0,
    discriminator_filters: PositiveInt = 64,
    discriminator_layers: PatchLayers = 3,
) -> dict[str, keras.Model]:
    """`a_to_b`, `b_to_a`, `discriminator_a` and `discriminator_b`; all with instance normalization.

    Args:
        inputs: images (B, H, W, C); sides divisible by 4.
        num_classes: 0; these networks know no labels.
        filters: of the first convolution of a generator; 2 and 4 times as many where the image is halved.
        blocks: residual blocks of a generator at a quarter of the sides; 9 for sides of at least 256, else 6.
        upsampling: how sides double: a strided transposed convolution, or repeated pixels and a convolution, which
            draws no chequerboard (Odena et al. 2016).
        dropout: within each residual block.
        discriminator_filters: of the first convolution of a discriminator.
        discriminator_layers: halvings of a discriminator; 3 look at patches of 70 pixels, 1 and 2 at 16 and 34.

    Raises:
        ValueError: the sides are too small or not divisible by 4.
    """
    shape = inputs.shape[1:]
    height, width, _ = shape
    if num_classes:
        raise ValueError(f"Expected num_classes 0: these networks know no labels. Received: {num_classes}")
    if height % 4 or width % 4 or min(height, width) < 8:
        raise ValueError(
            f"Expected sides divisible by 4, of at least 8 pixels. Received: {height}x{width}; set dataset.image_size"
        )
    blocks = blocks or (9 if min(height, width) >= LARGE else 6)
    networks = {
        role: _generator(shape, role, filters, blocks, upsampling, dropout) for role in ("a_to_b", "b_to_a")
    }
    for role in ("discriminator_a", "discriminator_b"):
        images = keras.Input(shape, name="images")
        networks[role] = patch_discriminator(
            images,
            images,
            filters=discriminator_filters,
            layers=discriminator_layers,
            normalization="instance",
            name=role,
        )
    return networks


def _generator(
    shape: tuple[int, ...], name: str, filters: int, blocks: int, upsampling: str, dropout: float
) -> keras.Model:
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 (Johnson et al. 2016)."""
    images = keras.Input(shape, name="images")
    x = _activated(_convolution(filters, 7)(ReflectionPadding2D(3)(images)))
    for times in (2, 4):
        x = _activated(_convolution(filters * times, 3, strides=2)(keras.layers.ZeroPadding2D(1)(x)))
    for _ in range(blocks):
        x = _residual(x, 4 * filters, dropout)
    for times in (2, 1):
        x = _activated(_doubled(x, filters * times, upsampling))
    x = _convolution(shape[-1], 7)(ReflectionPadding2D(3)(x))
    drawn = keras.layers.Activation("tanh", dtype="float32", name="images_out")(x)  # (B, H, W, C)
    return keras.Model(images, drawn, name=name)


def _convolution(filters: int, size: int, strides: int = 1) -> keras.layers.Layer:
    return keras.layers.Conv2D(filters, size, strides=strides, kernel_initializer=kernel_initializer())


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.ReLU()(instance_normalization()(x))


def _residual(x: keras.KerasTensor, filters: int, dropout: float) -> keras.KerasTensor:
    inner = _activated(_convolution(filters, 3)(ReflectionPadding2D(1)(x)))
    if dropout:
        inner = keras.layers.Dropout(dropout)(inner)
    inner = instance_normalization()(_convolution(filters, 3)(ReflectionPadding2D(1)(inner)))
    return keras.layers.Add()([x, inner])


def _doubled(x: keras.KerasTensor, filters: int, upsampling: str) -> keras.KerasTensor:
    if upsampling == "nearest":
        return _convolution(filters, 3)(ReflectionPadding2D(1)(keras.layers.UpSampling2D()(x)))
    return keras.layers.Conv2DTranspose(
        filters, 3, strides=2, padding="same", kernel_initializer=kernel_initializer()
    )(x)
