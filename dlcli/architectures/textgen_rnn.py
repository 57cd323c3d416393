"""The recurrent language model."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.architectures.rnn import CELLS, drop
from dlcli.recipe.arguments import PositiveInt, Rate, Sequence


def textgen_rnn(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm",
    units: Sequence[PositiveInt] = (128, 128),
    embedding_width: PositiveInt = 128,
    dropout: Rate = 0.0,
    tie_embedding: bool = False,
) -> keras.KerasTensor:
    """Predicts each next token from those before it: char-rnn (Karpathy 2015), which is Graves 2013 without skips.

    An embedding takes the place of char-rnn's one-hot inputs, as in textgenrnn. The layers form a chain without
    branches and each token sees only those before it, so that text can be generated one step at a time from the
    states alone; textgenrnn's skips and its attention over the whole text are therefore left out.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: Tokens, the special ones included.
        max_length: Not needed: any length can be read.
        cell: The kind of the recurrent layers.
        units: Width of each recurrent layer, first to last.
        embedding_width: Width of the token embedding.
        dropout: Share set to zero in training, of the embedded tokens and after each recurrent layer (Zaremba et
            al. 2014).
        tie_embedding: Whether the output layer shares the embedding's weights (Press & Wolf 2017); then the last of
            `units` must equal `embedding_width`.

    Returns:
        (B, T, units[-1]).

    Raises:
        ValueError: No layers, or widths that cannot be tied.
    """
    if not units:
        raise ValueError("Expected units for at least one recurrent layer. Received: units=[]")
    if tie_embedding and units[-1] != embedding_width:
        raise ValueError(
            "Expected the last of units to equal embedding_width where tie_embedding is true. "
            f"Received: units={list(units)}, embedding_width={embedding_width}"
        )
    if tie_embedding:
        # Tasks look for a layer of this name, and otherwise add an output layer of their own.
        embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size, embedding_width, tie_weights=True, mask_zero=True, name="token_embedding"
        )
    else:
        embedding = keras.layers.Embedding(vocabulary_size, embedding_width, mask_zero=True)
    x = drop(embedding(inputs), dropout)
    for width in units:
        x = drop(CELLS[cell](width, return_sequences=True)(x), dropout)
    return x
