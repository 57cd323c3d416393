"""Recurrent translation: a bidirectional encoder, and a decoder that attends to the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras

from dlcli.architectures.rnn import CELLS, drop
from dlcli.recipe.arguments import PositiveInt, Rate


def seq2seq_rnn(
    inputs: Mapping[str, keras.KerasTensor],
    vocabulary_size: int,
    max_length: int,
    *,
    cell: Literal["lstm", "gru"] = "gru",
    units: PositiveInt = 256,
    embedding_width: PositiveInt = 256,
    num_layers: PositiveInt = 1,
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """Encoder and decoder of recurrent layers with additive attention (Bahdanau et al. 2015).

    The encoder and the alignment model `v . tanh(W s + U h)` are those of the paper (section 3.2, appendix A.1.2), and
    the decoder starts from the encoder's backward state (appendix A.2.2). The attention stands where Luong et al.
    2015 put it (section 3, equation 5): after the recurrent layers, asked by the decoder's present state, with
    `tanh(W [context; state])` as feature. In Bahdanau's own place the context of each token enters the next state,
    and the target can only be trained one token after the other; here all its tokens are trained in one pass.

    Layers whose names begin with `memory` give all that the decoder sees of the source, and `target_tokens` what it
    reads: there beam search cuts the model in two, so that the encoder runs once for each sentence.

    Args:
        inputs: `source` int32 (B, S), and `target` int32 (B, T) that begins with `<start>`; 0 for padding.
        vocabulary_size: Tokens of both languages, the special ones included.
        max_length: Not needed: any length can be read.
        cell: The kind of the recurrent layers.
        units: Width of the decoder's layers, and of the encoder's in each direction.
        embedding_width: Width of the token embedding, which source and target share, and of the features, so that
            the output layer can share it too.
        num_layers: Recurrent layers of the encoder, and of the decoder.
        dropout: Share set to zero in training, of the embedded tokens, between the recurrent layers and of the
            features.

    Returns:
        (B, T, embedding_width).

    Raises:
        ValueError: Inputs other than a source and a target.
    """
    if not isinstance(inputs, Mapping) or set(inputs) != {"source", "target"}:
        raise ValueError(f"Expected inputs source and target. Received: {inputs}")
    # By hand, because a mask of Keras's gets lost where beam search cuts the model in two.
    source_mask = keras.layers.Identity(name="memory_mask", dtype="bool")(
        keras.ops.not_equal(inputs["source"], 0)
    )
    target = keras.layers.Identity(name="target_tokens", dtype="int32")(inputs["target"])
    target_mask = keras.ops.not_equal(target, 0)
    # Vectors of length 1: with Keras's initializer, tied logits are close to 0 and learning is slow to begin.
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary_size,
        embedding_width,
        tie_weights=True,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_width**-0.5),
        mask_zero=True,
        name="token_embedding",
    )
    memory, states = _encode(embedding(inputs["source"]), source_mask, cell, units, num_layers, dropout)
    x = drop(embedding(target), dropout)
    for index in range(num_layers):
        layer = CELLS[cell](units, return_sequences=True, name=f"decoder_{index + 1}")
        x = drop(layer(x, initial_state=states[index], mask=target_mask), dropout)  # (B, T, units)
    # Keras's layer is the sum over `scale * tanh(query + key)`: the paper's v; W and U are these two.
    query = keras.layers.Dense(units, use_bias=False, name="attention_query")(x)
    key = keras.layers.Dense(units, name="attention_key")(memory)
    context = keras.layers.AdditiveAttention(name="attention")(
        [query, memory, key], mask=[target_mask, source_mask]
    )
    x = keras.layers.Concatenate(name="context_and_state")([context, x])
    return drop(keras.layers.Dense(embedding_width, activation="tanh", name="attended")(x), dropout)


def _encode(
    x: keras.KerasTensor, mask: keras.KerasTensor, cell: str, units: int, num_layers: int, dropout: float
) -> tuple[keras.KerasTensor, list[Any]]:
    """The source (B, S, 2 * units), and the first state of each layer of the decoder."""
    states = []
    x = drop(x, dropout)
    for index in range(num_layers):
        layer = CELLS[cell](units, return_sequences=True, return_state=True)
        x, *last = keras.layers.Bidirectional(layer, name=f"encoder_{index + 1}")(x, mask=mask)
        backward = last[len(last) // 2 :]  # has read the whole source and ends at its first token
        names = [f"memory_state_{index + 1}", f"memory_cell_{index + 1}"]
        first = [
            keras.layers.Dense(units, activation="tanh", name=name)(state)
            for name, state in zip(names, backward, strict=False)
        ]
        states.append(first if len(first) > 1 else first[0])
        x = drop(x, dropout)
    return keras.layers.Identity(name="memory")(x), states
