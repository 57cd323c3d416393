"""Residual GAN. Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957, appendix B.4."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import keras

from dlcli.architectures.conditioning import projected
from dlcli.architectures.dcgan import halvings
from dlcli.layers.conditional_normalization import ConditionalScale
from dlcli.layers.spectral_normalization import SpectralConv2D, SpectralDense, SpectralEmbedding
from dlcli.recipe.arguments import Field, PositiveInt, Sequence

Widths = Annotated[Sequence[PositiveInt], Field(min_length=1, max_length=12)]
SMALL_IMAGES = 32
"""Sides up to which the paper's tables keep one width throughout, and judge maps of 8x8."""


def resnet_gan(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    latent_dimension: PositiveInt = 128,
    filters: PositiveInt | Widths | None = None,
    discriminator_filters: PositiveInt | Widths | None = None,
    normalization: Literal["batch", "none"] = "batch",
    discriminator_normalization: Literal["layer", "none"] = "none",
    spectral_normalization: bool = True,
) -> dict[str, keras.Model]:
    """Residual blocks up from a vector, and down to a logit of summed features.

    The default for 32x32 is the paper's for CIFAR-10, for 48x48 that for STL-10, for 128x128 that for ImageNet. With
    labels, the generator's normalizations have gains and biases of each class, and the discriminator compares its
    features with a vector of the class (Miyato and Koyama 2018, arXiv:1802.05637). WGAN-GP's networks have
    `spectral_normalization: false` and, as published, `discriminator_normalization: layer`.

    Args:
        inputs: images (B, H, W, C); sides of 4 to 7 times a power of two (28, 32, 48, 64, 96, 128, ...).
        num_classes: of labels; 0 for none.
        latent_dimension: Z.
        filters: of the generator: one number for all blocks, or a list that begins with the 4x4 to 7x7 map and has
            one more for each doubling; 256 up to 32 pixels, else 64 next to the images and twice as many for each
            halving, up to 1024.
        discriminator_filters: one number, or one for each block; blocks beyond those that halve the sides keep them.
            128 and two such blocks up to 32 pixels, else 64 next to the images, doubling up to 1024, and one such
            block.
        normalization: of the generator.
        discriminator_normalization: before each activation of the discriminator; layer, or none.
        spectral_normalization: whether the discriminator's kernels have spectral norm 1.

    Raises:
        ValueError: sides that do not halve evenly, or a list of another length than the image's size asks for.
    """
    height, width, channels = inputs.shape[1:]
    widths = _generator_widths(filters, height, width)
    if num_classes and normalization != "batch":
        raise ValueError(
            "Expected normalization 'batch' with task.conditional: its gains and biases are how the generator is "
            f"told the class. Received: normalization={normalization!r}"
        )
    discriminator = _discriminator(
        inputs.shape[1:],
        _discriminator_widths(discriminator_filters, height, width),
        num_classes,
        discriminator_normalization,
        spectral_normalization,
    )
    return {
        "generator": _generator(
            (height, width, channels), widths, latent_dimension, normalization, num_classes
        ),
        "discriminator": discriminator,
    }


Layer = Callable[[Any], Any]


def _initializer(gain: float) -> keras.initializers.Initializer:
    """Glorot's uniform one, its standard deviation times sqrt(gain): 2 within blocks, 1 for shortcuts and ends."""
    return keras.initializers.VarianceScaling(scale=gain, mode="fan_avg", distribution="uniform")


def _generator_widths(filters: int | Sequence[int] | None, height: int, width: int) -> list[int]:
    """Of the first map, then of each block."""
    steps = halvings(height, width)
    if filters is None and max(height, width) <= SMALL_IMAGES:
        filters = 256
    if filters is None:
        return [min(64 << step, 1024) for step in reversed(range(steps + 1))]
    widths = [filters] * (steps + 1) if isinstance(filters, int) else list(filters)
    if len(widths) != steps + 1:
        raise ValueError(
            f"Expected {steps + 1} filters for images of {height}x{width}: the first map's and one for each of "
            f"{steps} doublings. Received: filters={widths}"
        )
    return widths


def _discriminator_widths(
    filters: int | Sequence[int] | None, height: int, width: int
) -> list[tuple[int, bool]]:
    """Of each block, and whether it halves the sides."""
    small = max(height, width) <= SMALL_IMAGES
    halved = _reductions(height, width, 8 if small else 4)
    if filters is None and not small:
        widths = [min(64 << step, 1024) for step in range(halved + 1)]
    elif filters is None or isinstance(filters, int):
        widths = [filters or 128] * (halved + (2 if small else 1))
    else:
        widths = list(filters)
    if len(widths) < halved:
        raise ValueError(
            f"Expected at least {halved} discriminator_filters for images of {height}x{width}, one for each halving. "
            f"Received: discriminator_filters={widths}"
        )
    return [(filters, block < halved) for block, filters in enumerate(widths)]


def _reductions(height: int, width: int, enough: int) -> int:
    """How often the sides are halved until the smaller one is `enough`, or one is odd."""
    steps = 0
    while min(height, width) > enough and height % 2 == 0 and width % 2 == 0:
        height, width, steps = height // 2, width // 2, steps + 1
    return steps


def _generator(
    shape: tuple[int, int, int],
    widths: list[int],
    latent_dimension: int,
    normalization: str,
    num_classes: int,
) -> keras.Model:
    height, width, channels = shape
    steps = len(widths) - 1
    latents = keras.Input((latent_dimension,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels") if num_classes else None

    def normalized(x: Any) -> Any:
        if normalization == "none":
            return x
        plain = labels is None
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, center=plain, scale=plain)(x)
        return x if plain else ConditionalScale(num_classes)(x, labels)

    start = (height >> steps, width >> steps, widths[0])
    x = keras.layers.Dense(math.prod(start), kernel_initializer=_initializer(1))(latents)
    x = keras.layers.Reshape(start)(x)
    for filters in widths[1:]:
        x = _doubling_block(x, filters, normalized)
    if normalization == "batch":  # of no class, also in the paper with labels
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(channels, 3, padding="same", kernel_initializer=_initializer(1))(x)
    images = keras.layers.Activation("tanh", dtype="float32")(x)  # (B, H, W, C)
    return keras.Model(
        latents if labels is None else {"latents": latents, "labels": labels}, images, name="generator"
    )


def _doubling_block(x: Any, filters: int, normalized: Layer) -> Any:
    """(B, h, w, D) -> (B, 2 h, 2 w, filters)."""
    # A 1x1 convolution of repeated pixels is the repeated convolution, at a quarter of the work.
    shortcut = keras.layers.Conv2D(filters, 1, kernel_initializer=_initializer(1))(x)
    shortcut = keras.layers.UpSampling2D()(shortcut)
    x = keras.layers.UpSampling2D()(keras.layers.ReLU()(normalized(x)))
    x = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=_initializer(2))(x)
    x = keras.layers.ReLU()(normalized(x))
    x = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer=_initializer(2))(x)
    return keras.layers.Add()([x, shortcut])


def _discriminator(
    shape: tuple[int, ...],
    widths: list[tuple[int, bool]],
    num_classes: int,
    normalization: str,
    spectral: bool,
) -> keras.Model:
    convolution = SpectralConv2D if spectral else keras.layers.Conv2D
    dense = SpectralDense if spectral else keras.layers.Dense
    embedding = SpectralEmbedding if spectral else keras.layers.Embedding
    layer_normalization = normalization == "layer"
    images = x = keras.Input(shape, name="images")
    for block, (filters, halve) in enumerate(widths):
        x = _judging_block(x, filters, halve, convolution, layer_normalization, first=block == 0)
    x = _activated(x, layer_normalization)
    features = keras.layers.Flatten()(_sum_pooled(x))  # (B, D)
    logits = dense(1, dtype="float32", name="logits", kernel_initializer=_initializer(1))(features)
    of_class = None
    if num_classes:
        of_class = embedding(
            num_classes, features.shape[-1], embeddings_initializer=_initializer(1), name="label_embedding"
        )
    return projected(images, features, logits, num_classes, of_class)


def _activated(x: Any, layer_normalization: bool) -> Any:
    if layer_normalization:
        x = keras.layers.GroupNormalization(groups=1)(x)
    return keras.layers.ReLU()(x)


def _sum_pooled(x: Any) -> Any:
    """(B, h, w, D) -> (B, 1, 1, D): the sum, which the paper has in the place of the mean."""
    area = x.shape[1] * x.shape[2]
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype="float32")(x)
    return keras.layers.Rescaling(area, dtype="float32", name="sum")(mean)


def _judging_block(
    x: Any, filters: int, halve: bool, convolution: Any, layer_normalization: bool, first: bool
) -> Any:
    """(B, h, w, D) -> (B, h, w, filters), or (B, h / 2, w / 2, filters).

    The first one reads images: nothing is activated before it, and the shortcut takes their means.
    """
    inputs = x
    wide = filters if first else x.shape[-1]
    if not first:
        x = _activated(x, layer_normalization)
    x = convolution(wide, 3, padding="same", kernel_initializer=_initializer(2))(x)
    x = _activated(x, layer_normalization)
    x = convolution(filters, 3, padding="same", kernel_initializer=_initializer(2))(x)
    shortcut = inputs
    if halve:  # means of pixels and a 1x1 convolution can change places: first the cheaper one
        x = keras.layers.AveragePooling2D(2)(x)
        shortcut = keras.layers.AveragePooling2D(2)(shortcut)
    if halve or inputs.shape[-1] != filters:
        shortcut = convolution(filters, 1, kernel_initializer=_initializer(1))(shortcut)
    return keras.layers.Add()([x, shortcut])
