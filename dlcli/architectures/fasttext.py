"""The bag of word n-grams."""

from __future__ import annotations

import keras

from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.ngrams import HashedNGrams
from dlcli.recipe.arguments import Annotated, Field, PositiveInt, Rate


def fasttext(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    ngrams: Annotated[int, Field(ge=1, le=5)] = 2,
    buckets: PositiveInt = 100_000,
    embedding_width: PositiveInt = 16,
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """The mean of the embeddings of a text's words and word n-grams (Joulin et al. 2016, section 2).

    N-grams share hashed buckets. The paper has 10 million buckets and updates only those that a text touches;
    Keras's Adam and its like update every row in every step, so the number of buckets decides about the time of a
    step: hence few of them by default.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: Tokens, the special ones included.
        max_length: Not needed: any length can be read.
        ngrams: The longest n-gram, in tokens; 1 for words alone.
        buckets: Rows of the embedding that n-grams share.
        embedding_width: Width of the embedding.
        dropout: Share of the features set to zero in training.

    Returns:
        (B, embedding_width).
    """
    if ngrams > 1:
        inputs = HashedNGrams(vocabulary_size, ngrams, buckets)(inputs)  # (B, T * ngrams)
        vocabulary_size += buckets
    x = keras.layers.Embedding(vocabulary_size, embedding_width, mask_zero=True)(inputs)
    x = MaskedPooling("mean")(x)
    return keras.layers.Dropout(dropout)(x) if dropout else x
