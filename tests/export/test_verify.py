"""Artefacts beside Keras: what counts as a difference, for each kind of output."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.export.verify import compare, latencies, limits, report

RANDOM = np.random.default_rng(0)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return (exponentials / exponentials.sum(-1, keepdims=True)).astype("float32")


PROBABILITIES = softmax(RANDOM.normal(0, 3, (200, 4)))
TARGETS = PROBABILITIES.argmax(-1).astype(np.int32)


def of_classes(found, tie=1e-4, targets=TARGETS):
    return compare(PROBABILITIES, found, "classes", {}, targets, tie)


def test_equal_outputs_pass_every_limit():
    same = of_classes(PROBABILITIES)
    assert (same.difference, same.agreement, same.keras_metric, same.worse) == (0, 1, 1, 0)
    for quantize in (None, "float16", "int8"):
        assert same.failures(limits(quantize, 0)) == []


def test_a_difference_of_more_than_the_limit_is_named():
    found = PROBABILITIES.copy()
    found[3, 0] += 2e-4
    (failure,) = of_classes(found).failures(limits(None))
    assert "0.0002" in failure
    assert "0.0001" in failure
    assert of_classes(found).failures(limits("float16")) == []


def test_a_class_that_changes_places_is_no_agreement():
    found = PROBABILITIES.copy()
    found[:10] = np.roll(found[:10], 1, axis=1)
    wrong = of_classes(found)
    assert wrong.agreement == pytest.approx(0.95)
    assert wrong.worse == pytest.approx(0.05)
    assert any("95.00%" in failure for failure in wrong.failures(limits(None)))


def test_a_tie_is_no_disagreement():
    expected = np.array([[0.50001, 0.49999]], "float32")
    flipped = np.array([[0.49999, 0.50001]], "float32")
    assert compare(expected, flipped, "classes", {}, np.array([0]), 1e-4).agreement == 1
    assert compare(expected, flipped, "classes", {}, np.array([0]), 1e-6).agreement == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_fail_whatever_the_tolerance(value):
    found = PROBABILITIES.copy()
    found[0, 0] = value
    broken = of_classes(found)
    for quantize in (None, "float16", "int8"):
        assert broken.failures(limits(quantize, 1e9))
    assert report(broken, limits(None), {}, {})["max_difference"] is None  # JSON has no infinity


def test_int8_is_judged_by_the_metric_alone():
    found = np.clip(PROBABILITIES + RANDOM.normal(0, 0.01, PROBABILITIES.shape), 0, 1)
    found[:4] = np.roll(PROBABILITIES[:4], 1, axis=1)  # 4 of 200 are wrong
    noisy = of_classes(found)
    worse = noisy.worse
    assert 0.015 < worse < 0.03
    assert noisy.failures(limits("int8", worse + 0.001)) == []
    (failure,) = noisy.failures(limits("int8", worse - 0.001))
    assert "--tolerance" in failure
    assert noisy.failures(limits(None))


def test_values_are_compared_on_their_own_scale():
    values = RANDOM.normal(200_000, 50_000, (100, 1))
    same = compare(values, values * (1 + 1e-6), "values", {}, values, 1e-4)
    assert same.failures(limits(None)) == []
    assert same.agreement is None
    assert same.metric == "mae"
    other = compare(values, values * (1 + 1e-3), "values", {}, values, 1e-4)
    assert other.failures(limits(None))


def test_an_error_is_worse_by_its_share():
    targets = np.zeros((50, 1))
    compared = compare(targets + 2, targets + 2.1, "values", {}, targets, 1e-4)
    assert compared.worse == pytest.approx(0.05)
    assert compared.failures(limits("int8", 0.06)) == []
    assert compared.failures(limits("int8", 0.04))


def test_padding_of_texts_does_not_count():
    tokens = np.array([[5, 6, 7], [8, 0, 0]])
    logits = RANDOM.normal(0, 3, (2, 3, 9))
    elsewhere = logits.copy()
    elsewhere[1, 1:] = 1e6
    targets = np.array([[6, 7, 0], [0, 0, 0]])
    same = compare(logits, elsewhere, "text", {"tokens": tokens}, targets)
    assert same.difference == 0
    assert same.agreement == 1
    chances = softmax(logits)
    expected = -np.log([chances[0, 0, 6], chances[0, 1, 7]]).mean()
    assert same.keras_metric == pytest.approx(expected, rel=1e-5)
    elsewhere[0, 2, 0] += 1
    assert compare(logits, elsewhere, "text", {"tokens": tokens}, targets).difference > 0.01


def test_of_a_translation_the_target_says_what_is_padding():
    inputs = {"source": np.ones((1, 4), int), "target": np.array([[2, 0]])}
    logits = RANDOM.normal(0, 1, (1, 2, 5))
    other = logits.copy()
    other[0, 1] += 5
    assert compare(logits, other, "text", inputs, np.array([[3, 0]])).difference == 0


def test_tags_are_scored_on_words():
    tokens = np.array([[2, 9, 9, 3]])
    chances = softmax(RANDOM.normal(0, 3, (1, 4, 3)))
    best = chances.argmax(-1)
    targets = np.array([[0, best[0, 1] + 1, 0, 0]])
    compared = compare(chances, chances, "tags", {"tokens": tokens}, targets)
    assert compared.keras_metric == 1
    assert (
        compare(chances, chances, "tags", {"tokens": tokens}, (targets % 3) + (targets > 0)).keras_metric == 0
    )


def test_an_answer_needs_its_start_and_its_end():
    chances = softmax(RANDOM.normal(0, 3, (6, 2, 7))).transpose(0, 2, 1)  # (N, T, 2)
    right = chances.argmax(1)
    half = right.copy()
    half[:3, 1] = (half[:3, 1] + 1) % 7
    assert compare(chances, chances, "spans", {}, right).keras_metric == 1
    assert compare(chances, chances, "spans", {}, half).keras_metric == 0.5


def test_without_a_metric_the_agreement_must_hold():
    tokens = {"tokens": np.ones((1, 100), int)}
    chances = np.full((1, 100), 0.9)
    other = chances.copy()
    other[0, :5] = 0.1
    compared = compare(chances, other, "text", tokens, None)
    assert compared.worse is None
    assert compared.agreement == pytest.approx(0.95)
    assert compared.failures(limits("int8", 0.01))


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"\(200, 4\)"):
        of_classes(PROBABILITIES[:, :3])


def test_latency_is_of_one_row_and_of_64(monkeypatch):
    seen = []
    taken = latencies(lambda inputs: seen.append(len(inputs["x"])) or inputs["x"], {"x": np.arange(10)})
    assert set(seen) == {1, 64}
    assert taken.keys() == {"one", "batch"}
    assert min(taken.values()) > 0
