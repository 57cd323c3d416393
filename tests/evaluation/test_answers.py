"""Exact match, F1 and the best span, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.evaluation.answers import (
    Spans,
    answers_report,
    best_span,
    best_span_of_each,
    exact_match,
    f1_score,
    normalize_answer,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Norman  conquest!", "norman conquest"),
        ("an apple, a pear", "apple pear"),
        ("Theatre of Anna", "theatre of anna"),  # articles are whole words
        ("U.S.A.", "usa"),
        ("the", ""),
        ("«Zoë»", "«zoë»"),  # of punctuation only ASCII's, as in SQuAD's script
    ],
)
def test_normalization(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("the Normans", ["Normans", "Norse"], 1, 1),
        ("10th and 11th centuries", ["in the 10th and 11th centuries"], 0, 2 * 4 / (4 + 5)),
        ("cold old Oslo", ["Rome", "Oslo"], 0, 2 * 1 / (3 + 1)),  # the best of the right ones
        ("a a b b", ["b"], 0, 2 * 1 / (2 + 1)),  # articles go, and the second b is one too many
        ("Rome", ["Oslo"], 0, 0),
        ("", ["Oslo"], 0, 0),
        ("", [], 1, 1),
        ("Oslo", [], 0, 0),
        ("the", [], 1, 1),
        ("", ["the", "Oslo"], 0, 0),
    ],
)
def test_exact_match_and_f1(answer: str, right: list[str], exact: float, f1: float) -> None:
    assert exact_match(answer, right) == exact
    assert f1_score(answer, right) == pytest.approx(f1)


def test_the_report_of_questions_that_all_have_an_answer() -> None:
    report = answers_report(["Oslo", "the old Rome", "Lima"], [["Oslo"], ["Rome"], ["Bonn"]], "test")
    assert report["split"] == "test"
    assert report["examples"] == 3
    assert report["metrics"] == pytest.approx({"exact_match": 1 / 3, "f1": (1 + 2 / 3) / 3})
    for name, (low, high) in report["intervals"].items():
        assert 0 <= low < report["metrics"][name] < high <= 1


def test_the_report_of_questions_without_an_answer() -> None:
    report = answers_report(["", "x", "Oslo", ""], [[], [], ["Oslo"], ["Bonn"]], "test")
    assert report["metrics"] == {
        "exact_match": 0.5, "f1": 0.5, "unanswerable_accuracy": 0.5, "answerable_exact_match": 0.5,
        "answerable_f1": 0.5,
    }  # fmt: skip
    assert set(report["intervals"]) == set(report["metrics"])
    assert answers_report([""], [[]], "test")["metrics"]["unanswerable_accuracy"] == 1


def test_an_answer_for_each_question_is_needed() -> None:
    with pytest.raises(ValueError, match="Received 1, 2"):
        answers_report([""], [[], []], "test")


def test_the_best_span_never_ends_before_it_starts() -> None:
    start, end = np.array([0.5, 0.1, 0.1, 0.3]), np.array([0.4, 0.4, 0.1, 0.1])
    # The most probable ends: 1 after start 3 is none; 0.3 * 0.1 < 0.1 * 0.4.
    assert best_span(start, end, 30) == (1, 1, pytest.approx(0.04))


def test_the_best_span_is_no_longer_than_allowed() -> None:
    start, end = np.array([0.0, 0.9, 0.0, 0.1, 0.0]), np.array([0.0, 0.05, 0.05, 0.1, 0.8])
    assert best_span(start, end, 4) == (1, 4, pytest.approx(0.72))
    assert best_span(start, end, 3) == (1, 3, pytest.approx(0.09))
    assert best_span(start, end, 1) == (1, 1, pytest.approx(0.045))


def test_a_window_without_a_context_has_no_span() -> None:
    assert best_span(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 5) == (0, 0, 0.0)


def test_the_best_window_decides_and_no_answer_must_be_sure_everywhere() -> None:
    spans = Spans(
        starts=np.array([3, 5, 4]), ends=np.array([3, 6, 4]), scores=np.array([0.1, 0.6, 0.2]),
        nowhere=np.array([0.9, 0.3, 0.7]),
    )  # fmt: skip
    owners = np.array([0, 0, 1])
    assert best_span_of_each(spans, owners, 2, no_answer=False) == [(1, 5, 6, 0.6), (2, 4, 4, 0.2)]
    assert best_span_of_each(spans, owners, 2, no_answer=True) == [(1, 5, 6, 0.6), (2, 0, 0, 0.7)]
