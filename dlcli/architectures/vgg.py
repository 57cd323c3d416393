"""VGG."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.blocks import (
    activate,
    convolve,
    drop_features,
    initializer_name,
    normalize,
    require_map,
)
from dlcli.recipe.arguments import Activation, Initializer, Normalization, Rate

# Table 1 of the paper, columns A, B, D and E: 3x3 convolutions in each of the five blocks.
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    inputs: keras.KerasTensor,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    size: Literal["auto", "small", "large"] = "auto",
    activation: Activation = "relu",
    normalization: Normalization = "batch",
    initializer: Initializer = "he_normal",
    dropout: Rate = 0.5,
) -> keras.KerasTensor:
    """VGG (Simonyan & Zisserman 2015, table 1).

    `large` ends in the paper's two dense layers of 4096 units: VGG-16 has 138,357,544 parameters with
    224x224x3 inputs, 1000 classes and `normalization: none`, as in the paper. `small` leaves them out: the
    last map, averaged, goes straight to the task's output layer, as in
    https://github.com/kuangliu/pytorch-cifar (92.6 % on CIFAR-10).

    Args:
        inputs: (B, H, W, C).
        depth: Layers with weights, counting the paper's dense layers.
        size: `large` with dense layers of 4096 units, `small` without; `auto` takes `large` from 128 pixels
            on.
        activation: Of every layer.
        normalization: Between each convolution and its activation; the paper has none and then trains the
            deeper networks only from weights of the shallower ones.
        initializer: Of the kernels.
        dropout: Share set to zero in training: of the units of both dense layers, or of the features.

    Returns:
        (B, 4096) for `large`, (B, H / 32, W / 32, 512) for `small`.

    Raises:
        ValueError: Images under 32x32, or a depth that is not in the table.
    """
    if depth not in _CONVOLUTIONS:
        raise ValueError(f"Expected depth to be one of {list(_CONVOLUTIONS)}. Received: {depth}")
    shortest = min(require_map(inputs, f"vgg {depth}", 32))
    kernel_initializer = initializer_name(initializer)
    x = inputs
    for block, convolutions in enumerate(_CONVOLUTIONS[depth]):
        for _ in range(convolutions):
            filters = min(64 * 2**block, 512)
            x = convolve(x, filters, 3, initializer=kernel_initializer, use_bias=normalization == "none")
            x = activate(normalize(x, normalization), activation)
        x = keras.layers.MaxPooling2D(2)(x)
    if size == "small" or (size == "auto" and shortest < 128):
        return drop_features(x, dropout)  # (B, H / 32, W / 32, 512)
    x = keras.layers.Flatten()(x)  # (B, 25088) for 224x224
    for _ in range(2):
        x = keras.layers.Dense(4096, kernel_initializer=kernel_initializer)(x)
        x = drop_features(activate(x, activation), dropout)
    return x
