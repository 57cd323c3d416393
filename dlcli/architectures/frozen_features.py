"""A head on the features of a frozen pretrained model, which are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras

from dlcli.architectures.blocks import drop_features
from dlcli.recipe.arguments import PositiveInt, Rate


def frozen_features(
    inputs: keras.KerasTensor,
    vocabulary_size: int = 0,
    max_length: int = 0,
    *,
    source: str,
    layer: str | None = None,
    preprocessing: Literal["auto", "none", "rescale", "tf", "caffe", "torch"] = "auto",
    pooling: Literal["mean", "max", "first"] = "mean",
    dense: Sequence[PositiveInt] = (),
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """Hidden layers, if any, on features that were computed before training (see `dlcli.training.frozen`).

    Args:
        inputs: (B, D).
        vocabulary_size: not used: the source has read the tokens.
        max_length: not used.
        source: a run folder, a .keras or .h5 file, `imagenet:NAME`, `hub:PRESET`, or a local preset folder.
        layer: the layer whose output becomes the features; the one before the head when left out.
        preprocessing: what the source expects of pixels when the file does not contain it.
        pooling: how a map or a sequence becomes a vector. Of a text, `first` is the token that `task.pooling: first`
            puts before it.
        dense: units of hidden layers.
        dropout: share of features set to zero in training, before each dense layer and the output.

    Returns:
        (B, dense[-1]), or (B, D) without hidden layers.
    """
    if len(inputs.shape) != 2:
        raise ValueError(f"Expected features (B, D). Received: {inputs.shape}")
    x = inputs
    for units in dense:
        x = drop_features(x, dropout)
        x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)
    return drop_features(x, dropout)
