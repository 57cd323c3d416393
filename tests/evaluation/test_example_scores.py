"""Scores of single examples: their means give the metrics of the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from dlcli.data.examples import DataInfo
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.evaluation import translation
from dlcli.evaluation.answers import answer_scores, answers_report
from dlcli.evaluation.example_scores import (
    ExampleScores,
    class_scores,
    digest_of,
    label_scores,
    value_scores,
)
from dlcli.evaluation.report import evaluate_predictions
from dlcli.evaluation.tags import tag_scores, tags_report
from dlcli.evaluation.translation import BleuSettings, translation_scores

NAMES = ("cat", "dog", "owl")


def of_all(scores: ExampleScores) -> dict[str, float]:
    """The metrics of all examples together."""
    means = scores.quantities.mean(axis=0)[None]
    return {name: float(values[0]) for name, values in scores.metrics(means).items()}


def check(scores: ExampleScores, report: dict[str, Any], first: str) -> None:
    found = of_all(scores)
    assert next(iter(found)) == first
    assert found == pytest.approx({name: report["metrics"][name] for name in found})
    assert len(scores.quantities) == report["examples"]


def probabilities(rows: int, columns: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(columns), rows)


def test_classes() -> None:
    outputs, targets = probabilities(40), np.random.default_rng(1).integers(0, 3, 40)
    scores = class_scores(outputs, targets, NAMES)
    check(scores, evaluate_predictions("classes", outputs, targets, NAMES, "test"), "accuracy")
    assert scores.right is not None
    np.testing.assert_array_equal(scores.right, outputs.argmax(axis=1) == targets)


def test_labels() -> None:
    random = np.random.default_rng(2)
    outputs, targets = random.uniform(size=(40, 3)), random.integers(0, 2, (40, 3))
    scores = label_scores(outputs, targets, NAMES)
    check(scores, evaluate_predictions("labels", outputs, targets, NAMES, "test"), "micro_f1")
    assert scores.right is None, "McNemar's test is for one answer a question"


def test_values() -> None:
    outputs, targets = np.random.default_rng(3).normal([0, 100, 5], [1, 20, 3], (2, 40, 3))
    scores = value_scores(outputs, targets, NAMES)
    check(scores, evaluate_predictions("values", outputs, targets, NAMES, "test"), "rmse")


@pytest.mark.parametrize("names", [("O", "B-PER", "I-PER"), ("noun", "verb", "other")])
def test_tags(names: tuple[str, ...]) -> None:
    targets, counts = np.random.default_rng(4).integers(0, 3, 30), np.array([10, 5, 12, 3])
    outputs = probabilities(30, seed=5)
    first = "entity_f1" if "O" in names else "accuracy"
    check(
        tag_scores(outputs, targets, counts, names),
        tags_report(outputs, targets, counts, names, "test"),
        first,
    )


def test_answers() -> None:
    answers, right = ["the old Rome", "Oslo", "", "x"], [["Rome"], ["Oslo", "oslo town"], [], ["Lima"]]
    check(answer_scores(answers, right), answers_report(answers, right, "test"), "f1")


def test_translations(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = ["eins zwei drei vier", "ein roter Hund läuft schnell"]
    references = ["one two three four", "a red dog runs fast now"]
    written = ["one two three five", "a red dog runs quickly"]
    info = DataInfo("pairs", (), "text", tokenizer=Tokenizer(word(references).to_str()), max_length=8)
    examples = TextExamples(
        {"source": Texts.of(sources), "target": Texts.of(references)}, np.zeros(2, np.int32)
    )
    monkeypatch.setattr(translation, "_translated", lambda *_: written)
    scores = translation_scores(SimpleNamespace(), examples, info, BleuSettings())  # type: ignore[arg-type]
    expected = BLEU(force=True).corpus_score(written, [references]).score
    assert of_all(scores) == {"bleu": pytest.approx(expected)}


def test_the_digest_is_of_what_is_right_and_of_nothing_else() -> None:
    targets = np.array([0, 1, 2])
    one, two = (class_scores(probabilities(3, seed=seed), targets, NAMES) for seed in (0, 1))
    assert one.answers == two.answers
    assert one.answers != class_scores(probabilities(3), targets[::-1], NAMES).answers
    assert digest_of(np.array([1, 2])) != digest_of(np.array([[1, 2]])) != digest_of(np.array([1.0, 2.0]))
    assert digest_of("ab", "c") != digest_of("a", "bc")
