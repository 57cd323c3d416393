"""A compact StyleGAN2. Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", 1912.04958."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any

import keras

from dlcli.architectures.conditioning import projected
from dlcli.architectures.dcgan import halvings
from dlcli.layers.blur import Blur
from dlcli.layers.equalized import EqualizedConv2D, EqualizedDense
from dlcli.layers.learned_constant import LearnedConstant
from dlcli.layers.minibatch_deviation import MinibatchDeviation
from dlcli.layers.modulated_convolution import ModulatedConv2D
from dlcli.layers.noise_injection import NoiseInjection
from dlcli.recipe.arguments import Field, PositiveInt

MappingLayers = Annotated[int, Field(ge=0, le=32)]
GroupSize = Annotated[int, Field(ge=2, le=1024)]


def style_gan(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    latent_dimension: PositiveInt = 128,
    filters: PositiveInt = 64,
    largest_filters: PositiveInt = 512,
    mapping_layers: MappingLayers = 8,
    noise: bool = True,
    minibatch_groups: GroupSize | None = 4,
) -> dict[str, keras.Model]:
    """Latents become a style that scales the kernels of every layer; the discriminator is residual.

    Skip connections add up the images of each size, sizes change by bilinear filters, and every weight has an
    equalized learning rate (appendix B): the optimizer that fits is Adam with a learning rate of 2e-3, beta_1 0 and
    beta_2 0.99, with objective standard and `r1`. Mixed styles, path lengths and truncation are left out, as the
    authors leave them out for 32x32 images (arXiv:2006.06676, appendix D).

    Args:
        inputs: images (B, H, W, C); sides of 4 to 7 times a power of two (28, 32, 48, 64, 96, 128, ...).
        num_classes: of labels; 0 for none. Their embeddings stand beside the latents, and are projected onto the
            discriminator's features (Miyato and Koyama 2018).
        latent_dimension: width of latents and of styles; 512 in the paper.
        filters: of the layers of the image's own size; each halving of the sides doubles them.
        largest_filters: at most so many.
        mapping_layers: dense layers from latents to styles; they learn at a hundredth of the learning rate.
        noise: whether each layer of the generator adds noise.
        minibatch_groups: images whose spread the discriminator is told; null for none.

    Raises:
        ValueError: sides that cannot be halved down to 4 to 7 pixels the same number of times.
    """
    height, width, channels = inputs.shape[1:]
    steps = halvings(height, width)
    widths = [
        min(filters << step, largest_filters) for step in range(steps + 1)
    ]  # from the image's size down
    given, latents, styles = _mapping(latent_dimension, num_classes, mapping_layers)
    x = LearnedConstant((height >> steps, width >> steps, widths[-1]))(latents)
    x = _styled(x, styles, latents, widths[-1], 0, noise)
    images = ModulatedConv2D(channels, 1, demodulate=False)(x, styles)
    for step in reversed(range(steps)):
        place = 2 * (steps - step)
        x = _styled(x, styles, latents, widths[step], place - 1, noise, upsample=True)
        x = _styled(x, styles, latents, widths[step], place, noise)
        images = keras.layers.UpSampling2D(interpolation="bilinear")(images)
        images = keras.layers.Add()([images, ModulatedConv2D(channels, 1, demodulate=False)(x, styles)])
    images = keras.layers.Activation("linear", dtype="float32")(images)  # (B, H, W, C); no tanh, section 2
    return {
        "generator": keras.Model(given, images, name="generator"),
        "discriminator": _discriminator(inputs.shape[1:], widths, num_classes, minibatch_groups),
    }


def _mapping(latent_dimension: int, num_classes: int, layers: int) -> tuple[Any, Any, Any]:
    """A generator's inputs, its latents (B, Z) and its styles (B, Z)."""
    latents = keras.Input((latent_dimension,), name="latents")
    given, x = latents, _to_unit_variance(latents)
    if num_classes:
        labels = keras.Input((), dtype="int32", name="labels")
        given = {"latents": latents, "labels": labels}
        normal = keras.initializers.RandomNormal(stddev=1.0)
        embedded = keras.layers.Embedding(num_classes, latent_dimension, normal, name="label_embedding")(
            labels
        )
        x = keras.layers.Concatenate()([x, _to_unit_variance(embedded)])
        x = EqualizedDense(latent_dimension, name="label_mapping")(x)
    for _ in range(layers):
        x = _activated(EqualizedDense(latent_dimension, learning_rate_multiplier=0.01)(x))
    return given, latents, x


def _to_unit_variance(x: Any) -> Any:
    """(B, Z), each row scaled to a mean square of 1."""
    return keras.layers.Rescaling(math.sqrt(x.shape[-1]))(keras.layers.UnitNormalization()(x))


def _activated(x: Any) -> Any:
    """Leaky ReLU, scaled so that unit variance stays about 1."""
    return keras.layers.Rescaling(math.sqrt(2))(keras.layers.LeakyReLU(0.2)(x))


def _styled(
    x: Any, styles: Any, latents: Any, filters: int, place: int, noise: bool, upsample: bool = False
) -> Any:
    """(B, h, w, D) -> (B, h, w, filters), or (B, 2 h, 2 w, filters)."""
    x = ModulatedConv2D(filters, upsample=upsample)(x, styles)
    if upsample:
        x = Blur(padding=(1, 2), gain=4.0)(x)
    if noise:
        x = NoiseInjection(2 * place)(x, latents)
    return _activated(x)


def _discriminator(
    shape: tuple[int, ...], widths: list[int], num_classes: int, minibatch_groups: int | None
) -> keras.Model:
    images = keras.Input(shape, name="images")
    x = _activated(EqualizedConv2D(widths[0], 1)(images))
    for before, after in pairwise(widths):
        x = _halving_block(x, before, after)
    if minibatch_groups:
        x = MinibatchDeviation(minibatch_groups)(x)
    x = _activated(EqualizedConv2D(widths[-1], 3, padding="same")(x))
    features = _activated(EqualizedDense(widths[-1])(keras.layers.Flatten()(x)))  # (B, D)
    logits = EqualizedDense(1, dtype="float32", name="logits")(features)
    return projected(images, features, logits, num_classes)


def _halving_block(x: Any, before: int, after: int) -> Any:
    """(B, h, w, before) -> (B, h / 2, w / 2, after)."""
    shortcut = EqualizedConv2D(after, 1, use_bias=False)(Blur(2, (1, 1))(x))
    x = _activated(EqualizedConv2D(before, 3, padding="same")(x))
    x = _activated(EqualizedConv2D(after, 3, strides=2, padding="same")(Blur(1, (2, 1))(x)))
    return keras.layers.Rescaling(1 / math.sqrt(2))(keras.layers.Add()([x, shortcut]))
