"""BERT: a Transformer encoder to be pretrained on masked tokens."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.transformer import embed
from dlcli.layers.transformer_block import TransformerBlock
from dlcli.recipe.arguments import PositiveInt, Rate

DEVIATION = 0.02
"""Of the initial embeddings (Devlin et al. 2018, as published)."""


def bert(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    num_layers: PositiveInt = 2,
    num_heads: PositiveInt = 2,
    width: PositiveInt = 128,
    feedforward_width: PositiveInt | None = None,
    positions: Literal["learned", "sinusoidal", "rotary"] = "learned",
    dropout: Rate = 0.1,
) -> keras.KerasTensor:
    """Embeddings with learnt positions, normalized, and blocks that normalize after each half (Devlin et al. 2018).

    Kernels start as Glorot & Bengio 2010 have it: the published deviation of 0.02 is meant for a width of 768, and
    at 128 little passes through attention at first.
    Without segment embeddings: they serve the next-sentence task, which RoBERTa (Liu et al. 2019, section 4.2) found
    to be of no use and left out. The masked-token head belongs to the task `masked_language_modeling`.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: tokens, the special ones included.
        max_length: the longest T.
        num_layers: blocks. Tiny has 2, mini 4, small 4, medium 8 (Turc et al. 2019), base 12.
        num_heads: attention heads; must divide `width`. Tiny has 2, mini 4, small and medium 8, base 12.
        width: of the embedding and of every block's output. Tiny has 128, mini 256, small and medium 512, base 768.
        feedforward_width: units of each block's dense network; 4 times `width` when left out.
        positions: a learnt vector for each (the paper), sines and cosines, or rotations of queries and keys (Su et al.
            2021).
        dropout: share left out of embeddings, attention weights and block outputs.

    Returns:
        (B, T, width).

    Raises:
        ValueError: `num_heads` does not divide `width`.
    """
    initial = keras.initializers.TruncatedNormal(stddev=DEVIATION)
    x = embed(inputs, vocabulary_size, max_length, width, positions, initial)
    x = keras.layers.LayerNormalization(epsilon=1e-12, name="embedding_norm")(x)
    x = keras.layers.Dropout(dropout, name="embedding_dropout")(x)
    for index in range(num_layers):
        x = TransformerBlock(
            width,
            num_heads,
            feedforward_width or 4 * width,
            dropout,
            norm="post",
            rotary=positions == "rotary",
            name=f"block_{index + 1}",
        )(x)
    return x
