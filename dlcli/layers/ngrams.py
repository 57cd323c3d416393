"""Word n-grams as ids."""

from __future__ import annotations

from typing import Any

import keras

HASHES = ((31_327, 32_749), (20_011, 32_719))
"""Multiplier and prime of two 15-bit polynomial hashes: no product reaches 2**31, so int32 never overflows."""


@keras.saving.register_keras_serializable("dlcli")
class HashedNGrams(keras.layers.Layer):
    """The tokens of a text and the numbers of its hashed n-grams, int32 (B, T) -> int32 (B, T * ngrams).

    First the tokens themselves; then for each n from 2 to `ngrams` and each place of the text the n-gram that begins
    there, as `vocabulary_size + hash % buckets`, or 0 where it would reach into the padding. The number of an
    n-gram depends on its tokens and their order alone, so a model may be saved and read anywhere.

    Args:
        vocabulary_size: Tokens; n-grams are numbered after them.
        ngrams: The longest n-gram, in tokens.
        buckets: Numbers that n-grams share.
    """

    def __init__(self, vocabulary_size: int, ngrams: int, buckets: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "int32"})
        if min(vocabulary_size, ngrams, buckets) < 1:
            raise ValueError(
                "Expected vocabulary_size, ngrams and buckets of at least 1. "
                f"Received: {vocabulary_size}, {ngrams} and {buckets}"
            )
        self.vocabulary_size = vocabulary_size
        self.ngrams = ngrams
        self.buckets = buckets

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Int32 (B, T), 0 for padding."""
        tokens = keras.ops.cast(inputs, "int32")
        following = keras.ops.pad(tokens, ((0, 0), (0, self.ngrams - 1)))  # (B, T + ngrams - 1)
        hashes = [keras.ops.mod(tokens, prime) for _, prime in HASHES]
        inside = tokens > 0
        found = [tokens]
        for offset in range(1, self.ngrams):
            after = self.ngrams - 1 - offset
            token = following[:, offset : -after or None]  # (B, T): the token `offset` places on
            hashes = [
                keras.ops.mod(number * multiplier + keras.ops.mod(token, prime), prime)
                for number, (multiplier, prime) in zip(hashes, HASHES, strict=True)
            ]
            inside = keras.ops.logical_and(inside, token > 0)
            bucket = keras.ops.mod(hashes[0] * 2**15 + hashes[1], self.buckets)
            found.append(keras.ops.where(inside, self.vocabulary_size + bucket, 0))
        return keras.ops.concatenate(found, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T * ngrams)."""
        length = input_shape[1]
        return (input_shape[0], None if length is None else length * self.ngrams)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {"vocabulary_size": self.vocabulary_size, "ngrams": self.ngrams, "buckets": self.buckets}
        return {**super().get_config(), **own}
