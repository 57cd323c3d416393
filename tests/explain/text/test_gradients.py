"""Integrated gradients of texts: known scores, complete sums, n-grams and special tokens."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.data.text.tokenizer import END, START
from dlcli.errors import DlcliError
from dlcli.explain.text.gradients import _of_tokens, _words_inside, integrated_gradients
from dlcli.explain.text.words import TextReader

TEXT = "the film was wonderful , not dull"


def test_scores_of_a_sum(linear):
    subjects = linear.read(TEXT, "a boring mess")
    for subject, found, k in zip(
        subjects, integrated_gradients(linear.network, subjects, np.array([1, 0])), (1, 0), strict=True
    ):
        away = linear.unknown[k] if found.settings["baseline"] == "unknown words" else 0
        np.testing.assert_allclose(found.values, linear.scores(subject, k) - away, atol=1e-5)
        assert found.base == pytest.approx(away * len(subject.inputs), abs=1e-5)


@pytest.mark.parametrize("kind", ["ngrams", "lstm", "transformer", "pooled", "language"])
def test_attributions_sum_to_the_change(make, kind):
    built = make(kind)
    subjects = built.read(TEXT, "a boring mess of a plot", "the")
    outputs = np.array([1, 0, 1])
    for subject, output, found in zip(
        subjects, outputs, integrated_gradients(built.network, subjects, outputs), strict=True
    ):
        whole = built.network.outputs(subject.inputs[None])[0, output]
        assert found.values.shape == subject.inputs.shape
        assert found.values.sum() == pytest.approx(whole - found.base, rel=0.01, abs=1e-3)
        assert np.abs(found.values).max() > 1e-3
        assert not found.warnings


def test_more_steps_come_nearer(make):
    built = make("transformer")
    subjects = built.read(TEXT)
    whole = built.network.outputs(subjects[0].inputs[None])[0, 1]
    errors = []
    for steps in (2, 64):
        (found,) = integrated_gradients(built.network, subjects, np.array([1]), steps=steps)
        assert found.settings["steps"] == steps
        errors.append(abs(found.values.sum() - (whole - found.base)))
        assert not found.warnings
    assert errors[1] < errors[0] / 10


def test_an_incomplete_sum_is_said(make, monkeypatch):
    built = make("transformer")
    monkeypatch.setattr("dlcli.explain.text.gradients.COMPLETE", 1e-9)
    (found,) = integrated_gradients(built.network, built.read(TEXT), np.array([1]), steps=2)
    assert "give more --steps" in found.warnings[0]


def test_special_tokens_get_nothing(make):
    built = make("transformer", ends=((START,), (END,)))
    subjects = built.read(TEXT)
    (found,) = integrated_gradients(built.network, subjects, np.array([1]))
    assert found.values[0] == found.values[-1] == 0
    assert np.abs(found.values[1:-1]).min() > 0


def test_other_texts_change_nothing(make):
    built = make("lstm")
    texts = built.read(TEXT, "a boring mess", "a plot")
    together = integrated_gradients(built.network, texts, np.array([1, 1, 0]))
    (alone,) = integrated_gradients(built.network, texts[1:2], np.array([1]))
    np.testing.assert_array_equal(together[1].values, alone.values)


def test_an_n_gram_is_shared_by_its_words():
    real = np.array([True, True, False, True])
    words = _words_inside(real, 8)
    #          tokens             bigrams: 0+1, 1+2, 2+3, 3+end
    entered = np.array([1.0, 2, 0, 4, 10, 20, 30, 0])
    np.testing.assert_allclose(_of_tokens(entered, words), [1 + 5, 2 + 5 + 20, 0, 4 + 30])


def test_the_baseline_of_which_the_model_is_less_sure(linear):
    reader = TextReader(linear.tokenizer, 30, ((START,), (END,)))
    subjects = [reader.read("x", TEXT)]
    table = linear.model.get_layer("scores").get_weights()[0]
    sure = table.copy()
    sure[1] = [5, -5]  # <unk> speaks loudly for one class
    linear.model.get_layer("scores").set_weights([sure])
    try:
        (found,) = integrated_gradients(linear.network, subjects, np.array([0]))
    finally:
        linear.model.get_layer("scores").set_weights([table])
    assert found.settings["baseline"] == "zero embeddings"
    scores = linear.scores(subjects[0], 0)
    assert found.base == pytest.approx(scores[[0, -1]].sum(), abs=1e-6)  # special tokens stay
    np.testing.assert_allclose(found.values[1:-1], scores[1:-1], atol=1e-5)
    assert found.values[0] == found.values[-1] == 0


def test_without_an_embedding_it_is_refused(make):
    built = make("linear")
    built.network.layers = [seen for seen in built.network.layers if seen.name != "scores"]
    with pytest.raises(DlcliError, match="occlusion"):
        integrated_gradients(built.network, built.read(TEXT), np.array([0]))
