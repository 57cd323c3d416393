"""The Transformer's encoder, for texts that are read as a whole."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras

from dlcli.layers.positions import PositionEmbedding
from dlcli.layers.transformer_block import TransformerBlock, layer_norm
from dlcli.recipe.arguments import PositiveInt, Rate


def transformer(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    num_layers: PositiveInt = 2,
    num_heads: PositiveInt = 4,
    width: PositiveInt = 128,
    feedforward_width: PositiveInt | None = None,
    positions: Literal["learned", "sinusoidal", "rotary"] = "learned",
    norm: Literal["pre", "post"] = "pre",
    dropout: Rate = 0.1,
) -> keras.KerasTensor:
    """An embedding and blocks in which every token attends to every other (Vaswani et al. 2017, section 3).

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: tokens, the special ones included.
        max_length: the longest T.
        num_layers: blocks.
        num_heads: attention heads; must divide `width`.
        width: of the embedding and of every block's output.
        feedforward_width: units of each block's dense network; 4 times `width` when left out.
        positions: a learnt vector for each, sines and cosines (the paper), or rotations of queries and keys
            (Su et al. 2021).
        norm: normalization before each half of a block, or after it (the paper), which needs a warm-up when deep.
        dropout: share left out of embeddings, attention weights and block outputs.

    Returns:
        (B, T, width).

    Raises:
        ValueError: `num_heads` does not divide `width`.
    """
    x = embed(inputs, vocabulary_size, max_length, width, positions)
    x = keras.layers.Dropout(dropout, name="embedding_dropout")(x)
    for index in range(num_layers):
        x = TransformerBlock(
            width,
            num_heads,
            feedforward_width or 4 * width,
            dropout,
            norm,
            rotary=positions == "rotary",
            name=f"block_{index + 1}",
        )(x)
    return layer_norm(name="final_norm")(x) if norm == "pre" else x


def embed(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    width: int,
    positions: Literal["learned", "sinusoidal", "rotary"],
    initializer: Any = "uniform",
) -> keras.KerasTensor:
    """Token ids (B, T) -> (B, T, width), with their positions unless blocks rotate by them.

    Beside sinusoids, vectors of length 1 are multiplied by sqrt(width), so that positions do not drown them (Vaswani et
    al. 2017, section 3.4); `initializer` is for the others.
    """
    if positions == "sinusoidal":
        initializer = keras.initializers.RandomNormal(stddev=width**-0.5)
    x = keras.layers.ReversibleEmbedding(
        vocabulary_size,
        width,
        tie_weights=True,
        embeddings_initializer=initializer,
        mask_zero=True,
        name="token_embedding",
    )(inputs)
    if positions == "rotary":
        return x
    if positions == "sinusoidal":
        x = keras.layers.Rescaling(math.sqrt(width), name="embedding_scale")(x)
    return PositionEmbedding(positions, max_length, initializer, name="position_embedding")(x)
