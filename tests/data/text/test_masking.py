"""Masking: shares, whole words, and that it is a function of the seed, the epoch and the example alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.augmentation import Position
from dlcli.data.text.masking import FIRST_WORD, mark_tokens, mask_tokens, swap_tokens
from dlcli.data.text.tokenizer import END, MASK, START

VOCABULARY = 1000
RATE = 0.15


def position(indices: Any, *, seed: int = 0, epoch: int = 0, step: int = 0) -> Position:
    return Position.of(
        seed, tf.constant(step, tf.int64), tf.constant(epoch, tf.int64), tf.constant(indices, tf.int32)
    )


def mask(ids: np.ndarray, place: Position, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    options = {"rate": RATE, "vocabulary_size": VOCABULARY, **options}
    marked, targets = mask_tokens(tf.constant(ids), tf.zeros([len(ids)], tf.int32), place, **options)
    return marked.numpy(), targets.numpy()


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    found = np.random.default_rng(0).integers(FIRST_WORD, VOCABULARY, (400, 128)).astype("int32")
    found[:, 0], found[:, 60], found[:, 120:] = START, END, 0
    return found


def test_shares_are_those_of_bert(ids: np.ndarray) -> None:
    marked, targets = mask(ids, position(range(400)))
    chosen = targets != 0
    np.testing.assert_array_equal(chosen, marked < 0)
    np.testing.assert_array_equal(marked[~chosen], ids[~chosen])
    np.testing.assert_array_equal(targets[chosen], ids[chosen])
    assert not chosen[ids < FIRST_WORD].any()
    words = (ids >= FIRST_WORD).sum()
    assert chosen.sum() / words == pytest.approx(RATE, abs=0.006)  # 3.5 standard deviations
    hidden, original = -marked[chosen], ids[chosen]
    assert (hidden == MASK).mean() == pytest.approx(0.8, abs=0.017)
    assert (hidden == original).mean() == pytest.approx(0.1, abs=0.013)
    random = hidden[(hidden != MASK) & (hidden != original)]
    assert len(random) / len(hidden) == pytest.approx(0.1, abs=0.013)
    assert random.min() >= FIRST_WORD
    assert random.max() < VOCABULARY
    assert np.histogram(random, 5, (FIRST_WORD, VOCABULARY))[0].min() > 0.75 * len(random) / 5


def test_an_example_is_masked_alike_in_every_batch(ids: np.ndarray) -> None:
    whole, _ = mask(ids, position(range(400)))
    part, _ = mask(ids[[7, 3, 250], :90], position([7, 3, 250], step=5))
    np.testing.assert_array_equal(part, whole[[7, 3, 250], :90])
    assert (mask(ids, position(range(400), seed=1))[0] != whole).any()


def test_only_dynamic_masks_change_with_the_epoch(ids: np.ndarray) -> None:
    one, two = (mask(ids, position(range(400), epoch=epoch))[1] != 0 for epoch in (0, 1))
    both = (one & two).sum() / (ids >= FIRST_WORD).sum()
    assert both == pytest.approx(RATE**2, abs=0.003)
    static = [mask(ids, position(range(400), epoch=epoch), dynamic=False)[0] for epoch in (0, 1)]
    np.testing.assert_array_equal(*static)


def test_choices_of_neighbours_are_independent() -> None:
    ids = np.full((2000, 64), FIRST_WORD, "int32")
    chosen = (mask(ids, position(range(2000)))[1] != 0).astype(float)
    for one, other in (
        (chosen[:, :-1], chosen[:, 1:]),
        (chosen[:-1], chosen[1:]),
        (chosen[::2], chosen[1::2]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.012
    assert chosen.sum(axis=1).var() == pytest.approx(64 * RATE * (1 - RATE), rel=0.12)  # binomial


def test_whole_words_are_chosen_together(ids: np.ndarray) -> None:
    begins = np.arange(VOCABULARY) % 3 == 0  # words of three pieces in the mean
    _, targets = mask(ids, position(range(400)), begins_words=begins)
    chosen = targets != 0
    special = ids < FIRST_WORD
    goes_on = ~begins[ids[:, 1:]] & ~special[:, 1:] & ~special[:, :-1]
    assert (chosen[:, 1:] == chosen[:, :-1])[goes_on].all()
    assert (chosen[:, 1:] != chosen[:, :-1])[~goes_on & ~special[:, 1:] & ~special[:, :-1]].any()
    assert (chosen[:, 61] != chosen[:, 59]).any()  # no word reaches over <end>
    assert not chosen[special].any()
    assert chosen.sum() / (~special).sum() == pytest.approx(RATE, abs=0.012)


def test_marking_keeps_the_ids(ids: np.ndarray) -> None:
    marked, targets = mark_tokens(tf.constant(ids), tf.zeros([400]), position(range(400)), rate=RATE)
    np.testing.assert_array_equal(np.abs(marked), ids)
    np.testing.assert_array_equal(targets, ids)
    assert (marked.numpy() < 0).mean() == pytest.approx(RATE * (ids >= FIRST_WORD).mean(), abs=0.006)


def test_swapping_says_what_changed(ids: np.ndarray) -> None:
    swapped, states = (
        each.numpy()
        for each in swap_tokens(tf.constant(ids), tf.zeros([400]), position(range(400)), rate=RATE)
    )
    np.testing.assert_array_equal(states == 2, swapped != ids)
    np.testing.assert_array_equal(states == 0, ids == 0)
    np.testing.assert_array_equal(swapped[ids < FIRST_WORD], ids[ids < FIRST_WORD])
    assert swapped[states == 2].min() >= FIRST_WORD
    assert 0.11 < (states == 2).mean() < 0.15 * 0.93  # some draw a special token and stay
