"""Hashed n-grams."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.layers import HashedNGrams
from dlcli.layers.ngrams import HASHES


def numbers(
    tokens: list[list[int]], ngrams: int = 2, buckets: int = 1000, vocabulary: int = 20
) -> np.ndarray:
    return np.asarray(HashedNGrams(vocabulary, ngrams, buckets)(np.array(tokens, "int32")))


def by_hand(tokens: list[int], buckets: int) -> int:
    """In Python's integers, which do not overflow."""
    hashes = []
    for multiplier, prime in HASHES:
        number = 0
        for token in tokens:
            number = (number * multiplier + token) % prime
        hashes.append(number)
    return (hashes[0] * 2**15 + hashes[1]) % buckets


def test_words_first_then_each_length():
    found = numbers([[5, 6, 7, 0]], ngrams=3)[0]
    assert found[:4].tolist() == [5, 6, 7, 0]
    assert found[4:8].tolist() == [20 + by_hand([5, 6], 1000), 20 + by_hand([6, 7], 1000), 0, 0]
    assert found[8:].tolist() == [20 + by_hand([5, 6, 7], 1000), 0, 0, 0]


def test_texts_shorter_than_an_ngram():
    assert numbers([[5]], ngrams=5).tolist() == [[5, 0, 0, 0, 0]]


def test_large_vocabularies_do_not_overflow():
    tokens = np.random.default_rng(0).integers(1, 1_000_000, (1, 300)).tolist()
    found = numbers(tokens, ngrams=5, buckets=1_000_000, vocabulary=1_000_000)[0]
    assert found.min() >= 0
    for length in range(2, 6):
        places = found[300 * (length - 1) : 300 * length]
        expected = [1_000_000 + by_hand(tokens[0][i : i + length], 1_000_000) for i in range(301 - length)]
        assert places.tolist() == expected + [0] * (length - 1)


@pytest.mark.parametrize("buckets", [30_011, 2**15, 100_000])
def test_collisions_are_no_more_frequent_than_chance(buckets):
    # Frequent words have small ids: all pairs of the first 200.
    first, second = (pair.ravel() for pair in np.meshgrid(np.arange(1, 201), np.arange(1, 201)))
    found = numbers(np.stack([first, second], 1).tolist(), buckets=buckets)[:, 2] - 20
    counts = np.bincount(found, minlength=buckets)
    assert counts.size == buckets
    expected = buckets * (1 - np.exp(-len(first) / buckets))
    assert (counts > 0).sum() > 0.95 * expected
    assert (found.reshape(200, 200) == found.reshape(200, 200).T).mean() < 0.02


def test_it_can_be_saved():
    layer = HashedNGrams(20, 3, 50)
    copy = HashedNGrams.from_config(layer.get_config())
    tokens = np.array([[5, 6, 7]], "int32")
    np.testing.assert_array_equal(copy(tokens), layer(tokens))
    assert layer(keras.Input((None,), dtype="int32")).dtype == "int32"
    with pytest.raises(ValueError, match="Received: 20, 0 and 50"):
        HashedNGrams(20, 0, 50)
