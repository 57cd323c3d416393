"""Texts become the ids that `predict` reads, and every token belongs to a word as it stands in the text."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.data.text import tokenizers as kinds
from dlcli.data.text.tokenizer import END, PAD, START, Tokenizer
from dlcli.evaluation.predict_text import predict_texts
from dlcli.explain.attribution import Unreadable
from dlcli.explain.text.words import TextReader, Words, inputs_of_texts, split_by_tokens, sums_of_words
from dlcli.recipe.schema import Recipe

TEXTS = [
    "Don't go:  the re-made film\nwas unbelievably naïve.\n\n",
    "我很好 and 😀😀 fine, ok?",
    " leading and trailing ",
    "a\tb\r\nc <br />",
    "x",
]
CORPUS = ["the film was unbelievable", "an unbeatable film , the best", "don't go there"] * 3


def tokenizer(name):
    if name in ("bpe", "wordpiece", "unigram"):
        size = 300 if name == "bpe" else 40
        return Tokenizer(getattr(kinds, name)(CORPUS, vocabulary_size=size).to_str())
    return Tokenizer(getattr(kinds, name)(CORPUS + TEXTS).to_str())


@pytest.mark.parametrize("name", ["word", "character", "byte", "bpe", "wordpiece", "unigram"])
def test_words_and_what_is_between_them_are_the_text(name):
    vocabulary = tokenizer(name)
    for text in TEXTS:
        ((ids, offsets),) = vocabulary.encode_with_offsets([text])
        words, between, word_of = split_by_tokens(text, offsets)
        assert len(between) == len(words) + 1
        whole = between[0] + "".join(word + gap for word, gap in zip(words, between[1:], strict=True))
        assert whole == text[offsets[:, 0].min() : offsets[:, 1].max()]
        assert len(word_of) == len(ids)
        assert np.unique(word_of).tolist() == list(range(len(words)))  # every word has a token
        assert (np.diff(word_of) >= 0).all()
        assert all(words)


def words_of(name, text):
    ((_, offsets),) = tokenizer(name).encode_with_offsets([text])
    words, _, word_of = split_by_tokens(text, offsets)
    return words, word_of.tolist()


def test_pieces_of_a_word_are_joined_and_words_keep_their_case():
    words, word_of = words_of("wordpiece", "The UNBELIEVABLES good, don't")
    assert words == ("The", "UNBELIEVABLES", "good", ",", "don't")
    assert word_of.count(1) > 1  # un ##be ##li ...
    assert word_of.count(4) > 2  # don ' t


def test_scripts_without_spaces_and_bytes_of_one_character():
    words, word_of = words_of("byte", "我好😀x")
    assert words == ("我", "好", "😀", "x")
    assert word_of == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]


def test_spaces_belong_to_the_next_word_and_line_ends_to_none():
    words, word_of = words_of("character", "a film\n\nthe ")
    assert words == ("a", "film", "\n\n", "the", " ")
    assert word_of == [0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4]


def test_special_tokens_belong_to_no_word(make):
    built = make("transformer", ends=((START,), (END,)))
    (subject,) = built.read("The plot was terrific")
    assert subject.words == ("The", "plot", "was", "terrific")
    assert subject.word_of.tolist() == [-1, 0, 1, 2, 3, -1]
    assert subject.tokens == ("<start>", "the", "plot", "was", "<unk>", "<end>")
    assert subject.notes == ("1 of 4 words hold what the model's vocabulary lacks",)


def test_long_texts_are_cut_where_the_model_stops_reading(make):
    ends = ((START,), (END,))
    reader = TextReader(make("lstm").tokenizer, 5, ends)
    subject = reader.read("x", "the film was wonderful , the plot dull")
    assert subject.words == ("the", "film", "was")
    assert len(subject.inputs) == 5
    assert subject.notes == ("only the first 3 of its 8 tokens are read",)
    last = TextReader(reader.tokenizer, 5, keep="last").read("x", "the film was wonderful , the plot dull")
    assert last.words == ("wonderful", ",", "the", "plot", "dull")


def test_inputs_are_what_predict_reads(make):
    built = make("transformer")
    recipe = Recipe(
        task="text_classification",
        dataset={"name": "text_csv", "text": "text"},
        architecture={"name": "transformer"},
    )
    texts = ["The film was boring", "no word of this", "a wonderful , moving plot " * 9, "  "]
    subjects = list(inputs_of_texts(built.model, recipe, texts))
    predicted = list(predict_texts(built.model, recipe, texts))
    assert isinstance(subjects[3], Unreadable)
    assert subjects[3].error == predicted[3].error == "the text is empty"
    for subject, prediction in zip(subjects[:3], predicted[:3], strict=True):
        assert subject.name == prediction.input
        ours = built.network.probabilities(built.network.outputs(subject.inputs[None]))[0]
        np.testing.assert_allclose(ours, prediction.outputs, atol=1e-5)


def test_a_recipe_says_whether_ends_stand_around(make):
    built = make("transformer")
    recipe = Recipe(
        task={"name": "text_classification", "ends": True},
        dataset={"name": "text_csv", "text": "text"},
        architecture={"name": "transformer"},
    )
    (subject,) = inputs_of_texts(built.model, recipe, ["the film"])
    assert subject.inputs[[0, -1]].tolist() == [START, END]
    (subject,) = inputs_of_texts(built.model, None, ["the film"])
    assert len(subject.inputs) == 2


def test_a_prompt_keeps_its_last_space(make):
    built = make("language")
    (subject,) = inputs_of_texts(built.model, None, ["the film "])
    assert subject.words == ("the", "film", " ")


def test_what_cannot_be_read_says_why(make, tmp_path):
    built = make("lstm")
    (bad,) = built.read("film \udcff")
    assert isinstance(bad, Unreadable)
    assert "Unicode" in bad.error
    (none,) = inputs_of_texts(built.model, None, [str(tmp_path / "none.txt")])
    assert "no such file" in none.error


def test_hidden_words_are_removed(make):
    built = make("lstm")
    (subject,) = built.read("the film was dull , not wonderful")
    words = Words(built.network, subject, 1)
    generator = np.random.default_rng(0)
    present = generator.random((40, words.count)) < 0.5
    present[-1] = False
    values = words.value(present)
    for row, value in zip(present, values, strict=True):
        kept = " ".join(word for word, keep in zip(subject.words, row, strict=True) if keep)
        ids = np.append(built.tokenizer.encode([kept])[0], PAD)  # nothing but padding where no word is left
        assert value == pytest.approx(built.network.outputs(ids[None])[0, 1], abs=1e-5)
    assert np.ptp(values) > 0.1


def test_special_tokens_stay_when_all_words_are_hidden(make):
    built = make("transformer", ends=((START,), (END,)))
    (subject,) = built.read("the film was dull")
    words = Words(built.network, subject, 0)
    expected = built.network.outputs(np.array([[START, END]], np.int32))[0, 0]
    assert words.value(np.zeros((1, 4), bool))[0] == pytest.approx(expected, abs=1e-5)


def test_a_language_model_predicts_behind_what_is_left(make):
    built = make("language")
    (subject,) = built.read("the film was")
    words = Words(built.network, subject, 7)
    expected = built.network.outputs(built.tokenizer.encode(["the film"])[0][None])[0, 7]
    assert words.value(np.array([[True, True, False]]))[0] == pytest.approx(expected, abs=1e-5)


def test_spread_keeps_the_sums(make):
    reader = TextReader(tokenizer("wordpiece"), 20, ((START,), (END,)))
    subject = reader.read("x", "the unbeatables good film")
    each = np.array([1.0, -6.0, 0.5, 2.0])
    words = Words(make("lstm").network, subject, 0)
    values = words.spread(each)
    assert values.dtype == np.float32
    assert values.shape == subject.inputs.shape
    assert values[0] == values[-1] == 0
    np.testing.assert_allclose(sums_of_words(subject, values), each, rtol=1e-6)
