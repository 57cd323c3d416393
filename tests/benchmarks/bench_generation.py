"""Tokens a second of `dlcli generate` with its cache of keys and values, against reading the whole context each time.

Both alternate within one process, and the fastest token of each counts: a step of a millisecond suffers more from a
busy machine than one of ten. Run: make bench
"""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import pytest

from dlcli.architectures.gpt import gpt
from dlcli.architectures.textgen_rnn import textgen_rnn
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import character
from dlcli.evaluation.generate import Reader, cached_reader, whole_reader
from dlcli.layers.output_projection import output_projection, token_embedding
from dlcli.layers.tokens import Tokens

LENGTH, ROUNDS, TOKENS = 256, 5, 20
CASES: list[tuple[str, Callable, float]] = [("gpt", gpt, 5.0), ("textgen_rnn", textgen_rnn, 5.0)]


def language_model(architecture: Callable) -> keras.Model:
    """At its default size: gpt as nanoGPT's for a CPU, 4 layers, 4 heads, 128 wide."""
    tokenizer = Tokenizer(character([chr(33 + index) for index in range(60)]).to_str())
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    tokens = Tokens(tokenizer.json, LENGTH, name="tokenizer")(inputs)
    features = architecture(tokens, tokenizer.vocabulary_size, LENGTH)
    return keras.Model(
        inputs, output_projection(token_embedding(features), tokenizer.vocabulary_size)(features)
    )


def time_a_token(read: Reader, ids: list[int]) -> float:
    """Seconds, for the last tokens of a full context."""
    read(ids[:-TOKENS], len(ids) - TOKENS)
    times = []
    for end in range(len(ids) - TOKENS + 1, len(ids) + 1):
        start = time.perf_counter()
        read(ids[:end], 1)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.benchmark
@pytest.mark.parametrize(("name", "architecture", "at_least"), CASES, ids=[case[0] for case in CASES])
def test_tokens_per_second(name: str, architecture: Callable, at_least: float) -> None:
    model = language_model(architecture)
    ids = [int(index) for index in np.random.default_rng(0).integers(5, 60, LENGTH)]
    readers = cached_reader(model, LENGTH), whole_reader(model)
    assert readers[0] is not None
    seconds = [[time_a_token(read, ids) for read in readers] for _ in range(ROUNDS)]
    cached, whole = (min(column) for column in zip(*seconds, strict=True))
    print(
        f"\n{name}: {1 / cached:,.0f} tokens/s with the cache, {1 / whole:,.0f} without: {whole / cached:.1f} x"
    )
    assert whole / cached > at_least
