"""Text from a language model: drawing, the cache, streaming, and `dlcli generate`."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.architectures.gpt import gpt
from dlcli.architectures.textgen_rnn import textgen_rnn
from dlcli.cli.generate import generate as generate_command
from dlcli.data.text.tokenizer import END, SPECIAL_TOKENS, Tokenizer
from dlcli.data.text.tokenizers import byte, character, word
from dlcli.errors import DlcliError
from dlcli.evaluation.generate import (
    Sampling,
    _draw,
    _pieces,
    cached_reader,
    first_tokens,
    generate,
    unknown_parts,
    whole_reader,
)
from dlcli.layers.output_projection import output_projection, token_embedding
from dlcli.layers.tokens import Tokens
from dlcli.recipe.load import dump_recipe, load_recipe

CHARACTERS = Tokenizer(character(["the quick brown fox jumps over the lazy dog.\n"]).to_str())
BYTES = Tokenizer(byte([]).to_str())
WORDS = Tokenizer(word(["the cat sat on a mat ."]).to_str())
LENGTH = 10


def language_model(
    architecture=gpt, tokenizer: Tokenizer = CHARACTERS, tie: bool = True, **arguments
) -> keras.Model:
    """An untrained one, its weights so large that its predictions are far from even."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    tokens = Tokens(tokenizer.json, LENGTH, name="tokenizer")(inputs)
    features = architecture(tokens, tokenizer.vocabulary_size, LENGTH, **arguments)
    project = output_projection(token_embedding(features) if tie else None, tokenizer.vocabulary_size)
    model = keras.Model(inputs, project(features))
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return model


GPT = {"num_layers": 2, "num_heads": 2, "width": 8}
MODELS = {
    "gpt": {"architecture": gpt, **GPT, "dropout": 0.2},
    "gpt_untied": {"architecture": gpt, "tie": False, **GPT},
    "lstm": {"architecture": textgen_rnn, "units": [8, 6], "embedding_width": 5, "dropout": 0.2},
    "gru_tied": {"architecture": textgen_rnn, "cell": "gru", "units": [6], "embedding_width": 6, "tie_embedding": True},
    "simple_rnn": {"architecture": textgen_rnn, "cell": "simple_rnn", "units": [6], "embedding_width": 6},
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return language_model(**MODELS["gpt"])


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_changes_nothing(name, tmp_path):
    model = language_model(**MODELS[name])
    if name in ("gpt", "lstm"):  # as a run's is read; its layers and nodes are made anew
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    cached, whole = cached_reader(model, LENGTH), whole_reader(model)
    assert cached is not None
    for ids, new in (([7, 8, 9, 10], 4), ([7, 8, 9, 10, 11], 1), ([7, 8, 9, 10, 11, 12], 1), ([9, 5], 2)):
        np.testing.assert_allclose(cached(ids, new), whole(ids, new), atol=1e-5)
    # 35 tokens go on beyond the context of 10 several times, and a prompt may be longer than it.
    for prompt in ("the ", "the quick brown fox"):
        ids = first_tokens(CHARACTERS, prompt)
        drawn = [
            list(islice(_draw(read, ids, LENGTH, Sampling(1.0), np.random.default_rng(3)), 35))
            for read in (cached, whole)
        ]
        assert drawn[0] == drawn[1]
        assert len(drawn[0]) > LENGTH


def test_the_last_half_of_a_full_context_is_kept(model, monkeypatch):
    contexts = []

    def read(ids: list[int], new: int) -> np.ndarray:
        contexts.append((len(ids), new))
        return np.eye(CHARACTERS.vocabulary_size)[8] * 10

    monkeypatch.setattr("dlcli.evaluation.generate.whole_reader", lambda model: read)
    list(generate(model, CHARACTERS, "the quic", max_tokens=10, temperature=0, use_cache=False))
    assert contexts == [(8, 8), (9, 1), (10, 1), (5, 5), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1), (5, 5)]


def test_the_seed_decides(model):
    one, same, other = (
        "".join(
            generate(model, CHARACTERS, "the", max_tokens=15, temperature=1.0, seed=seed, use_cache=False)
        )
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_temperature_0_takes_the_likeliest(model):
    ids = first_tokens(CHARACTERS, "the")
    expected = []
    for _ in range(5):
        logits = np.array(model(np.array([ids])))[0, -1]
        logits[[0, 1, 2, 4]] = -np.inf
        ids.append(int(logits.argmax()))
        expected.append(ids[-1])
    assert END not in expected
    text = "".join(generate(model, CHARACTERS, "the", max_tokens=5, temperature=0))
    assert text == CHARACTERS.decode(expected)


# Of ids 5 to 8; the special ones before them must not be drawn, but for <end>.
LOGITS = np.log(np.array([9, 9, 9, 1e-9, 9, 0.5, 0.3, 0.15, 0.05]))


def shares(sampling: Sampling, count: int = 4000) -> dict[int, float]:
    random = np.random.default_rng(0)
    counts = Counter(sampling.draw(LOGITS, random) for _ in range(count))
    return {index: counts[index] / count for index in sorted(counts)}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), {5: 0.5, 6: 0.3, 7: 0.15, 8: 0.05}),
        (Sampling(0.5), {5: 0.25 / 0.365, 6: 0.09 / 0.365, 7: 0.0225 / 0.365, 8: 0.0025 / 0.365}),
        (Sampling(1.0, top_k=2), {5: 0.625, 6: 0.375}),
        (Sampling(1.0, top_k=99), {5: 0.5, 6: 0.3, 7: 0.15, 8: 0.05}),
        (Sampling(1.0, top_p=0.75), {5: 0.625, 6: 0.375}),  # the fewest that reach 0.75
        (Sampling(1.0, top_p=0.85), {5: 0.5 / 0.95, 6: 0.3 / 0.95, 7: 0.15 / 0.95}),
        (Sampling(1.0, top_p=0.01), {5: 1.0}),
        (Sampling(1.0, top_k=2, top_p=0.6), {5: 1.0}),  # of the two 5 has 0.625
        (Sampling(1e-320), {5: 1.0}),
        (Sampling(0), {5: 1.0}),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(sampling, expected):
    found = shares(sampling)
    assert found.keys() == expected.keys()
    for index, share in expected.items():
        assert found[index] == pytest.approx(share, abs=0.025)


def test_the_end_stops(model):
    biased = language_model(gpt, tie=False, **GPT)
    bias = biased.get_layer("logits").bias
    bias.assign(np.eye(bias.shape[0])[END] * 1000)
    assert list(generate(biased, CHARACTERS, "the", max_tokens=5, use_cache=False)) == []
    bias.assign(np.eye(bias.shape[0])[[0, 1, 2, 4]].sum(0) * 1000)
    text = "".join(generate(biased, CHARACTERS, "the", max_tokens=20, seed=0, use_cache=False))
    assert text
    assert not any(token in text for token in SPECIAL_TOKENS)


def test_no_character_is_cut():
    text = "né 你好 🙂!"
    (prompt,), (ids,) = BYTES.encode(["x"]), BYTES.encode([text])
    pieces = list(_pieces(BYTES, list(prompt), iter(ids), 99))
    assert "".join(pieces) == text
    assert pieces == list(text)
    # Bytes that end inside a character are shown when nothing more comes, and never drawn beyond the limit.
    drawn = iter(ids)
    assert "".join(_pieces(BYTES, list(prompt), drawn, 5)) == "né \N{REPLACEMENT CHARACTER}"
    assert next(drawn) == ids[5]


def test_words_get_their_spaces():
    (prompt,), (ids,) = WORDS.encode(["the cat"]), WORDS.encode(["sat on a mat"])
    assert list(_pieces(WORDS, list(prompt), iter(ids), 99)) == [" sat", " on", " a", " mat"]


def test_what_an_empty_prompt_begins_with():
    assert CHARACTERS.decode(first_tokens(CHARACTERS, "")) == "\n"
    assert first_tokens(WORDS, "") == [END]
    assert first_tokens(WORDS, "  \n") == [END]
    no_lines = Tokenizer(character(["abc"]).to_str())
    assert first_tokens(no_lines, "") == [END]


def test_unknown_parts_are_named():
    assert unknown_parts(CHARACTERS, "Żthe Ż?") == ["Ż", "?"]
    assert unknown_parts(WORDS, "the dog sat, dog") == ["dog", ","]
    assert unknown_parts(BYTES, "Ż") == []


def test_layers_that_are_no_chain_are_read_without_a_cache():
    def skipping(inputs, vocabulary_size, max_length):
        x = keras.layers.Embedding(vocabulary_size, 6)(inputs)
        return keras.layers.Add()([x, keras.layers.LSTM(6, return_sequences=True)(x)])

    def both_ways(inputs, vocabulary_size, max_length):
        x = keras.layers.Embedding(vocabulary_size, 6)(inputs)
        return keras.layers.LSTM(6, return_sequences=True, go_backwards=True)(x)

    for architecture in (skipping, both_ways):
        model = language_model(architecture)
        assert cached_reader(model, LENGTH) is None
        assert "".join(generate(model, CHARACTERS, "the", max_tokens=5, seed=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 0.0}, r"top_p 0\.0"),
        ({"top_p": 1.1}, r"top_p 1\.1"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"prompt": "a\udcff"}, "no valid UTF-8.*character 1"),
    ],
)
def test_wrong_options_are_refused_at_once(model, options, message):
    with pytest.raises(DlcliError, match=message):
        generate(model, CHARACTERS, **{"prompt": "the", **options})


def test_other_models_are_refused(model):
    classifier = keras.Model(model.input, keras.layers.GlobalAveragePooling1D()(model.output))
    with pytest.raises(DlcliError, match="no language model"):
        generate(classifier, CHARACTERS, "the")
    with pytest.raises(DlcliError, match="not finite"):
        Sampling().draw(np.full(9, np.nan), np.random.default_rng(0))


@pytest.fixture
def run(model, tmp_path) -> Path:
    changes = [
        "task=language_modeling",
        "dataset={name: text_file, path: x.txt}",
        f"architecture={json.dumps({'name': 'gpt', **GPT})}",
    ]
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("shakespeare_gpt", changes)))
    model.save(tmp_path / "model.keras")
    return tmp_path


def test_the_command_writes_text(run, capsys):
    generate_command(run, "the Ż", temperature=1.0, max_tokens=12, seed=5)
    shown = capsys.readouterr()
    assert "'Ż'" in shown.err
    generate_command(run, "the Ż", temperature=1.0, max_tokens=12, seed=5, json_=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["seed"] == 5
    assert shown.out == f"the Ż{answer['text']}\n"
    assert 0 < len(answer["text"]) <= 12


def test_the_command_refuses_other_runs(tmp_path):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("iris_mlp")))
    with pytest.raises(DlcliError, match="its task is tabular_classification"):
        generate_command(tmp_path)
