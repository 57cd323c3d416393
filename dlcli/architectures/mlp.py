"""Networks without convolutions: the single-layer perceptron and the multi-layer perceptron."""

from __future__ import annotations

import keras

from dlcli.architectures.blocks import activate, drop_features, initializer_name, normalize
from dlcli.recipe.arguments import Activation, Initializer, Normalization, PositiveInt, Rate, Sequence


def perceptron(inputs: keras.KerasTensor, *, dropout: Rate = 0.0) -> keras.KerasTensor:
    """Single-layer perceptron (Rosenblatt 1958): the inputs themselves are the features.

    Its one trainable layer is the task's output layer, so this is logistic (softmax, linear) regression.

    Args:
        inputs: (B, H, W, C) or (B, D).
        dropout: Share of the inputs set to zero in training.

    Returns:
        The inputs as vectors, (B, H * W * C) or (B, D).
    """
    return drop_features(keras.layers.Flatten()(inputs), dropout)


def mlp(
    inputs: keras.KerasTensor,
    *,
    hidden: Sequence[PositiveInt] = (128, 64),
    activation: Activation = "relu",
    normalization: Normalization = "none",
    initializer: Initializer = "glorot_uniform",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """Multi-layer perceptron (Rumelhart, Hinton & Williams 1986).

    Args:
        inputs: (B, D), or (B, H, W, C), which is flattened first.
        hidden: Units of each hidden layer, first to last.
        activation: Of the hidden layers.
        normalization: Between each hidden layer and its activation; `instance` has no meaning for vectors.
        initializer: Of the kernels.
        dropout: Share of each hidden layer's outputs set to zero in training.

    Returns:
        (B, hidden[-1]).
    """
    kernel_initializer = initializer_name(initializer)
    x = keras.layers.Flatten()(inputs)
    for units in hidden:
        # A normalization has a shift of its own, which would cancel a bias.
        x = keras.layers.Dense(
            units, use_bias=normalization == "none", kernel_initializer=kernel_initializer
        )(x)
        x = activate(normalize(x, normalization), activation)
        x = drop_features(x, dropout)
    return x
