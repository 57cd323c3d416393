"""Answers to questions: the best span of a model's probabilities, exact match and F1.

Scored as by the evaluation scripts of SQuAD (Rajpurkar et al. 2016 and 2018).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from dlcli.data.stream import by_length, evaluation_stream
from dlcli.evaluation.evaluate import TEXT_BATCH_SIZE
from dlcli.evaluation.example_scores import ExampleScores, digest_of
from dlcli.evaluation.intervals import percentiles, resampled_means, wilson_interval

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, without the articles a, an, the, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1 if the answer is one of the right ones, both normalized; no answer is right where there is none."""
    return float(normalize_answer(answer) in [normalize_answer(text) for text in _scored(right)])


def f1_score(answer: str, right: Sequence[str]) -> float:
    """The best F1 over the right answers, of the words that each has in common with `answer`."""
    return max(
        _f1(normalize_answer(answer).split(), normalize_answer(text).split()) for text in _scored(right)
    )


def _scored(right: Sequence[str]) -> list[str]:
    """The right answers; those that are nothing but articles and punctuation count as no answer."""
    return [text for text in right if normalize_answer(text)] or [""]


def _f1(answer: list[str], right: list[str]) -> float:
    if not answer or not right:
        return float(answer == right)
    common = (Counter(answer) & Counter(right)).total()
    return 2 * common / (len(answer) + len(right))


def answers_report(answers: Sequence[str], right: Sequence[Sequence[str]], split: str) -> dict[str, Any]:
    """Scores of one answer to each question, in the form of metrics.json.

    Args:
        answers: N, empty for none.
        right: all right answers of each question; an empty list where it has none.
        split: the split's name.

    Returns:
        `exact_match` and `f1` from 0 to 1 with 95 % intervals. Where questions without an answer occur, the two also
        over those that have one, and the share of the others that was left unanswered.
    """
    if len(answers) != len(right) or not answers:
        raise ValueError(
            f"Expected right answers for each of at least one. Received {len(answers)}, {len(right)}"
        )
    exact = np.array([exact_match(*pair) for pair in zip(answers, right, strict=True)])
    f1 = np.array([f1_score(*pair) for pair in zip(answers, right, strict=True)])
    metrics, intervals = _means({"exact_match": exact, "f1": f1})
    answerable = np.array([bool(texts) for texts in right])
    if not answerable.all():
        parts = {"unanswerable_accuracy": exact[~answerable]}
        if answerable.any():
            parts |= {"answerable_exact_match": exact[answerable], "answerable_f1": f1[answerable]}
        more, more_intervals = _means(parts)
        metrics, intervals = metrics | more, intervals | more_intervals
    return {"split": split, "examples": len(answers), "metrics": metrics, "intervals": intervals}


def answer_scores(answers: Sequence[str], right: Sequence[Sequence[str]]) -> ExampleScores:
    """What each answer scored; arguments as of `answers_report`."""
    pairs = list(zip(answers, right, strict=True))
    quantities = [[f1_score(*pair), exact_match(*pair)] for pair in pairs]

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        return {"f1": means[:, 0], "exact_match": means[:, 1]}

    return ExampleScores(np.array(quantities), metrics, digest_of(right), units="questions")


def _means(scores: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Means of scores (N,), and their intervals: Wilson's of a share, else a bootstrap."""
    intervals = {}
    for name, values in scores.items():
        if np.isin(values, (0, 1)).all():
            intervals[name] = wilson_interval(int(values.sum()), len(values))
        else:
            intervals[name] = percentiles(resampled_means(values[:, None], np.random.default_rng(0))[:, 0])
    return {name: float(values.mean()) for name, values in scores.items()}, intervals


@dataclass(frozen=True)
class Spans:
    """The best span of each of W windows; positions and probabilities."""

    starts: np.ndarray
    """int64 (W,); 0 where a window holds no token of a context."""
    ends: np.ndarray
    """int64 (W,), the last token."""
    scores: np.ndarray
    """float64 (W,): the probability of the start times that of the end."""
    nowhere: np.ndarray
    """float64 (W,): the same of the first position, which says that the answer is not here."""


class Span(NamedTuple):
    """The best span of a question, in one of its windows; start and end are 0 for "no answer"."""

    window: int
    start: int
    end: int
    score: float


def find_spans(predictor: keras.Model, sequences: Any, max_answer_length: int) -> Spans:
    """The best span of each window.

    Args:
        predictor: gives probabilities (B, T, 2) of start and end.
        sequences: the windows, W of them.
        max_answer_length: tokens of the longest span.
    """
    ordered, order = by_length(sequences)
    found = np.zeros((len(order), 4))
    place = 0
    for inputs, _ in evaluation_stream(ordered, TEXT_BATCH_SIZE):
        for window in np.asarray(predictor.predict_on_batch(inputs), np.float64):
            nowhere = window[0, 0] * window[0, 1]
            found[order[place]] = (*best_span(window[:, 0], window[:, 1], max_answer_length), nowhere)
            place += 1
    return Spans(found[:, 0].astype(int), found[:, 1].astype(int), found[:, 2], found[:, 3])


def best_span(start: np.ndarray, end: np.ndarray, max_answer_length: int) -> tuple[int, int, float]:
    """First and last position of the most probable span behind position 0, and its probability.

    Args:
        start: (T,) probability that the answer starts at each position; 0 where it cannot.
        end: (T,) probability that it ends there.
        max_answer_length: positions of the longest span.
    """
    start, end = start[1:], end[1:]
    best = (0, 0, 0.0)
    for extra in range(min(max_answer_length, len(start))):
        products = start[: len(start) - extra] * end[extra:]
        place = int(products.argmax())
        if products[place] > best[2]:
            best = (place + 1, place + 1 + extra, float(products[place]))
    return best


def best_span_of_each(spans: Spans, owners: np.ndarray, count: int, no_answer: bool) -> list[Span]:
    """The best span over the windows of each question.

    Probabilities of windows can be compared, since "not here" is one of the possibilities in each of them. No answer
    is given where that is more probable than every span, in the window that says it least (as in BERT).

    Args:
        spans: of W windows.
        owners: (W,) the question of each window.
        count: the number of questions.
        no_answer: whether a question may have none.
    """
    best: list[Span | None] = [None] * count
    nowhere = np.ones(count)
    for window, owner in enumerate(owners):
        found = Span(window, int(spans.starts[window]), int(spans.ends[window]), float(spans.scores[window]))
        current = best[owner]
        if current is None or found.score > current.score:
            best[owner] = found
        nowhere[owner] = min(nowhere[owner], spans.nowhere[window])
    chosen = []
    for span, empty in zip(best, nowhere, strict=True):
        if span is None:
            raise ValueError("Expected a window for each question. Received: a question without one")
        gives_none = no_answer and empty > span.score
        chosen.append(Span(span.window, 0, 0, float(empty)) if gives_none else span)
    return chosen
