"""Reports of language models: every token counts once, numbers by hand, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.data.text.sequences import TokenWindows
from dlcli.data.text.texts import Texts
from dlcli.evaluation.language import (
    count_characters,
    evaluate_language_model,
    plot_loss_by_position,
    score_tokens,
)
from dlcli.evaluation.replaced_tokens import area_under_roc

VOCABULARY = 6
PROBABILITIES = np.array([0.05, 0.1, 0.3, 0.25, 0.2, 0.1])


def bigram() -> keras.Model:
    """After token i, the probabilities stand shifted by i: loss and accuracy can be counted by hand."""
    inputs = keras.Input((None,), dtype="int32")
    table = np.log(np.stack([np.roll(PROBABILITIES, shift) for shift in range(VOCABULARY)]))
    layer = keras.layers.Embedding(VOCABULARY, VOCABULARY, weights=[table.astype("float32")])
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize(
    ("tokens", "windows", "examples"), [(41, 10, 10), (43, 10, 11), (5, 10, 1), (2, 10, 1)]
)
def test_every_token_but_the_first_counts_once(
    tokens: int, windows: int, examples: int, tmp_path: Path
) -> None:
    ids = np.random.default_rng(0).integers(1, VOCABULARY, tokens).astype("int32")
    losses = -np.log(PROBABILITIES[(ids[1:] - ids[:-1]) % VOCABULARY])
    hits = (ids[1:] - ids[:-1]) % VOCABULARY == 2
    report = evaluate_language_model(bigram(), TokenWindows(ids, 4, 4), ids, 2 * tokens, "test", tmp_path)
    metrics = report["metrics"]
    assert metrics["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-5)
    assert metrics["bits_per_character"] == pytest.approx(losses.mean() / np.log(2) / 2, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(hits.mean())
    assert (report["examples"], report["tokens"], report["characters"]) == (examples, tokens, 2 * tokens)
    if examples > 1:
        for name, (low, high) in report["intervals"].items():
            assert low < metrics[name] < high


def test_intervals_cover_the_spread_of_windows(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(1, VOCABULARY, 4001).astype("int32")
    losses = -np.log(PROBABILITIES[(ids[1:] - ids[:-1]) % VOCABULARY]).reshape(-1, 4).mean(axis=1)
    report = evaluate_language_model(bigram(), TokenWindows(ids, 4, 4), ids, 1, "test", tmp_path)
    low, high = report["intervals"]["loss"]
    assert high - low == pytest.approx(2 * 1.96 * losses.std() / np.sqrt(len(losses)), rel=0.12)


def test_scores_by_position_of_windows_of_different_lengths() -> None:
    batches: list[tuple[Any, Any]] = [
        (np.array([[1, 2, 3]]), np.array([[3, 0, 3]])),
        (np.array([[2], [2]]), np.array([[4], [0]])),
    ]
    scores = score_tokens(bigram(), [(np.int32(ids), np.int32(targets)) for ids, targets in batches])
    hit, same = -np.log(PROBABILITIES[2]), -np.log(PROBABILITIES[0])
    np.testing.assert_allclose(scores.losses, [hit + same, hit, 0], rtol=1e-5)
    np.testing.assert_array_equal(scores.hits, [1, 1, 0])
    np.testing.assert_array_equal(scores.counts, [2, 1, 0])
    np.testing.assert_allclose(scores.position_losses, [2 * hit, 0, same], rtol=1e-5)
    np.testing.assert_array_equal(scores.position_counts, [2, 0, 1])


def test_characters_are_code_points() -> None:
    texts = Texts.of(["naïve", "", "机器学习", "🙂!"])
    assert count_characters(texts) == 11
    assert count_characters(texts.subset(np.array([2]))) == 4


def test_area_under_roc_counts_ties_half() -> None:
    assert area_under_roc(np.array([2, 1, 0]), np.array([0, 1, 1])) == pytest.approx((2 + 0.5 + 3) / 6)
    assert area_under_roc(np.array([1, 0]), np.zeros(2)) is None


@pytest.mark.parametrize("length", [3, 300])
def test_the_picture_is_drawn(length: int, tmp_path: Path) -> None:
    losses = np.linspace(3, 1, length)
    losses[1] = np.nan
    plot_loss_by_position(losses, 2.0, tmp_path / "loss.png")
    assert np.asarray(Image.open(tmp_path / "loss.png").convert("L")).std() > 5
