"""A CSV file becomes columns of text, every fault of its form named by file and line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlcli.data.sniff import quoted_near_miss, read_text, sniff_delimiter
from dlcli.errors import DataError

MAX_SHOWN = 5
"""Examples of one kind of fault in a message; the rest is counted."""


@dataclass(frozen=True)
class TextTable:
    """Columns of stripped cells, as they stand in the file."""

    path: Path
    columns: dict[str, list[str]]
    """Column name -> its N cells, in the order of the file."""
    lines: list[int]
    """The line on which each row begins (a quoted cell may hold line breaks)."""
    delimiter: str
    sha256: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, rows: Sequence[int]) -> str:
        """`train.csv:3, 8, 9 and 12 more`: the lines on which these rows begin."""
        return f"{self.path}:{listed([str(self.lines[row]) for row in rows])}"

    def missing_columns(self, names: Sequence[str]) -> list[str]:
        """One problem for each of `names` that the header lacks."""
        problems = []
        for name in names:
            if name not in self.columns:
                known = list(self.columns)
                near = quoted_near_miss(name, known) or f"; it has: {listed(known, 12)}"
                problems.append(f"{self.path}:1: no column {name!r} in the header{near}")
        numeric_names = [name for name in self.columns if _is_number(name)]
        if problems and numeric_names:
            problems.append(
                f"{self.path}:1: the first row looks like data ({listed(numeric_names, 3)}), not like column "
                "names; add a header row"
            )
        return problems

    def subset(self, kept: Sequence[int]) -> TextTable:
        """These rows of the table."""
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        lines = [self.lines[row] for row in kept]
        return TextTable(self.path, columns, lines, self.delimiter, self.sha256, self.notes)


def listed(items: Sequence[str], shown: int = MAX_SHOWN) -> str:
    """`a, b, c and 12 more`."""
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more:,} more" if more > 0 else "")


def raise_problems(problems: Sequence[str], shown: int = 20) -> None:
    """One DataError with all problems, a line each.

    Raises:
        DataError: there is a problem.
    """
    if problems:
        more = [f"... and {len(problems) - shown:,} more problems"] if len(problems) > shown else []
        raise DataError("\n".join([*problems[:shown], *more]))


def read_table(path: Path, delimiter: str | None = None, encoding: str | None = None) -> TextTable:
    """Read a CSV file with a header row; blank lines are skipped, spaces around cells dropped.

    Args:
        path: the file.
        delimiter: one character; sniffed among `,` `;` tab `|` when None.
        encoding: a Python codec; sniffed when None (UTF-8, UTF-16, else windows-1252).

    Raises:
        DataError: unreadable file, broken quoting, ragged rows, repeated column names, no rows.
    """
    path = path.expanduser()
    file = read_text(path, encoding)
    delimiter = delimiter or sniff_delimiter(file.text) or ","
    numbered = list(quoted_rows(io.StringIO(file.text, newline=""), path, delimiter))
    rows, lines = [row for _, row in numbered], [line for line, _ in numbered]
    if len(rows) < 2:
        raise DataError(f"{path}: no data rows below the header")
    header = [name.strip() for name in rows[0]]
    raise_problems([*_repeated_names(header, path), *_ragged_rows(rows, lines, path, delimiter)])
    notes = list(file.notes)
    columns = {}
    for position, (name, cells) in enumerate(zip(header, zip(*rows[1:], strict=True), strict=True), start=1):
        if name:
            columns[name] = list(map(str.strip, cells))
        else:
            notes.append(f"{path.name}: column {position} has no name and is ignored")
    return TextTable(path, columns, lines[1:], delimiter, file.sha256, tuple(notes))


def quoted_rows(text_lines: Iterable[str], path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row begins, and its cells; blank lines are passed over.

    Args:
        text_lines: with their ends, since a quoted cell may hold line breaks.
        path: for messages.
        delimiter: one character.

    Raises:
        DataError: broken quoting, or a delimiter that is none.
    """
    line = 1
    try:
        # strict: a quote that is never closed is an error, not one huge last cell.
        reader = csv.reader(text_lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        advice = "is a quote not closed, or not doubled?"
        raise DataError(f"{path}:{line}: the row that begins here is broken: {error} ({advice})") from None
    except (TypeError, ValueError):
        raise DataError(
            f"delimiter: expected one character such as ; or tab. Received: {delimiter!r}"
        ) from None


def _repeated_names(header: Sequence[str], path: Path) -> list[str]:
    repeated = [(name, count) for name, count in Counter(header).items() if name and count > 1]
    return [
        f"{path}:1: {count} columns are named {name!r}; rename all but one"
        for name, count in repeated[: MAX_SHOWN * 2]
    ]


def _ragged_rows(
    rows: Sequence[Sequence[str]], lines: Sequence[int], path: Path, delimiter: str
) -> list[str]:
    width = len(rows[0])
    ragged = [(line, len(row)) for row, line in zip(rows, lines, strict=True) if len(row) != width]
    return ragged_problems(ragged, path, width, delimiter)


def ragged_problems(ragged: Sequence[tuple[int, int]], path: Path, width: int, delimiter: str) -> list[str]:
    """What to say of rows, each its line and its number of cells, that are not as wide as the header."""
    problems = [
        f"{path}:{line}: {found} cells where the header has {width} columns (delimiter {delimiter!r})"
        for line, found in ragged[:MAX_SHOWN]
    ]
    if len(ragged) > MAX_SHOWN:
        problems.append(f"{path}: {len(ragged):,} ragged rows in all; quote cells that hold the delimiter")
    return problems


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
