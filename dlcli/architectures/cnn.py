"""The plain convolutional network."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.blocks import activate, drop_features, initializer_name, normalize, require_map
from dlcli.recipe.arguments import Activation, Initializer, Normalization, PositiveInt, Rate, Sequence


def cnn(
    inputs: keras.KerasTensor,
    *,
    filters: Sequence[PositiveInt] = (32, 64, 128),
    dense: Sequence[PositiveInt] = (),
    padding: Literal["same", "valid"] = "same",
    activation: Activation = "relu",
    normalization: Normalization = "batch",
    initializer: Initializer = "glorot_uniform",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """Convolution (3x3), normalization, activation and 2x2 max pooling, block after block; then dense layers.

    Pooling stands between blocks, so the last block has none. With `dense` the last map is flattened; without
    it the map itself is the features, which the task averages.

    `filters: [32, 64, 64], dense: [64], padding: valid, normalization: none` is the CNN of TensorFlow's
    CIFAR-10 tutorial, https://www.tensorflow.org/tutorials/images/cnn: 122,570 parameters with 10 classes.

    Args:
        inputs: (B, H, W, C).
        filters: Filters of each block, first to last.
        dense: Units of the dense layers after the blocks.
        padding: `same` keeps a block's height and width, `valid` takes two pixels off.
        activation: Of the blocks and the dense layers.
        normalization: Between each convolution and its activation; the dense layers have none.
        initializer: Of the kernels.
        dropout: Share set to zero in training: of the channels after each block, of the units after each
            dense layer.

    Returns:
        (B, H', W', filters[-1]), or (B, dense[-1]).

    Raises:
        ValueError: Images too small for so many blocks.
    """
    if not filters:
        raise ValueError("Expected filters for at least one block. Received: filters=[]")
    smallest = _smallest_side(len(filters), padding)
    require_map(
        inputs, f"cnn with {len(filters)} blocks, padding {padding}", smallest, "or give fewer `filters`"
    )
    kernel_initializer = initializer_name(initializer)
    x = inputs
    for index, width in enumerate(filters):
        if index:
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Conv2D(
            width, 3, padding=padding, use_bias=normalization == "none", kernel_initializer=kernel_initializer
        )(x)
        x = activate(normalize(x, normalization), activation)
        x = drop_features(x, dropout)
    if not dense:
        return x  # (B, H', W', D)
    x = keras.layers.Flatten()(x)
    for units in dense:
        x = activate(keras.layers.Dense(units, kernel_initializer=kernel_initializer)(x), activation)
        x = drop_features(x, dropout)
    return x


def _smallest_side(blocks: int, padding: str) -> int:
    """The side that leaves one pixel after the last block."""
    border = 2 if padding == "valid" else 0
    side = 1 + border
    for _ in range(blocks - 1):
        side = side * 2 + border
    return side
