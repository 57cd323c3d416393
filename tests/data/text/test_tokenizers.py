"""What the tokenizers make of text: every script, every white space, and nothing learnt from elsewhere."""

from __future__ import annotations

import resource
from pkgutil import resolve_name

import numpy as np
import pytest

from dlcli.data import TOKENIZERS
from dlcli.data.text import tokenizers
from dlcli.data.text.tokenizer import END, MASK, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

TEXTS = ["Don't  stop: 你好世界 abc中文\nnext\tline 😀 été", "The cat's tail, the cat."] * 6


def learn(name: str, **arguments: object) -> Tokenizer:
    if name != "byte":
        arguments = {"vocabulary_size": 400, **arguments}
    return Tokenizer(resolve_name(TOKENIZERS[name])(iter(TEXTS), **arguments).to_str())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_have_fixed_ids_and_are_not_decoded(name):
    tokenizer = learn(name)
    assert [tokenizer.token(index) for index in range(5)] == list(SPECIAL_TOKENS)
    assert (PAD, UNKNOWN, START, END, MASK) == (0, 1, 2, 3, 4)
    (ids,) = tokenizer.encode(["the cat"])
    assert ids.dtype == np.int32
    assert ids.min() > MASK
    assert tokenizer.decode([START, *ids, END, PAD, PAD]) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["character", "byte", "bpe", "unigram"])
def test_nothing_is_lost(name):
    tokenizer = learn(name)
    ids = tokenizer.encode(TEXTS[:2])
    assert tokenizer.decode_batch(ids) == TEXTS[:2]


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_no_text_is_unknown(name):
    tokenizer = learn(name)
    (ids,) = tokenizer.encode(["Ωmega 🦉 \x00"])
    assert UNKNOWN not in ids
    assert tokenizer.decode(ids) == "Ωmega 🦉 \x00"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_that_spells_a_special_token_is_text(name):
    (ids,) = learn(name).encode(["the <end> <pad>"])
    assert not {PAD, START, END, MASK} & set(ids.tolist())


def test_words_keep_apostrophes_and_split_scripts_without_spaces():
    tokenizer = learn("word")
    (ids,) = tokenizer.encode(["Don't stop: 你好abc中文"])
    assert [tokenizer.token(index) for index in ids] == ["don't", "stop", ":", "你", "好", "abc", "中", "文"]
    assert tokenizer.encode(["zebra"])[0].tolist() == [UNKNOWN]


def test_an_empty_text_has_no_tokens():
    for name in TOKENIZERS:
        assert learn(name).encode([""])[0].tolist() == []


def test_options_change_the_vocabulary():
    assert learn("word", lowercase=False).encode(["the"]) != learn("word", lowercase=True).encode(["the"])
    assert learn("word", min_frequency=7).vocabulary_size < learn("word").vocabulary_size
    assert learn("word", vocabulary_size=10).vocabulary_size == 10
    assert learn("bpe", min_frequency=100).vocabulary_size == 256 + 5
    for name in ("character", "byte", "bpe", "unigram"):
        upper, lower = learn(name, lowercase=True).encode(["THE", "the"])
        assert upper.tolist() == lower.tolist()
        upper, lower = learn(name, lowercase=False).encode(["THE", "the"])
        assert upper.tolist() != lower.tolist()
    assert learn("wordpiece", lowercase=False).encode(["The"]) != learn("wordpiece").encode(["The"])


def test_a_vocabulary_too_small_for_all_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 261"):
        tokenizers.bpe(TEXTS, vocabulary_size=100)
    with pytest.raises(
        ValueError, match=r"not large enough to contain all chars. Received: vocabulary_size 8"
    ):
        tokenizers.unigram(TEXTS, vocabulary_size=8)


def test_long_words_are_learnt_in_parts():
    """Unigram took a gigabyte and half a minute to learn from a word of a million letters."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    learnt = Tokenizer(tokenizers.unigram(["a" * 500_000] * 2, vocabulary_size=30).to_str())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    assert learnt.decode(learnt.encode(["aaa"])[0]) == "aaa"
    assert " " not in tokenizers.character(["a" * 20_001], vocabulary_size=30).get_vocab()


def test_offsets_are_the_characters_of_each_token():
    text = "The cat's 你好"
    ((ids, offsets),) = learn("word").encode_with_offsets([text])
    assert [text[start:end] for start, end in offsets] == ["The", "cat's", "你", "好"]
    assert len(ids) == 4


def test_which_tokens_begin_words():
    pieces = Tokenizer(tokenizers.wordpiece(["unbelievable unbeliever"] * 5, vocabulary_size=30).to_str())
    begins = pieces.begins_words()
    assert [pieces.token(index).startswith("##") for index in range(len(begins))] == (~begins).tolist()
    assert learn("word").begins_words().all()
