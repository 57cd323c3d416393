"""pix2pix: a U-Net generator and a PatchGAN that sees both images. Isola et al. 2017, arXiv:1611.07004, section 6.1."""

from __future__ import annotations

from typing import Any, Literal

import keras

from dlcli.architectures.patch_discriminator import (
    kernel_initializer,
    normalize,
    patch_discriminator,
)
from dlcli.recipe.arguments import Annotated, Field, PositiveInt, Rate

PatchLayers = Annotated[int, Field(ge=1, le=6)]
Depth = Annotated[int, Field(ge=1, le=12)]

DEEPEST = 8
"""Halvings of the paper's U-Net for 256 pixels."""

WITH_DROPOUT = 3
"""Layers of the decoder that have dropout: the paper's source of noise."""


def pix2pix(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    filters: PositiveInt = 64,
    depth: Depth | None = None,
    normalization: Literal["instance", "batch"] = "instance",
    dropout: Rate = 0.5,
    upsampling: Literal["transposed_convolution", "nearest"] = "transposed_convolution",
    discriminator_filters: PositiveInt = 64,
    discriminator_layers: PatchLayers = 3,
) -> dict[str, keras.Model]:
    """`generator` and `discriminator`, which reads {source, images}.

    The paper normalizes by each batch, in use as in training, and mostly trains with batches of one image, where that
    is instance normalization; its dropout stays on in use, here a trained model is a function of its image.

    Args:
        inputs: images (B, H, W, C), of source and target; sides divisible by 2 to the power of `depth`.
        num_classes: 0; these networks know no labels.
        filters: of the first layer; each halving doubles them, at most to 8 times as many.
        depth: halvings of the generator; left out, as many as the sides allow, at most 8.
        normalization: of both networks.
        dropout: of the three innermost layers of the decoder, in training.
        upsampling: how sides double: a strided transposed convolution, or repeated pixels and a convolution.
        discriminator_filters: of the first convolution of the discriminator.
        discriminator_layers: halvings of the discriminator; 3 look at patches of 70 pixels, 1 and 2 at 16 and 34.

    Raises:
        ValueError: the sides do not fit `depth`, or are too small for the discriminator.
    """
    shape = inputs.shape[1:]
    if num_classes:
        raise ValueError(f"Expected num_classes 0: these networks know no labels. Received: {num_classes}")
    depth = _depth(shape[0], shape[1], depth)
    source, images = keras.Input(shape, name="source"), keras.Input(shape, name="images")
    discriminator = patch_discriminator(
        {"source": source, "images": images},
        keras.layers.Concatenate()([source, images]),
        filters=discriminator_filters,
        layers=discriminator_layers,
        normalization=normalization,
        name="discriminator",
    )
    generator = _generator(shape, filters, depth, normalization, dropout, upsampling)
    return {"generator": generator, "discriminator": discriminator}


def _depth(height: int, width: int, wanted: int | None) -> int:
    possible = 0
    while not (height | width) & 1 and possible < (wanted or DEEPEST):
        height, width, possible = height // 2, width // 2, possible + 1
    if not possible or (wanted and possible < wanted):
        raise ValueError(
            f"Expected sides divisible by {1 << (wanted or 1)}. "
            f"Received: {height << possible}x{width << possible}; set dataset.image_size, or a smaller depth"
        )
    return possible


def _generator(
    shape: tuple[int, ...], filters: int, depth: int, normalization: str, dropout: float, upsampling: str
) -> keras.Model:
    """Down with leaky ReLU, up with ReLU; each layer up also reads the one of its size on the way down."""
    images = keras.Input(shape, name="images")
    x, ways = images, []
    for place in range(depth):
        innermost = place == depth - 1
        if place:
            x = keras.layers.LeakyReLU(0.2)(x)
        x = _halved(x, filters * min(1 << place, 8), bias=normalization != "batch" or place == 0 or innermost)
        # One pixel has no spread: normalized it would be zero (the paper's erratum).
        if place and not innermost:
            x = normalize(x, normalization)
        ways.append(x)
    for place in reversed(range(depth)):
        x = x if place == depth - 1 else keras.layers.Concatenate()([ways[place], x])
        x = keras.layers.ReLU()(x)
        if place == 0:
            x = _doubled(x, shape[-1], upsampling, bias=True)
            break
        x = normalize(
            _doubled(x, filters * min(1 << (place - 1), 8), upsampling, bias=normalization != "batch"),
            normalization,
        )
        if dropout and place >= depth - WITH_DROPOUT:
            x = keras.layers.Dropout(dropout)(x)
    drawn = keras.layers.Activation("tanh", dtype="float32", name="images_out")(x)  # (B, H, W, C)
    return keras.Model(images, drawn, name="generator")


def _halved(x: Any, filters: int, bias: bool) -> Any:
    return keras.layers.Conv2D(
        filters, 4, strides=2, padding="same", use_bias=bias, kernel_initializer=kernel_initializer()
    )(x)


def _doubled(x: Any, filters: int, upsampling: str, bias: bool) -> Any:
    options = {"padding": "same", "use_bias": bias, "kernel_initializer": kernel_initializer()}
    if upsampling == "nearest":
        return keras.layers.Conv2D(filters, 3, **options)(keras.layers.UpSampling2D()(x))
    return keras.layers.Conv2DTranspose(filters, 4, strides=2, **options)(x)
