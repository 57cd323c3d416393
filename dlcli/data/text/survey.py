"""What the texts of a recipe look like to its tokenizer: lengths, unknown words, empty documents."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlcli.data.examples import Data
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.tokenizer import UNKNOWN
from dlcli.data.text.vocabulary import COLUMNS, TokenTexts, encode_texts

CUT_BY = ("text_classification", "translation")
"""Tasks that leave out what is longer than `max_length`; the others read it in pieces."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class TextSurvey:
    """One column of one split, counted in tokens."""

    split: str
    column: str
    documents: int
    tokens: int
    median: float
    percentile_95: float
    longest: int
    cut: float | None
    """Share of the documents that are longer than `max_length`; None for a task that reads them in pieces."""
    unknown: float
    """Share of the tokens that the vocabulary lacks."""
    empty: int


def survey_texts(data: Data, task: str) -> list[TextSurvey]:
    """All columns of all splits that the tokenizer reads.

    Args:
        data: of texts, with the tokenizer that was learnt.
        task: of the recipe.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    surveys = []
    for split, examples in splits.items():
        if isinstance(examples, TextExamples):
            for column in (name for name in COLUMNS if name in examples.columns):
                surveys.append(_survey(split, column, examples, data, cuts=task in CUT_BY))
    return surveys


def _survey(split: str, column: str, examples: TextExamples, data: Data, *, cuts: bool) -> TextSurvey:
    if data.info.tokenizer is None:
        raise ValueError("Expected data with a tokenizer. Received: none")
    tokens = encode_texts(examples.columns[column], data.info.tokenizer)
    lengths, total = tokens.lengths, int(tokens.lengths.sum())
    median, percentile_95 = np.percentile(lengths, (50, 95)).tolist()
    return TextSurvey(
        split,
        column,
        documents=len(lengths),
        tokens=total,
        median=median,
        percentile_95=percentile_95,
        longest=int(lengths.max()),
        cut=float((lengths > data.info.max_length).mean()) if cuts else None,
        unknown=_count_unknown(tokens) / max(total, 1),
        empty=int((lengths == 0).sum()),
    )


def _count_unknown(tokens: TokenTexts) -> int:
    """A piece at a time: the ids may lie on the disk."""
    starts = range(0, len(tokens.ids), _CHUNK)
    return sum(int(np.count_nonzero(tokens.ids[start : start + _CHUNK] == UNKNOWN)) for start in starts)


def text_contents(splits: Mapping[str, TextExamples]) -> Iterator[tuple[bytes, str, str, Any]]:
    """(digest, split, name, label) of every example; tags and answers are labels, and the rest is content."""
    for split, examples in splits.items():
        columns = [texts for name, texts in examples.columns.items() if name in COLUMNS]
        labels = [texts for name, texts in examples.columns.items() if name not in COLUMNS]
        for index in range(len(examples)):
            digest = hashlib.sha256()
            for texts in columns:
                digest.update(texts[index].encode("utf-8", "surrogatepass") + b"\0")
            label = (np.asarray(examples.targets[index]).tobytes(), *(texts[index] for texts in labels))
            yield digest.digest(), split, f"row {index}", label


def tag_counts(examples: TextExamples, class_names: tuple[str, ...]) -> dict[str, int]:
    """How many words have each tag."""
    counts: Counter[str] = Counter()
    for chunk in examples.columns["tags"].chunks():
        for line in chunk:
            counts.update(line.split(" "))
    return {name: counts[name] for name in class_names}
