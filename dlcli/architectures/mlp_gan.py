"""A GAN of dense layers. Goodfellow et al. 2014, arXiv:1406.2661, section 5."""

from __future__ import annotations

import math

import keras

from dlcli.architectures.conditioning import labelled, projected
from dlcli.layers.spectral_normalization import SpectralDense
from dlcli.recipe.arguments import Annotated, Field, PositiveInt, Rate, Sequence

Widths = Annotated[Sequence[PositiveInt], Field(min_length=1, max_length=20)]


def mlp_gan(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    latent_dimension: PositiveInt = 100,
    hidden: Widths = (256, 512, 1024),
    discriminator_hidden: Widths = (512, 256),
    dropout: Rate = 0.3,
    spectral_normalization: bool = False,
) -> dict[str, keras.Model]:
    """Dense layers with leaky ReLU (0.2) on both sides; images are flattened.

    Args:
        inputs: images (B, H, W, C).
        num_classes: of labels; 0 for none.
        latent_dimension: Z.
        hidden: widths of the generator's layers.
        discriminator_hidden: widths of the discriminator's layers.
        dropout: of the discriminator.
        spectral_normalization: whether the discriminator's kernels have spectral norm 1 (Miyato et al. 2018).
    """
    shape = inputs.shape[1:]
    latents, x = labelled(latent_dimension, num_classes)
    for units in hidden:
        x = keras.layers.LeakyReLU(0.2)(keras.layers.Dense(units)(x))
    x = keras.layers.Dense(math.prod(shape))(x)
    drawn = keras.layers.Activation("tanh", dtype="float32")(keras.layers.Reshape(shape)(x))  # (B, H, W, C)
    dense = SpectralDense if spectral_normalization else keras.layers.Dense
    images = keras.Input(shape, name="images")
    features = keras.layers.Flatten()(images)
    for units in discriminator_hidden:
        features = keras.layers.LeakyReLU(0.2)(dense(units)(features))
        if dropout:
            features = keras.layers.Dropout(dropout)(features)
    logits = dense(1, dtype="float32", name="logits")(features)  # (B, 1)
    return {
        "generator": keras.Model(latents, drawn, name="generator"),
        "discriminator": projected(images, features, logits, num_classes),
    }
