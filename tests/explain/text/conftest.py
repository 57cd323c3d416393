"""Tiny models of texts whose explanations are known."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import character, word
from dlcli.explain.network import Network
from dlcli.explain.text.words import TextReader
from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.ngrams import HashedNGrams
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import Tokens
from dlcli.layers.transformer_block import TransformerBlock

CORPUS = [
    "the film was wonderful and moving",
    "the plot was dull , not wonderful",
    "a boring mess of a film",
]


class Sum(keras.layers.Layer):
    """(B, T, K) -> (B, K): the sum over real tokens."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return keras.ops.sum(x * keras.ops.cast(mask, x.dtype)[..., None], axis=1)

    def compute_mask(self, x, mask=None):
        return None


def _features(kind, inputs, size):
    start = keras.initializers.RandomNormal(stddev=1.0)  # as wide as trained ones
    embedding = keras.layers.Embedding(size, 8, mask_zero=True, embeddings_initializer=start)
    if kind == "linear":
        return Sum()(keras.layers.Embedding(size, 2, mask_zero=True, name="scores")(inputs))
    if kind == "ngrams":
        grams = HashedNGrams(size, 2, 30)(inputs)
        table = keras.layers.Embedding(size + 30, 8, mask_zero=True, embeddings_initializer=start)
        return MaskedPooling("mean")(table(grams))
    if kind == "lstm":
        return MaskedPooling("max")(keras.layers.LSTM(8, return_sequences=True)(embedding(inputs)))
    if kind == "pooled":
        return AttentionPooling()(embedding(inputs))
    x = embedding(inputs)
    for _ in range(2):
        x = TransformerBlock(8, 2, 16, causal=kind == "language")(x)
    return x if kind == "language" else MaskedPooling("mean")(x)


@pytest.fixture(scope="session")
def make():
    """`make(kind)` -> model, network, tokenizer and `read(text, ...)`."""

    def build(kind, *, scale=1.0, max_length=30, ends=((), ()), probability=False):
        language = kind == "language"
        tokenizer = Tokenizer((character if language else word)(CORPUS).to_str())
        keras.utils.set_random_seed(0)
        size = tokenizer.vocabulary_size
        inputs = keras.Input((None,), dtype="int32")
        features = _features(kind, Tokens(tokenizer.json, max_length)(inputs), size)
        if kind == "linear":
            outputs = Predictions("classes", ["neg", "pos"])(features)
        elif language:
            outputs = keras.layers.Dense(size)(features)
        else:
            outputs = Predictions("classes", ["neg", "pos"])(keras.layers.Dense(1)(features))
        model = keras.Model(inputs, outputs)
        model.set_weights([scale * weight for weight in model.get_weights()])
        names = [tokenizer.token(index) for index in range(size)] if language else ["neg", "pos"]
        network = Network(
            model,
            "text",
            np.ones((1, 2), np.int32),
            class_names=names,
            language=language,
            probability=probability,
        )
        reader = TextReader(tokenizer, max_length, ends, "last" if language else "first")
        return SimpleNamespace(
            model=model,
            network=network,
            tokenizer=tokenizer,
            read=lambda *texts: [reader.read(text[:20], text) for text in texts],
        )

    return build


@pytest.fixture(scope="session")
def linear(make):
    """f_k(text) = the sum of known scores of its words: every attribution of a word is its score."""
    built = make("linear")
    table = np.random.default_rng(0).normal(size=(built.tokenizer.vocabulary_size, 2)).astype(np.float32)
    table[0] = 0
    table[built.tokenizer.encode(["was"])[0][0]] = 0  # a word that changes nothing
    built.model.get_layer("scores").set_weights([table])
    built.scores = lambda subject, k: table[np.asarray(subject.inputs), k]
    built.unknown = table[1]
    return built
