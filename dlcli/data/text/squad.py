"""Questions on texts in the form of SQuAD: `dataset: {name: squad, path: train-v1.1.json}`.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text"; version 2 (Rajpurkar et al.
2018) adds questions that the text does not answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.data.csv_reading import listed, raise_problems
from dlcli.data.examples import DataInfo, Source
from dlcli.data.text.reading import read_text_file
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError

NO_ANSWER = (-1, -1)
"""The span of a question that its text does not answer."""


def squad(*, path: Path, test_path: Path | None = None, validation_path: Path | None = None) -> Source:
    """Questions whose answer is a part of a text, as JSON of SQuAD version 1.1 or 2.0.

    The network learns the first answer of each question; all of them count as right in evaluation. An answer that
    does not stand at its `answer_start` is looked for nearby. Questions without answers (version 2) are kept.

    Args:
        path: the train file.
        test_path: a file used only by `evaluate`; SQuAD's own test set is not public, its `dev` file is.
        validation_path: a file of its own for validation; left out, `validation_split` of the train questions.

    Raises:
        DataError: a file cannot be used as it is; every fault is named by its place and its question's id.
    """
    found = {
        split: _read(Path(file).expanduser())
        for split, file in (("train", path), ("test", test_path), ("validation", validation_path))
        if file is not None
    }
    digest = hashlib.sha256("".join(part.sha256 for part in found.values()).encode())
    info = DataInfo(
        kind="questions",
        input_shape=(),
        target="spans",
        notes=tuple(note for part in found.values() for note in part.notes),
        fingerprint=digest.hexdigest(),
    )
    examples = {split: _examples(part) for split, part in found.items()}
    return Source(examples["train"], info, None, examples.get("test"), examples.get("validation"))


@dataclass
class _Questions:
    """One file."""

    sha256: str
    notes: list[str] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Of each question, which context it is asked of."""
    questions: list[str] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    """Where an answer stood elsewhere than its `answer_start` said."""
    problems: list[str] = field(default_factory=list)


def _read(path: Path) -> _Questions:
    """Reads and checks a file; all faults of one file are raised together."""
    file = read_text_file(path, None, "the .json file of a SQuAD data set")
    if not file.text.strip():
        raise DataError(f"{path}: the file is empty; expected the JSON of a SQuAD data set")
    try:
        content = json.loads(file.text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: this is no JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}: this is no SQuAD file: its JSON is nested too deeply") from None
    found = _Questions(file.sha256)
    for where, paragraph in _paragraphs(content, path, found.problems):
        _add_paragraph(found, paragraph, where)
    raise_problems([f"{path}: {problem}" for problem in found.problems])
    if not found.questions:
        raise DataError(f"{path}: no questions; expected them in data[...].paragraphs[...].qas")
    found.notes += _notes(found, path)
    return found


def _notes(found: _Questions, path: Path) -> list[str]:
    unanswered = sum(span == NO_ANSWER for span in found.spans)
    notes = [f"{path.name}: {len(found.questions):,} questions on {len(found.contexts):,} texts"]
    if unanswered:
        notes.append(f"{path.name}: {unanswered:,} of them have no answer in their text")
    if found.moved:
        notes.append(
            f"{path.name}: {len(found.moved):,} answers did not stand at their answer_start and were found elsewhere "
            f"in the text: {listed(found.moved)}"
        )
    return notes


def _paragraphs(content: Any, path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every paragraph that is one, and where it stands."""
    if not isinstance(content, dict) or "data" not in content:
        raise DataError(f"{path}: this is no SQuAD file: expected a JSON object with the key data")
    for index, article in enumerate(_list(content, "data", "", problems)):
        for inner, paragraph in enumerate(_list(article, "paragraphs", f"data[{index}]", problems)):
            where = f"data[{index}].paragraphs[{inner}]"
            if isinstance(paragraph, dict):
                yield where, paragraph
            else:
                problems.append(
                    f"{where}: expected an object with context and qas. Received: {paragraph!r:.40}"
                )


def _add_paragraph(found: _Questions, paragraph: dict[str, Any], where: str) -> None:
    context = _text(paragraph, "context", where, found.problems)
    qas = _list(paragraph, "qas", where, found.problems)
    if context is None:
        return
    found.contexts.append(context)
    for index, qa in enumerate(qas):
        if not isinstance(qa, dict):
            found.problems.append(f"{where}.qas[{index}]: expected an object. Received: {qa!r:.40}")
            continue
        place = f"{where}.qas[{index}]" + (f" (id {qa['id']})" if "id" in qa else "")
        question = _text(qa, "question", place, found.problems)
        answered = _answers(found, qa, context, place)
        if question is None or answered is None:
            continue
        found.places.append(len(found.contexts) - 1)
        found.questions.append(question)
        found.answers.append(answered[0])
        found.spans.append(answered[1])


def _answers(
    found: _Questions, qa: dict[str, Any], context: str, where: str
) -> tuple[list[str], tuple[int, int]] | None:
    """All right answers, and where the first one stands; None where something is wrong with them."""
    if qa.get("is_impossible") is True:
        return [], NO_ANSWER
    known = len(found.problems)
    answers = _list(qa, "answers", where, found.problems)
    texts = [
        _text(answer, "text", f"{where}.answers[{i}]", found.problems) for i, answer in enumerate(answers)
    ]
    if len(found.problems) > known:
        return None
    if not texts:
        return [], NO_ANSWER
    wanted, first = answers[0].get("answer_start"), str(texts[0])
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        found.problems.append(
            f"{where}.answers[0]: answer_start must be a whole number. Received: {wanted!r:.40}"
        )
        return None
    start = nearest_occurrence(first, context, wanted)
    if start is None:
        found.problems.append(f"{where}.answers[0]: the answer {first!r:.60} stands nowhere in its context")
        return None
    if start != wanted:
        found.moved.append(str(qa.get("id", where)))
    return [str(text) for text in texts], (start, start + len(first))


def nearest_occurrence(text: str, context: str, wanted: int) -> int | None:
    """Where `text` begins in `context`, nearest to the character `wanted`; of two as near, the earlier one."""
    wanted = min(max(wanted, 0), len(context))
    before = context.rfind(text, 0, wanted + len(text))
    after = context.find(text, wanted)
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: (abs(place - wanted), place), default=None)


def _list(value: Any, key: str, where: str, problems: list[str]) -> list[Any]:
    """The list under a key; empty, and one more problem, where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    if isinstance(found, list):
        return found
    what = "missing" if not isinstance(value, dict) or key not in value else f"no list but {found!r:.40}"
    problems.append(f"{where + '.' if where else ''}{key}: {what}")
    return []


def _text(value: Any, key: str, where: str, problems: list[str]) -> str | None:
    """The text under a key; None, and one more problem, where there is none or an empty one."""
    found = value.get(key) if isinstance(value, dict) else None
    if isinstance(found, str) and found.strip():
        return found
    if isinstance(found, str):
        problems.append(f"{where}: {key} is empty")
    else:
        what = (
            "is missing"
            if not isinstance(value, dict) or key not in value
            else f"is no text but {found!r:.40}"
        )
        problems.append(f"{where}: {key} {what}")
    return None


def _examples(found: _Questions) -> TextExamples:
    columns = {
        "question": Texts.of(found.questions),
        # Each text is stored once, however many questions it has.
        "context": Texts.of(found.contexts).subset(np.array(found.places)),
        "answers": Texts.of(json.dumps(answers, ensure_ascii=False) for answers in found.answers),
    }
    return TextExamples(columns, np.array(found.spans, np.int32))
