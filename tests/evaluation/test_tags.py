"""Scores of tagged words and of entities, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dlcli.evaluation.tags import entities, marks_entities, tags_report


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB2
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("I-PER I-PER B-PER O I-LOC", [("PER", 0, 1), ("PER", 2, 2), ("LOC", 4, 4)]),  # IOB1
        ("I-PER I-LOC B-ORG I-PER", [("PER", 0, 0), ("LOC", 1, 1), ("ORG", 2, 2), ("PER", 3, 3)]),
        ("B-PER I-PER E-PER S-LOC S-LOC", [("PER", 0, 2), ("LOC", 3, 3), ("LOC", 4, 4)]),  # IOBES
        ("B-PER E-PER I-PER", [("PER", 0, 1), ("PER", 2, 2)]),
        ("B-PER L-PER U-LOC L-LOC", [("PER", 0, 1), ("LOC", 2, 2), ("LOC", 3, 3)]),  # BILOU
        ("O O", []),
        ("", []),
    ],
)
def test_entities(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == expected


def test_only_tags_of_parts_make_entities() -> None:
    assert marks_entities(["O", "B-PER", "I-PER", "B-LOC"])
    assert marks_entities(["I-PER", "O"])
    assert not marks_entities(["NOUN", "VERB"])
    assert not marks_entities(["O", "PER"])
    assert not marks_entities(["O", "B-PER", "PUNCT"])
    assert not marks_entities(["O"])


NAMES = ("O", "B-PER", "I-PER", "B-LOC")


def report(right: list[list[int]], found: list[list[int]], names: tuple[str, ...] = NAMES) -> dict:
    predicted = np.array([tag for row in found for tag in row])
    probabilities = np.full((len(predicted), len(names)), 0.1)
    probabilities[np.arange(len(predicted)), predicted] = 0.7
    targets = np.array([tag for row in right for tag in row])
    return tags_report(probabilities, targets, np.array([len(row) for row in right]), names, "test")


def test_words_and_entities_are_counted() -> None:
    # Right: PER(0-1), LOC(3) | LOC(0) | PER(0). Found: PER(0) too short, LOC(3) | LOC(0) | nothing.
    found = report([[1, 2, 0, 3], [3, 0], [1]], [[1, 0, 0, 3], [3, 0], [0]])
    assert (found["examples"], found["words"]) == (3, 7)
    assert found["metrics"]["accuracy"] == pytest.approx(5 / 7)
    assert found["metrics"]["entity_precision"] == pytest.approx(2 / 3)
    assert found["metrics"]["entity_recall"] == pytest.approx(2 / 4)
    assert found["metrics"]["entity_f1"] == pytest.approx(4 / 7)
    # B-PER 1 of 2, found once; I-PER never; B-LOC both; O 2 of 2, found 4 times.
    assert found["metrics"]["macro_recall"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert found["metrics"]["macro_f1"] == pytest.approx((4 / 6 + 2 / 3 + 0 + 1) / 4)
    assert found["metrics"]["log_loss"] == pytest.approx(-(5 * np.log(0.7) + 2 * np.log(0.1)) / 7)
    assert found["confusion_matrix"][1] == [1, 1, 0, 0]
    assert found["per_entity"] == [
        {"name": "LOC", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2},
        {"name": "PER", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
    ]
    for name, value in found["metrics"].items():
        low, high = found["intervals"][name]
        assert low <= value <= high, name


def test_intervals_are_of_sentences_not_of_words() -> None:
    # Sentences are right or wrong as a whole: 400 words say no more than 20 sentences.
    together = report([[0] * 10 + [3] * 10] * 20, [[0] * 10 + [3] * 10] * 10 + [[3] * 10 + [0] * 10] * 10)
    low, high = together["intervals"]["accuracy"]
    assert low < 0.35
    assert high > 0.65


def test_without_a_mistake_the_accuracy_is_not_certain() -> None:
    low, high = report([[0, 3], [0]], [[0, 3], [0]])["intervals"]["accuracy"]
    assert low == pytest.approx(0.4385, abs=1e-3)  # Wilson's interval of 3 of 3
    assert high == 1


def test_a_split_without_entities_says_so() -> None:
    found = report([[0, 0]], [[0, 1]])
    assert found["metrics"]["entity_f1"] is None
    assert "entity_f1" in found["undefined"]
    assert "entity_f1" not in found["intervals"]


def test_tags_without_parts_have_no_entities() -> None:
    assert "entity_f1" not in report([[0, 1]], [[0, 1]], ("NOUN", "VERB", "DET"))["metrics"]
