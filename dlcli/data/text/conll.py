"""Tagged words in columns, as in CoNLL's shared tasks: `dataset: {name: conll, path: eng.train}`.

Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlcli.data.csv_reading import MAX_SHOWN, listed, raise_problems
from dlcli.data.examples import DataInfo, Source
from dlcli.data.text.reading import check_encoding, read_text_file
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError
from dlcli.recipe.arguments import Annotated, Field

OUTSIDE = "O"
"""The tag of words that are part of nothing; the first class where it occurs."""

# Not str.split, which also splits at no-break and ideographic spaces: they may stand inside a word.
_BETWEEN = re.compile("[ \t]+")


def conll(
    *,
    path: Path,
    test_path: Path | None = None,
    validation_path: Path | None = None,
    tag_column: Annotated[int, Field(ge=-100, le=100)] = -1,
    encoding: str | None = None,
) -> Source:
    """Sentences of tagged words: a word on each line, its tag in another column, a blank line between sentences.

    Columns stand apart by tabs or spaces, the word in the first one. Lines that begin with `-DOCSTART-` are left out.

    Args:
        path: the train file; its tags are the ones that can be learnt.
        test_path: a file used only by `evaluate`.
        validation_path: a file of its own for validation; left out, `validation_split` of the train sentences.
        tag_column: the column of the tags, counted from 0; -1 is the last one, -2 the one before.
        encoding: a Python codec such as `latin-1`; left out, byte order marks count, else UTF-8 is required.

    Raises:
        DataError: a file cannot be used as it is; every fault is named by file and line.
    """
    check_encoding(encoding)
    train = _read(Path(path).expanduser(), tag_column, encoding)
    names = tag_names(train)
    if len(names) < 2:
        raise DataError(
            f"{train.path}: every word has the tag {names[0]!r}; two or more are needed: tag_column?"
        )
    others = {
        split: _read(Path(file).expanduser(), tag_column, encoding)
        for split, file in (("test", test_path), ("validation", validation_path))
        if file is not None
    }
    raise_problems([problem for part in others.values() for problem in _unknown_tags(part, names)])
    parts = [train, *others.values()]
    info = DataInfo(
        kind="tagged",
        input_shape=(),
        target="tags",
        class_names=names,
        notes=tuple(part.note for part in parts),
        fingerprint=hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest(),
    )
    examples = {split: _examples(part) for split, part in others.items()}
    return Source(_examples(train), info, None, examples.get("test"), examples.get("validation"))


@dataclass(frozen=True)
class _Sentences:
    """One file."""

    path: Path
    sha256: str
    note: str
    """What it holds."""
    words: list[list[str]]
    tags: list[list[str]]
    first_lines: dict[str, int]
    """The line on which each tag stands first."""


def tag_names(sentences: _Sentences) -> tuple[str, ...]:
    """The tags in order, `O` first."""
    return tuple(sorted(sentences.first_lines, key=lambda tag: (tag != OUTSIDE, tag)))


def _read(path: Path, tag_column: int, encoding: str | None) -> _Sentences:
    file = read_text_file(path, encoding, "a file with a word and its tag on each line")
    sentences: list[list[tuple[int, list[str]]]] = [[]]
    # Not str.splitlines, which splits at characters that may stand in a word.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", file.text), start=1):
        cells = _cells(line)
        if not cells or cells[0].startswith("-DOCSTART-"):
            if sentences[-1]:
                sentences.append([])
        else:
            sentences[-1].append((number, cells))
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise DataError(f"{path}: no words; expected a word and its tag on each line")
    width = len(sentences[0][0][1])
    _check_columns(path, [row for sentence in sentences for row in sentence], width, tag_column)
    first_lines: dict[str, int] = {}
    for number, cells in (row for sentence in sentences for row in sentence):
        first_lines.setdefault(cells[tag_column], number)
    words = [[cells[0] for _, cells in sentence] for sentence in sentences]
    tags = [[cells[tag_column] for _, cells in sentence] for sentence in sentences]
    counted = (
        f"{path.name}: {len(words):,} sentences, {sum(map(len, words)):,} words, {len(first_lines)} tags"
    )
    return _Sentences(path, file.sha256, counted, words, tags, first_lines)


def _cells(line: str) -> list[str]:
    """Cells of a line; where there are tabs, only they separate."""
    line = line.rstrip("\t ")
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in _BETWEEN.split(line) if cell]


def _check_columns(path: Path, rows: Sequence[tuple[int, list[str]]], width: int, tag_column: int) -> None:
    """Refuses lines of other widths than the first, empty cells, and words or tags that hold a space."""
    first = rows[0][0]
    if width < 2:
        raise DataError(
            f"{path}:{first}: one column only; expected a word and its tag, a tab or a space between"
        )
    if not -width <= tag_column < width or tag_column % width == 0:
        allowed = f"1 to {width - 1}, or -1 to {1 - width}"
        raise DataError(
            f"{path}:{first}: tag_column {tag_column} is none of the {width} columns; allowed: {allowed}"
        )
    ragged = [(number, len(cells)) for number, cells in rows if len(cells) != width]
    problems = [
        f"{path}:{number}: {found} columns, where line {first} has {width}"
        for number, found in ragged[:MAX_SHOWN]
    ]
    if len(ragged) > MAX_SHOWN:
        problems.append(
            f"{path}: {len(ragged):,} lines in all have another number of columns than line {first}"
        )
    broken = [
        number
        for number, cells in rows
        if len(cells) == width and not all(cell and " " not in cell for cell in (cells[0], cells[tag_column]))
    ]
    if broken:
        where = listed([str(number) for number in broken])
        problems.append(f"{path}:{where}: a word or a tag is empty or holds a space; one word a line")
    raise_problems(problems)


def _unknown_tags(part: _Sentences, names: Sequence[str]) -> list[str]:
    unknown = [(tag, line) for tag, line in part.first_lines.items() if tag not in names]
    known = listed(list(names), 12)
    return [
        f"{part.path}:{line}: tag {tag!r} is not in the train file; it has: {known}" for tag, line in unknown
    ]


def _examples(part: _Sentences) -> TextExamples:
    columns = {
        "words": Texts.of(" ".join(words) for words in part.words),
        "tags": Texts.of(" ".join(tags) for tags in part.tags),
    }
    return TextExamples(columns, np.zeros(len(part.words), np.int32))
