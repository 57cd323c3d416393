"""GPT: the Transformer's decoder alone, for language models."""

from __future__ import annotations

import math

import keras

from dlcli.architectures.transformer import embed
from dlcli.layers.transformer_block import TransformerBlock, layer_norm
from dlcli.recipe.arguments import PositiveInt, Rate

DEVIATION = 0.02
"""Of the initial weights (Radford et al. 2019, GPT-2)."""


def gpt(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    num_layers: PositiveInt = 4,
    num_heads: PositiveInt = 4,
    width: PositiveInt = 128,
    dropout: Rate = 0.0,
    use_bias: bool = False,
) -> keras.KerasTensor:
    """Blocks in which each token attends to itself and those before it (Radford et al. 2019, GPT-2).

    Learnt positions, normalization before each half of a block and at the end, GELU, and a dense network four times
    as wide as the rest; the kernels whose outputs are added to the stream start smaller the more there are.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: tokens, the special ones included.
        max_length: the longest T.
        num_layers: blocks; GPT-2 has 12.
        num_heads: attention heads; must divide `width`. GPT-2 has 12.
        width: of the embedding and of every block's output; GPT-2 has 768.
        dropout: share left out of embeddings, attention weights and block outputs.
        use_bias: whether there are biases, as in GPT-2; nanoGPT learns a little better without.

    Returns:
        (B, T, width).

    Raises:
        ValueError: `num_heads` does not divide `width`.
    """
    initial = keras.initializers.RandomNormal(stddev=DEVIATION)
    residual = keras.initializers.RandomNormal(stddev=DEVIATION / math.sqrt(2 * num_layers))
    x = embed(inputs, vocabulary_size, max_length, width, "learned", initial)
    x = keras.layers.Dropout(dropout, name="embedding_dropout")(x)
    for index in range(num_layers):
        x = TransformerBlock(
            width,
            num_heads,
            4 * width,
            dropout,
            causal=True,
            use_bias=use_bias,
            kernel_initializer=initial,
            residual_initializer=residual,
            name=f"block_{index + 1}",
        )(x)
    return layer_norm(use_bias, name="final_norm")(x)
