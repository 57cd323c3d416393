"""A convolutional variational autoencoder. Kingma and Welling 2014, arXiv:1312.6114."""

from __future__ import annotations

import math
from typing import Literal

import keras

from dlcli.recipe.arguments import Activation, Annotated, Field, PositiveInt, Rate, Sequence

Widths = Annotated[Sequence[PositiveInt], Field(min_length=1, max_length=8)]


def vae(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    latent_dimension: PositiveInt = 32,
    filters: Widths = (32, 64),
    dense: PositiveInt = 256,
    activation: Activation = "relu",
    normalization: Literal["batch", "layer", "none"] = "none",
    dropout: Rate = 0.0,
) -> dict[str, keras.Model]:
    """An encoder of strided convolutions, and a decoder that mirrors it.

    The paper has one dense layer on each side; convolutions are what images need. Kernels are 4x4, which the stride
    divides, so that no chequerboard is drawn (Odena et al. 2016).

    Args:
        inputs: images (B, H, W, C); sides that can be halved once for each of `filters`.
        num_classes: unused, for this family knows no labels.
        latent_dimension: Z, numbers that an image is coded in.
        filters: of the convolutions, from the image inwards; each halves the sides.
        dense: units between the convolutions and the latents.
        activation: behind each layer but the last.
        normalization: before each activation of a convolution.
        dropout: behind the encoder's dense layer.

    Raises:
        ValueError: labels, or sides that cannot be halved so often.
    """
    if num_classes:
        raise ValueError(f"Expected no labels: this family learns without them. Received: {num_classes}")
    height, width, channels = inputs.shape[1:]
    steps = len(filters)
    if height % (1 << steps) or width % (1 << steps):
        raise ValueError(
            f"Expected sides that can be halved {steps} times, once for each of `filters`. "
            f"Received: {height}x{width}; give fewer filters, or another dataset.image_size"
        )
    images = x = keras.Input(inputs.shape[1:], name="images")
    for wide in filters:
        x = keras.layers.Conv2D(wide, 4, strides=2, padding="same", use_bias=normalization == "none")(x)
        x = _activated(x, activation, normalization)
    inner = x.shape[1:]  # (h, w, F)
    x = keras.layers.Dense(dense, activation=activation)(keras.layers.Flatten()(x))
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    moments = keras.layers.Dense(2 * latent_dimension, dtype="float32", name="moments")(x)
    latents = x = keras.Input((latent_dimension,), name="latents")
    x = keras.layers.Dense(dense, activation=activation)(x)
    x = keras.layers.Dense(math.prod(inner), activation=activation)(x)
    x = keras.layers.Reshape(inner)(x)
    for wide in reversed(filters[:-1]):
        x = keras.layers.Conv2DTranspose(
            wide, 4, strides=2, padding="same", use_bias=normalization == "none"
        )(x)
        x = _activated(x, activation, normalization)
    x = keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", dtype="float32")(x)
    # The likelihood reads what stands before this layer: half the logits of the pixels.
    drawn = keras.layers.Activation("tanh", dtype="float32", name="images")(x)  # (B, H, W, C)
    return {
        "encoder": keras.Model(images, moments, name="encoder"),
        "decoder": keras.Model(latents, drawn, name="decoder"),
    }


def _activated(x: keras.KerasTensor, activation: str, normalization: str) -> keras.KerasTensor:
    if normalization == "batch":
        x = keras.layers.BatchNormalization()(x)
    elif normalization == "layer":
        x = keras.layers.GroupNormalization(groups=1)(x)
    return keras.layers.Activation(activation)(x)
