from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest

from dlcli.data.text.tokenizer import END, MASK, PAD, START, UNKNOWN, Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.evaluation import beam_search
from dlcli.evaluation.beam_search import Steps, length_normalizer, translate
from dlcli.layers.output_projection import output_projection

A, B, C = 5, 6, 7
VOCABULARY = 8
IMPOSSIBLE = -30.0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(word(["a a a b b c"], vocabulary_size=VOCABULARY).to_str())


def markov_model(following: dict[int, dict[int, float]], by_source: np.ndarray | None = None) -> keras.Model:
    """The next token's probability depends on the last one, and on the first token of the source.

    Args:
        following: token -> {next token: probability}; END is certain after all others.
        by_source: (V, V), added to the logits for each first token of the source.
    """
    table = np.full((VOCABULARY, VOCABULARY), IMPOSSIBLE, np.float32)
    table[:, END] = 0
    for token, probabilities in following.items():
        table[token, END] = IMPOSSIBLE
        table[token, list(probabilities)] = np.log(list(probabilities.values()))
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    by_token = keras.layers.Embedding(VOCABULARY, VOCABULARY, name="by_source")
    memory = keras.layers.Identity(name="memory")(by_token(inputs["source"]))
    target = keras.layers.Identity(name="target_tokens", dtype="int32")(inputs["target"])
    by_last = keras.layers.Embedding(VOCABULARY, VOCABULARY, name="by_last")
    features = keras.layers.Identity(name="features")(by_last(target) + memory[:, :1])
    model = keras.Model(inputs, output_projection(None, VOCABULARY)(features))
    by_token.set_weights([np.zeros_like(table) if by_source is None else by_source])
    by_last.set_weights([table])
    model.get_layer("output_projection").set_weights([np.eye(VOCABULARY)])
    return model


GARDEN_PATH = {START: {A: 0.6, B: 0.4}, A: {A: 0.4, B: 0.3, C: 0.3}, B: {C: 0.95, A: 0.05}}
"""After the more probable `a` nothing is probable: a a (0.24), but b c (0.38)."""


@pytest.mark.parametrize(("beam_size", "expected"), [(1, "a a a a"), (2, "b c"), (5, "b c")])
def test_a_beam_finds_what_greedy_search_walks_past(tokenizer, beam_size, expected):
    found = translate(
        markov_model(GARDEN_PATH), tokenizer, ["c"], beam_size=beam_size, length_penalty=0.0, max_length=5
    )
    assert found == [expected]


def random_model(seed: int) -> keras.Model:
    rng = np.random.default_rng(seed)
    by_source = rng.normal(0, 2, (VOCABULARY, VOCABULARY)).astype("float32")
    words = (UNKNOWN, A, B, C, END)
    following = {last: dict(zip(words, rng.dirichlet(np.ones(5)), strict=True)) for last in words}
    # Nothing ends here, or the best translation of most sources would be an empty one.
    following |= {last: dict(zip(words[:4], rng.dirichlet(np.ones(4)), strict=True)) for last in (START, A)}
    return markov_model(following, by_source)


def brute_force(model: keras.Model, source: np.ndarray, length_penalty: float, limit: int) -> list[int]:
    """The best of all translations of at most `limit` tokens, `<end>` included."""
    best: tuple[float, list[int]] = (-math.inf, [])
    for length in range(limit):
        every = list(itertools.product((UNKNOWN, A, B, C), repeat=length))
        target = np.array([[START, *words] for words in every], np.int32)
        sources = np.repeat(source[None], len(every), axis=0)
        logits = np.asarray(model({"source": sources, "target": target}, training=False))
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for words, rows in zip(every, log_probabilities, strict=True):
            score = sum(rows[place, token] for place, token in enumerate((*words, END)))
            best = max(best, (score / length_normalizer(length + 1, length_penalty), list(words)))
    return best[1]


@pytest.mark.parametrize("length_penalty", [0.0, 1.5])
def test_a_beam_wide_enough_finds_the_best_of_all(tokenizer, length_penalty):
    model = random_model(seed=3)
    texts = ["a", "b c", "", "c a b"]
    found = translate(model, tokenizer, texts, beam_size=128, length_penalty=length_penalty, max_length=4)
    sources = [np.array([*ids, END], np.int32) for ids in tokenizer.encode(texts)]
    expected = [brute_force(model, source, length_penalty, limit=4) for source in sources]
    assert found == tokenizer.decode_batch(expected)
    assert len(set(found)) > 2


def test_a_sentence_is_translated_the_same_in_any_company(tokenizer, monkeypatch):
    model = random_model(seed=1)
    texts = ["a", "b c a a b", "", "c a b", "b", "c", "a b"]
    together = translate(model, tokenizer, texts, beam_size=3, max_length=6)
    done = []
    monkeypatch.setattr(beam_search, "ROWS", 6)
    by_two = translate(model, tokenizer, texts, beam_size=3, max_length=6, advance=done.append)
    assert together == by_two
    assert together == [translate(model, tokenizer, [text], beam_size=3, max_length=6)[0] for text in texts]
    assert done == [2, 2, 2, 1]


def test_those_that_go_on_keep_their_own_source(tokenizer):
    """The first sentence is done at once, and its neighbours move up."""
    by_source = np.zeros((VOCABULARY, VOCABULARY), np.float32)
    by_source[A, END], by_source[B, B], by_source[C, C] = 9, 9, 9
    every = {END: 0.25, A: 0.25, B: 0.25, C: 0.25}
    model = markov_model(dict.fromkeys((START, A, B, C), every), by_source)
    found = translate(model, tokenizer, ["a", "b", "c"], beam_size=1, max_length=4)
    assert found == ["", "b b b", "c c c"]


def test_the_length_penalty_favours_long_translations(tokenizer):
    model = markov_model({START: {END: 0.5, A: 0.5}, A: {B: 0.9, END: 0.1}})
    short, long = (
        translate(model, tokenizer, ["c"], beam_size=4, length_penalty=alpha, max_length=6)
        for alpha in (0.0, 1.0)
    )
    assert (short, long) == ([""], ["a b"])


def test_the_length_penalty_is_that_of_the_paper():
    assert length_normalizer(1, 0.6) == 1
    assert length_normalizer(7, 0.5) == pytest.approx(math.sqrt(2))


def test_special_tokens_are_never_written(tokenizer):
    by_source = np.zeros((VOCABULARY, VOCABULARY), np.float32)
    by_source[:, [PAD, START, MASK]] = 50
    model = markov_model({START: {A: 0.5, B: 0.5}, A: {B: 1.0}}, by_source)
    assert translate(model, tokenizer, ["a", "b"], beam_size=1, max_length=5) == ["a b", "a b"]


def test_a_translation_that_never_ends_is_cut(tokenizer, monkeypatch):
    model = markov_model({START: {A: 1.0}, A: {A: 1.0}})
    assert translate(model, tokenizer, ["c"], beam_size=2, max_length=5) == ["a a a a"]
    monkeypatch.setattr(beam_search, "EXTRA_TOKENS", 1)
    assert translate(model, tokenizer, ["c", "a a a a a a a"], beam_size=2, max_length=5) == [
        "a a",
        "a a a a",
    ]


def test_no_texts_and_long_texts(tokenizer):
    model = markov_model({START: {A: 1.0}})
    assert translate(model, tokenizer, [], max_length=4) == []
    assert translate(model, tokenizer, ["b " * 50], max_length=4) == ["a"]


def test_cutting_a_model_in_two_leaves_it_whole(tokenizer, tmp_path):
    model = random_model(seed=0)
    Steps(model, beam_size=2)
    model.save(tmp_path / "model.keras")
    batch = {"source": np.array([[A, END]], np.int32), "target": np.array([[START, B]], np.int32)}
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch), model(batch))
