"""LeNet-5."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.blocks import activate, drop_features, initializer_name, normalize, require_map
from dlcli.recipe.arguments import Activation, Initializer, Normalization, Rate


def lenet5(
    inputs: keras.KerasTensor,
    *,
    activation: Activation = "tanh",
    pooling: Literal["average", "max"] = "average",
    normalization: Normalization = "none",
    initializer: Initializer = "glorot_uniform",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """LeNet-5 (LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition, section II.B).

    61,706 parameters with 32x32x1 inputs and 10 classes. Two things differ from 1998, as in every present-day
    LeNet-5: C3 is connected to all maps of S2 (the paper's table I leaves some out), and the subsampling has
    no weights; the paper's network has 60,000 before its fixed output layer.

    Args:
        inputs: (B, H, W, C); images of 28 to 31 pixels are padded with zeros to 32.
        activation: Of every layer.
        pooling: The paper averages; `max` is the usual change.
        normalization: Between the first two convolutions and their activations.
        initializer: Of the kernels.
        dropout: Share of the units set to zero in training, after each of the last two layers.

    Returns:
        (B, 84).

    Raises:
        ValueError: Images under 28x28.
    """
    sides = require_map(inputs, "lenet5", 28)
    kernel_initializer = initializer_name(initializer)
    pool = keras.layers.AveragePooling2D if pooling == "average" else keras.layers.MaxPooling2D
    x = inputs
    missing = [max(0, 32 - side) for side in sides]
    if any(missing):
        x = keras.layers.ZeroPadding2D([(rest // 2, rest - rest // 2) for rest in missing])(x)
    for filters in (6, 16):  # C1, S2: (B, 14, 14, 6); C3, S4: (B, 5, 5, 16)
        use_bias = normalization == "none"
        x = keras.layers.Conv2D(filters, 5, use_bias=use_bias, kernel_initializer=kernel_initializer)(x)
        x = pool(2)(activate(normalize(x, normalization), activation))
    x = keras.layers.Conv2D(120, 5, kernel_initializer=kernel_initializer)(x)
    x = keras.layers.Flatten()(activate(x, activation))  # C5: (B, 120)
    x = drop_features(x, dropout)
    x = activate(keras.layers.Dense(84, kernel_initializer=kernel_initializer)(x), activation)  # F6
    return drop_features(x, dropout)
