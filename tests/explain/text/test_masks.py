"""Occlusion, LIME and SHAP of words: on a sum of known scores, each word gets its own."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.data.text.tokenizer import END, START
from dlcli.explain.text.masks import lime, occlusion, shap
from dlcli.explain.text.words import TextReader, sums_of_words

TEXT = "the film was wonderful , not dull of a boring mess"
LONG = f"{TEXT} and the plot was moving"


def test_occlusion_of_a_sum(linear):
    for subject, found, k in zip(
        texts := linear.read(TEXT, "a mess"), occlusion(linear.network, texts, [1, 0]), (1, 0), strict=True
    ):
        np.testing.assert_allclose(found.values, linear.scores(subject, k), atol=1e-5)
        assert found.signed
        assert found.base is None


@pytest.mark.parametrize("text", [TEXT, LONG])
def test_lime_of_a_sum(linear, text):
    (subject,) = linear.read(text)
    (found,) = lime(linear.network, [subject], [1], samples=500)
    expected = linear.scores(subject, 1)
    np.testing.assert_allclose(found.values, expected, rtol=0.05, atol=0.05 * np.abs(expected).max())
    assert found.scores["r2"] > 0.99
    assert found.scores["segments"] == len(subject.words)


@pytest.mark.parametrize("text", [TEXT, LONG])
def test_shap_of_a_sum(linear, text):
    (subject,) = linear.read(text)
    (found,) = shap(linear.network, [subject], [1], samples=500)
    assert found.scores["exact"] == (text is TEXT)
    np.testing.assert_allclose(found.values, linear.scores(subject, 1), atol=1e-4)
    assert found.base == pytest.approx(0, abs=1e-6)  # of a text without words


def test_of_nothing_a_language_model_reads_an_unknown_word(make):
    built = make("language")
    (subject,) = built.read("the")
    (found,) = shap(built.network, [subject], [3])
    assert found.base == pytest.approx(built.network.outputs(np.array([[1]], np.int32))[0, 3], abs=1e-4)


def test_a_word_that_changes_nothing_gets_nothing(linear):
    subject = TextReader(linear.tokenizer, 30, ((START,), (END,))).read("x", "the film was wonderful")
    for method in (occlusion, shap):
        (found,) = method(linear.network, [subject], [1])
        assert sums_of_words(subject, found.values)[2] == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(found.values[1:-1], linear.scores(subject, 1)[1:-1], atol=1e-5)
        assert found.values[0] == found.values[-1] == 0


def test_shapley_values_are_complete_for_networks(make):
    built = make("lstm")
    (subject,) = built.read("the film was wonderful , not dull")
    (found,) = shap(built.network, [subject], [0])
    whole = built.network.outputs(subject.inputs[None])[0, 0]
    assert found.values.sum() == pytest.approx(whole - found.base, abs=1e-4)
    assert found.scores["exact"] == 1


def test_probabilities_can_be_explained(make):
    built = make("lstm", probability=True)
    (subject,) = built.read("the film was wonderful")
    (found,) = shap(built.network, [subject], [1])
    assert 0 <= found.base <= 1
    assert abs(found.values).sum() <= 4


@pytest.mark.parametrize("method", [lime, shap])
def test_the_same_seed_gives_the_same_in_any_company(make, method):
    built = make("transformer")
    one, other = built.read(LONG, f"a boring {LONG}")
    options = {"samples": 60, "seed": 3}
    together = method(built.network, [other, one], [0, 1], **options)[1]
    (alone,) = method(built.network, [one], [1], **options)
    np.testing.assert_array_equal(together.values, alone.values)
    assert together.settings == {**options, "hidden": "removed"}
    (another,) = method(built.network, [one], [1], samples=60, seed=4)
    assert not np.array_equal(another.values, alone.values)


def test_the_next_token_of_a_language_model(make):
    built = make("language")
    (subject,) = built.read("the film was")
    token = int(built.network.outputs(subject.inputs[None])[0].argmax())
    (found,) = occlusion(built.network, [subject], [token])
    whole, without = (
        built.network.outputs(built.tokenizer.encode([text])[0][None])[0, token]
        for text in ("the film was", "the was")
    )
    assert sums_of_words(subject, found.values)[1] == pytest.approx(whole - without, abs=1e-4)
