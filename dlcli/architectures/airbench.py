"""The CIFAR-10 speed record's network."""

from __future__ import annotations

from typing import Annotated

import keras

from dlcli.architectures.blocks import activate, drop_features, require_map
from dlcli.layers.dirac import Dirac
from dlcli.layers.patch_whitening import PatchWhitening
from dlcli.recipe.arguments import Activation, Field, Fraction, Positive, PositiveInt, Rate, Sequence


def airbench(
    inputs: keras.KerasTensor,
    *,
    filters: Sequence[PositiveInt] = (64, 256, 256),
    patch_size: Annotated[int, Field(ge=1, le=8)] = 2,
    activation: Activation = "silu",
    momentum: Fraction = 0.6,
    logit_divisor: Positive = 9.0,
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """airbench94 (Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, section 3 and appendix A).

    A frozen whitening of 2x2 patches, learned from the training images before the first step, then three
    groups of two convolutions that begin as the identity on their first channels. Works from standardized
    images.

    Args:
        inputs: (B, H, W, C), standardized per channel.
        filters: Filters of each group, first to last.
        patch_size: Side of the whitened patches, in pixels.
        activation: The paper has GELU; SiLU is cheaper on a CPU and no worse.
        momentum: Of the moving averages of batch normalization; low, because training is short.
        logit_divisor: What the features are divided by, which makes the first logits small.
        dropout: Share of the features set to zero in training; the paper has none.

    Returns:
        (B, filters[-1]) for 32x32 images, more for larger ones.

    Raises:
        ValueError: Images too small for so many groups.
    """
    if not filters:
        raise ValueError("Expected filters for at least one group. Received: filters=[]")
    smallest = 3 * 2 ** len(filters) + patch_size - 1
    require_map(inputs, f"airbench with {len(filters)} groups", smallest, "or give fewer `filters`")
    x = PatchWhitening(patch_size)(inputs)
    x = activate(x, activation)  # (B, 31, 31, 24)
    for width in filters:
        for half in range(2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=Dirac())(x)
            x = keras.layers.MaxPooling2D(2)(x) if half == 0 else x
            x = keras.layers.BatchNormalization(momentum=momentum, scale=False, epsilon=1e-12)(x)
            x = activate(x, activation)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(3)(x))
    x = keras.layers.Rescaling(1.0 / logit_divisor)(x)
    return drop_features(x, dropout)
