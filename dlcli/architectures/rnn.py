"""Recurrent networks that read texts: SimpleRNN, LSTM and GRU."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.recipe.arguments import PositiveInt, Rate, Sequence

CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}


def rnn(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm",
    units: Sequence[PositiveInt] = (64,),
    embedding_width: PositiveInt = 128,
    bidirectional: bool = True,
    dropout: Rate = 0.0,
    recurrent_dropout: Rate = 0.0,
    pooling: Literal["last", "mean", "max", "attention", "none"] = "last",
) -> keras.KerasTensor:
    """An embedding, recurrent layers on top of each other, and one vector of what they say of the text.

    LSTM: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000, whose bias starts at 1. GRU: Cho
    et al. 2014, in cuDNN's form (reset after the matrix product). Bidirectional: Schuster & Paliwal 1997.
    The layers are Keras's: on a GPU they run in cuDNN, and on a CPU most of their time goes into matrix products.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: Tokens, the special ones included.
        max_length: Not needed: any length can be read.
        cell: The kind of the recurrent layers. `simple_rnn` forgets after some ten tokens.
        units: Width of each recurrent layer, first to last; in each direction where `bidirectional`.
        embedding_width: Width of the token embedding.
        bidirectional: Whether each layer also reads from the end, and both outputs are joined.
        dropout: Share set to zero in training, of the embedded tokens, between the recurrent layers and of the
            features.
        recurrent_dropout: Share of each state's units that all steps of a text do without in training (Gal &
            Ghahramani 2016). It takes a step about 1.7 times as long on a CPU, and keeps a GPU from using cuDNN.
        pooling: What becomes of the last layer's outputs: `last`, the state after the last token (of the reverse
            direction, after the first); `mean` or `max` over the tokens; `attention`, a mean weighted by learnt
            scores (Yang et al. 2016); `none` keeps a vector for each token, for tagging.

    Returns:
        (B, D) with D = units[-1], or twice that where `bidirectional`; with pooling `none` (B, T, D).

    Raises:
        ValueError: No layers.
    """
    if not units:
        raise ValueError("Expected units for at least one recurrent layer. Received: units=[]")
    x = keras.layers.Embedding(vocabulary_size, embedding_width, mask_zero=True)(inputs)
    x = drop(x, dropout)
    for index, width in enumerate(units):
        is_last = index == len(units) - 1
        layer = CELLS[cell](
            width,
            return_sequences=not (is_last and pooling == "last"),
            recurrent_dropout=recurrent_dropout,
        )
        x = (keras.layers.Bidirectional(layer) if bidirectional else layer)(x)
        if not is_last:
            x = drop(x, dropout)
    return drop(pool(x, pooling), dropout)


def pool(
    x: keras.KerasTensor, pooling: Literal["last", "mean", "max", "attention", "none"]
) -> keras.KerasTensor:
    """A sequence as one vector, (B, T, D) -> (B, D); `last` and `none` leave it as it is."""
    if pooling == "attention":
        return AttentionPooling()(x)
    if pooling in ("mean", "max"):
        return MaskedPooling(pooling)(x)
    return x


def drop(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Dropout, where there is any; a mask goes on."""
    return keras.layers.Dropout(rate)(x) if rate else x
