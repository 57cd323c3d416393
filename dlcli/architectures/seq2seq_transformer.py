"""The Transformer as it was first described: an encoder and a decoder that translate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import keras

from dlcli.architectures.rnn import drop
from dlcli.layers.positions import PositionEmbedding
from dlcli.layers.transformer_block import TransformerBlock
from dlcli.recipe.arguments import PositiveInt, Rate


def seq2seq_transformer(
    inputs: Mapping[str, keras.KerasTensor],
    vocabulary_size: int,
    max_length: int,
    *,
    num_layers: PositiveInt = 3,
    num_heads: PositiveInt = 8,
    width: PositiveInt = 256,
    feedforward_width: PositiveInt = 512,
    dropout: Rate = 0.1,
    norm: Literal["pre", "post"] = "pre",
    positions: Literal["sinusoidal", "learned"] = "sinusoidal",
) -> keras.KerasTensor:
    """The Transformer of Vaswani et al. 2017, "Attention Is All You Need".

    One embedding serves source, target and, where the task ties it, the output (section 3.4): its vectors of length
    about 1 are multiplied by sqrt(width), so that the positions do not drown them. The defaults are of the size that
    suits 30,000 sentences; the paper's base model has num_layers 6, width 512, feedforward_width 2048 and norm post.

    The layers `memory` and `memory_mask` give all that the decoder sees of the source, and `target_tokens` what it
    reads: there beam search cuts the model in two, so that the encoder runs once for each sentence.

    Args:
        inputs: `source` int32 (B, S), and `target` int32 (B, T) that begins with `<start>`; 0 for padding.
        vocabulary_size: Tokens of both languages, the special ones included.
        max_length: Positions of source and target.
        num_layers: Blocks of the encoder, and of the decoder.
        num_heads: Attention heads; they must divide `width`.
        width: Width of embeddings and blocks.
        feedforward_width: Units of each block's hidden layer.
        dropout: Share set to zero in training, of the embedded tokens, of each half of a block and of the
            attention's weights.
        norm: `pre` normalizes before each half of a block, and once more at the end of encoder and decoder (Xiong et
            al. 2020): it learns at any warm-up. `post` normalizes after each, as the paper does: it needs a warm-up.
        positions: `sinusoidal`, sines and cosines (section 3.5); `learned`, a vector for each position.

    Returns:
        (B, T, width).

    Raises:
        ValueError: Inputs other than a source and a target, or heads that do not divide the width.
    """
    if not isinstance(inputs, Mapping) or set(inputs) != {"source", "target"}:
        raise ValueError(f"Expected inputs source and target. Received: {inputs}")
    if width % num_heads:
        raise ValueError(
            f"Expected num_heads to divide width. Received: num_heads={num_heads}, width={width}"
        )
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary_size,
        width,
        tie_weights=True,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=width**-0.5),
        mask_zero=True,
        name="token_embedding",
    )

    def embed(tokens: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = keras.layers.Rescaling(math.sqrt(width), name=f"{name}_scale")(embedding(tokens))
        return drop(PositionEmbedding(positions, max_length, name=f"{name}_positions")(x), dropout)

    def block(name: str, **options: Any) -> TransformerBlock:
        return TransformerBlock(
            width,
            num_heads,
            feedforward_width,
            dropout=dropout,
            norm=norm,
            activation="relu",
            name=name,
            **options,
        )

    def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.LayerNormalization(epsilon=1e-5, name=name)(x) if norm == "pre" else x

    # By hand, because a mask of Keras's gets lost where beam search cuts the model in two.
    is_source = keras.ops.not_equal(inputs["source"], 0)
    memory_mask = keras.layers.Identity(name="memory_mask", dtype="bool")(is_source)
    x = embed(inputs["source"], "source")
    for index in range(num_layers):
        x = block(f"encoder_{index + 1}")(x)
    memory = keras.layers.Identity(name="memory")(normalized(x, "encoder_norm"))  # (B, S, width)
    x = embed(keras.layers.Identity(name="target_tokens", dtype="int32")(inputs["target"]), "target")
    for index in range(num_layers):
        decoder = block(f"decoder_{index + 1}", causal=True, cross_attention=True)
        x = decoder(x, memory, memory_mask=memory_mask)
    return normalized(x, "decoder_norm")
