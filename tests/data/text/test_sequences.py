"""Texts -> tokens in a cache -> padded batches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.cache import cache_folder
from dlcli.data.examples import DataInfo
from dlcli.data.load import split_indices
from dlcli.data.stream import by_length, training_stream
from dlcli.data.text import vocabulary
from dlcli.data.text.sequences import TokenPairs, TokenSequences, TokenWindows, padded
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.vocabulary import TokenTexts, encode_texts, learn_vocabulary
from dlcli.errors import DataError
from dlcli.recipe.schema import Spec

WORD = Spec.model_validate({"name": "word", "vocabulary_size": 50, "lowercase": True, "min_frequency": 1})


def tokens(*rows: list[int]) -> TokenTexts:
    ends = np.cumsum([len(row) for row in rows])
    lengths = np.diff(ends, prepend=0)
    return TokenTexts(np.concatenate(rows).astype(np.int32), ends - lengths, lengths)


def test_texts_hold_any_string_and_subsets_are_views():
    texts = Texts.of(["", "é中😀", "a\nb", "lone \ud800"])
    assert [texts[index] for index in range(3)] == ["", "é中😀", "a\nb"]
    assert texts[3] == "lone ?"
    part = texts.subset(np.array([2, 0]))
    assert [part[0], part[1]] == ["a\nb", ""]
    assert part.data is texts.data
    assert texts.digest() != Texts.of(["", "é中😀a", "\nb", "lone ?"]).digest()


def test_chunks_are_bounded_in_texts_and_bytes(monkeypatch):
    monkeypatch.setattr("dlcli.data.text.texts.CHUNK_BYTES", 10)
    texts = Texts.of(["a" * 6, "b" * 6, "c", "d" * 30, "e"])
    assert list(texts.chunks(2)) == [["a" * 6], ["b" * 6, "c"], ["d" * 30], ["e"]]


def test_the_vocabulary_is_that_of_the_train_split_and_kept():
    train = TextExamples({"text": Texts.of(["one two", "two three"])}, np.zeros(2, np.int32))
    tokenizer = learn_vocabulary(WORD, train)
    assert tokenizer.encode(["two four"])[0].tolist() == [
        5,
        1,
    ]  # the most frequent word first; four is unknown
    kept = list(cache_folder(vocabulary.CACHE).glob("*.json"))
    assert learn_vocabulary(WORD, train).json == tokenizer.json
    for path in kept:
        path.write_text("damaged")
    assert learn_vocabulary(WORD, train).json == tokenizer.json


def test_tokens_are_made_once_and_mapped(monkeypatch):
    texts = Texts.of(["one two", "", "two"])
    tokenizer = learn_vocabulary(WORD, TextExamples({"text": texts}, np.zeros(3, np.int32)))
    first = encode_texts(texts, tokenizer)
    monkeypatch.setattr(type(tokenizer), "encode", lambda *_: pytest.fail("tokenized again"))
    again = encode_texts(texts, tokenizer)
    assert isinstance(again.ids, np.memmap)
    assert [again[index].tolist() for index in range(3)] == [first[index].tolist() for index in range(3)]
    assert again.lengths.tolist() == [2, 0, 1]


def test_a_full_cache_keeps_tokens_in_memory(monkeypatch):
    monkeypatch.setenv("DLCLI_CACHE_LIMIT", "1")
    texts = Texts.of(["one two three four five", "two"])
    tokenizer = learn_vocabulary(WORD, TextExamples({"text": texts}, np.zeros(2, np.int32)))
    found = encode_texts(texts, tokenizer)
    assert found.lengths.tolist() == [5, 1]
    assert not isinstance(found.ids, np.memmap)


def test_batches_are_padded_to_their_own_longest_and_cut_at_the_maximum():
    sequences = TokenSequences(tokens([5, 6, 7, 8, 9], [5], [], [6, 7]), 4, np.arange(4))
    assert sequences.read(tf.constant([1, 3])).numpy().tolist() == [[5, 0], [6, 7]]
    assert sequences.read(tf.constant([0, 2])).numpy().tolist() == [[5, 6, 7, 8], [1, 0, 0, 0]]
    assert sequences.lengths.tolist() == [4, 1, 1, 2]
    assert sequences.num_cut == 1
    part = sequences.subset(np.array([3, 0]))
    assert part.read(tf.constant([0])).numpy().tolist() == [[6, 7]]
    assert part.targets.tolist() == [3, 0]


def test_special_tokens_stay_when_a_text_is_cut():
    rows = [5, 6, 7, 8, 9], [5], []
    sequences = TokenSequences(tokens(*rows), 4, np.arange(3), (2,), (3,))
    expected = [[2, 5, 6, 3], [2, 5, 3, 0], [2, 3, 0, 0]]
    assert sequences.read(tf.range(3)).numpy().tolist() == expected
    assert padded([np.array(row) for row in rows], 4, (2,), (3,)).tolist() == expected
    assert padded([np.array([], int)], 4).tolist() == [[1]]


def test_windows_are_followed_by_their_targets():
    windows = TokenWindows(np.arange(10, 21), 4, 2)
    assert windows.read(tf.range(len(windows))).numpy()[:, 0].tolist() == [10, 12, 14, 16]
    assert windows.read_targets(tf.constant([3])).numpy().tolist() == [[17, 18, 19, 20]]
    assert TokenWindows(np.arange(3), 64, 1).read(tf.constant([0])).numpy().tolist() == [[0, 1]]


def test_pairs_pad_each_side_to_its_own_longest():
    sides = {
        "source": TokenSequences(tokens([5], [5, 6]), 8, np.zeros(2), (), (3,)),
        "target": TokenSequences(tokens([7, 8, 9], [7]), 8, np.zeros(2), (2,)),
    }
    pairs = TokenPairs(sides, TokenSequences(tokens([7, 8, 9], [7]), 8, np.zeros(2), (), (3,)))
    read = pairs.read(tf.constant([0, 1]))
    assert read["source"].numpy().tolist() == [[5, 3, 0], [5, 6, 3]]
    assert read["target"].numpy().tolist() == [[2, 7, 8, 9], [2, 7, 0, 0]]
    assert pairs.read_targets(tf.constant([0, 1])).numpy().tolist() == [[7, 8, 9, 3], [7, 3, 0, 0]]
    assert pairs.subset(np.array([1])).lengths.tolist() == [5]


def make_sequences(count: int) -> TokenSequences:
    random = np.random.default_rng(0)
    lengths = random.geometric(0.05, count)
    return TokenSequences(
        tokens(*[[7] * length for length in lengths]), 1000, np.arange(count, dtype=np.int32)
    )


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_every_sequence_comes_once_an_epoch(count):
    sequences = make_sequences(count)
    steps = -(-count // 4)
    stream = training_stream(sequences, batch_size=4, seed=3)
    first, second = (
        [targets.numpy() for _, targets in stream.skip(epoch * steps).take(steps)] for epoch in (0, 1)
    )
    for epoch in (first, second):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(count))
    if count > 7:
        assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]


def test_batches_of_like_length_waste_little_and_come_in_random_order():
    sequences = make_sequences(1000)
    batches = [inputs.numpy() for inputs, _ in training_stream(sequences, batch_size=8, seed=0).take(125)]
    shares = [np.mean(batch == 0) for batch in batches]
    assert np.mean(shares) < 0.1
    widths = np.array([batch.shape[1] for batch in batches])
    assert abs(np.corrcoef(widths[:-1], widths[1:])[0, 1]) < 0.3
    plain = [
        inputs.numpy() for inputs, _ in training_stream(_Unsorted(sequences), batch_size=8, seed=0).take(125)
    ]
    assert np.mean([np.mean(batch == 0) for batch in plain]) > 0.4


def test_a_stream_goes_on_where_another_stopped():
    sequences = make_sequences(50)
    whole = [
        targets.numpy().tolist() for _, targets in training_stream(sequences, batch_size=4, seed=1).take(30)
    ]
    rest = training_stream(sequences, batch_size=4, seed=1, start_step=17).take(13)
    assert [targets.numpy().tolist() for _, targets in rest] == whole[17:]


def test_sorted_for_evaluation_and_back():
    sequences = make_sequences(20)
    ordered, order = by_length(sequences)
    assert (np.diff(ordered.lengths) <= 0).all()
    assert ordered.targets.tolist() == order.tolist()


class _Unsorted:
    """The same sequences, whose lengths the stream does not see."""

    def __init__(self, sequences: TokenSequences) -> None:
        self.targets, self.read = sequences.targets, sequences.read

    def __len__(self) -> int:
        return len(self.targets)


def test_a_continuous_text_is_split_at_its_end():
    info = DataInfo("text", (), "text", continuous=True)
    train, validation = split_indices(np.zeros(10, np.int32), 0.2, 0, info)
    assert [*train, *validation] == list(range(10))
    assert len(validation) == 2
    with pytest.raises(DataError, match="leaves none for validation"):
        split_indices(np.zeros(1, np.int32), 0.2, 0, info)
