"""Filling `<mask>` and finding replaced tokens, with models whose answers are known."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.text.tokenizer import MASK, START, Tokenizer
from dlcli.data.text.tokenizers import bpe, character, unigram, word
from dlcli.evaluation.fill_mask import _marks_spaces, _with_masks
from dlcli.evaluation.predict_text import Reader, predict_texts
from dlcli.evaluation.prediction_files import prediction_record
from dlcli.layers.tokens import Tokens
from dlcli.recipe.schema import Recipe

TEXTS = ["the film was very good", "the plot was very bad", "the film and the plot"] * 20


@keras.saving.register_keras_serializable("tests")
class NextToken(keras.layers.Layer):
    """Logits (B, T, V) that favour the id after the one before: after 5 comes 6."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, ids):
        before = keras.ops.pad(ids[:, :-1], [[0, 0], [1, 0]])
        return 10.0 * keras.ops.one_hot(before + 1, self.size) + 5.0 * keras.ops.one_hot(
            before + 2, self.size
        )


def recipe(task):
    dataset = {"name": "text_csv", "tokenizer": "word", "max_length": 8}
    return Recipe(task=task, dataset=dataset, architecture="rnn")


def model_of(tokenizer, outputs, max_length=8):
    ids = keras.Input((None,), dtype="int32", name="tokens")
    return keras.Model(ids, outputs(Tokens(tokenizer.json, max_length, name="tokenizer")(ids)))


@pytest.fixture(scope="module")
def words():
    return Tokenizer(word(TEXTS).to_str())


def test_each_mask_gets_the_best_tokens_of_its_place(words):
    model = model_of(words, NextToken(words.vocabulary_size))
    order = [words.token(index) for index in range(words.vocabulary_size)]
    first, second = order[6], order[7]
    inputs = [f"{order[5]} <mask>", f"{order[5]}<mask>{first} <mask>", "no place to fill", "<mask>"]
    rows = [
        prediction_record(row) for row in predict_texts(model, recipe("masked_language_modeling"), inputs)
    ]
    best = rows[0]["masks"][0]
    assert [each["token"] for each in best[:2]] == [first, second]
    expected = np.exp(10) / (np.exp(10) + np.exp(5) + words.vocabulary_size - len(order[:5]) - 2)
    assert best[0]["probability"] == pytest.approx(expected, rel=1e-4)
    assert rows[0]["filled"] == f"{order[5]} {first}"
    assert rows[0]["text"].startswith(f"{first} 99.")
    assert [mask[0]["token"] for mask in rows[1]["masks"]] == [first, second]
    assert rows[2]["error"] == "holds no <mask> to fill in"
    # Behind `<start>` the model wants `<end>`, but special tokens are never filled in.
    assert not any(each["token"].startswith("<") for each in rows[3]["masks"][0])


def test_a_mask_behind_the_longest_text_is_no_surprise(words):
    model = model_of(words, NextToken(words.vocabulary_size))
    (row,) = predict_texts(model, recipe("masked_language_modeling"), ["the " * 7 + "<mask>"])
    assert row.error == "holds no <mask> to fill in within the tokens that the model reads"
    (row,) = predict_texts(model, recipe("masked_language_modeling"), ["the " * 6 + "<mask>"])
    assert row.error is None


@pytest.mark.parametrize("learn", [word, bpe, unigram, character])
def test_a_mask_stands_for_a_token_as_it_stands_in_a_text(learn):
    settings = {"vocabulary_size": 300} if learn is bpe else {"vocabulary_size": 60}
    tokenizer = Tokenizer(learn(TEXTS, **settings).to_str())
    reader = Reader.of(model_of(tokenizer, NextToken(400)), "masked_language_modeling", {}, 5)
    ids = _with_masks("the <mask> was", reader, _marks_spaces(tokenizer))
    whole = tokenizer.encode(["the film was" if learn is not character else "the f was"])[0]
    place = int(np.flatnonzero(ids == MASK)[0])
    np.testing.assert_array_equal(ids[:place], whole[:place])
    after = len(ids) - place - 1
    np.testing.assert_array_equal(ids[place + 1 :], whole[len(whole) - after :])
    assert reader.num_texts == 1


def test_replaced_tokens_are_marked_where_they_stand(words):
    odd = words.encode(["plot"])[0][0]

    def outputs(ids):
        is_odd = keras.ops.cast(keras.ops.equal(ids, int(odd)), "float32")
        return 0.9 * is_odd + 0.05 * keras.ops.cast(keras.ops.equal(ids, START), "float32")

    inputs = ["the plot was good", "the film", "the " * 9]
    rows = [
        prediction_record(row)
        for row in predict_texts(model_of(words, outputs), recipe("replaced_token_detection"), inputs)
    ]
    assert rows[0]["text"] == "the [plot 90%] was good"
    assert [each["probability"] for each in rows[0]["tokens"]] == pytest.approx([0, 0.9, 0, 0])
    assert rows[1]["text"] == "the film"
    assert len(rows[2]["tokens"]) == 7  # of eight one is <start>
