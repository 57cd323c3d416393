"""Chosen columns of CSV and TSV files of text: long cells, line breaks in quotes, and TSV that knows no quotes.

A comma, semicolon or bar separates as in CSV: a quote mark at a cell's start opens a quoted cell, in which
delimiters and line breaks are text and `""` is one mark; a quoted cell that does not end at its closing mark is
refused. A quote mark elsewhere in a cell is text.

A tab separates in two kinds of file: CSV with tabs, and plain lines in which a quote mark is text, like any
character. Which of them a file is, only its marks can tell:

1. Without a quote mark, both are the same.
2. Where every line has the header's number of cells, a row is a line. Marks are quoting there only if every cell
   with a mark is wholly in quotes with its inner marks doubled, and the header is quoted or some mark is doubled
   (a writer that quotes doubles marks; a text that is somebody's words is just wrapped in them).
3. Where it has not, some cell may run over lines or hold a tab: marks are quoting if every cell with a mark is
   wholly in quotes. Else they are text, and the lines that do not fit are named.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dlcli.data.csv_reading import TextTable, listed, quoted_rows, ragged_problems, raise_problems
from dlcli.data.sniff import DELIMITERS, sniff_delimiter
from dlcli.data.text.reading import check_encoding, read_text_file
from dlcli.errors import DataError

_LINES = re.compile(r"[^\r\n]*+(?:\r\n|\n|\r)|[^\r\n]+")
_QUOTED_CELL = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"(?=[\t\r\n]|\Z)')
_SNIFFED = 100_000
"""Characters that a delimiter is sniffed from."""
_LARGEST_CELL = min(sys.maxsize, 2**31 - 1)
"""Characters; Python's own limit of 131,072 is shorter than a book."""


def read_tables(
    paths: Mapping[str, Path | None], names: Sequence[str], delimiter: str | None, encoding: str | None
) -> dict[str, TextTable]:
    """The chosen columns of several files, all of whose faults are reported at once.

    Args:
        paths: argument of the recipe -> its file; those without one are left out.
        names: the columns.
        delimiter: one character; None to find it.
        encoding: a Python codec, or None.

    Raises:
        DataError: a file cannot be used, or is a copy of another.
    """
    check_encoding(encoding)
    tables: dict[str, TextTable] = {}
    problems = []
    for argument, path in paths.items():
        if path is None:
            continue
        try:
            tables[argument] = read_columns(Path(path), names, delimiter, encoding)
        except DataError as error:  # the other files' faults are worth knowing too
            problems.append(str(error))
    raise_problems(problems)
    seen: dict[str, str] = {}
    for argument, table in tables.items():
        if (other := seen.setdefault(table.sha256, argument)) != argument:
            raise DataError(
                f"{table.path}: {argument} is a copy of {other}; a score on it would mean nothing"
            )
    return tables


def read_columns(
    path: Path, names: Sequence[str], delimiter: str | None = None, encoding: str | None = None
) -> TextTable:
    """The chosen columns of one file with a header row; surrounding white space of cells is dropped.

    Raises:
        DataError: unreadable file, missing or repeated columns, broken quoting, ragged rows, no rows.
    """
    path = path.expanduser()
    file = read_text_file(path, encoding, "a CSV or TSV file")
    if not file.text.strip():
        raise DataError(f"{path}: the file is empty; expected a header row and data rows")
    with _long_cells():
        delimiter = delimiter or _find_delimiter(path, file.text, names)
        is_plain = delimiter == "\t" and not is_quoted(file.text)
        rows = _plain_rows(file.text) if is_plain else quoted_rows(_lines_of(file.text), path, delimiter)
        _, first = next(rows, (1, []))
        header = [name.strip() for name in first]
        _check_header(path, header, names, delimiter)
        columns, lines = _collect(rows, path, header, names, delimiter)
    if not lines:
        raise DataError(f"{path}: no data rows below the header")
    notes = (f"{path.name}: quote marks are read as text",) if is_plain and '"' in file.text else ()
    return TextTable(path, columns, lines, delimiter, file.sha256, notes)


def rows_with_text(table: TextTable, names: Sequence[str]) -> tuple[TextTable, list[str]]:
    """The table without the rows in which one of these cells is empty, and a note that counts them.

    Raises:
        DataError: no row is left.
    """
    cells = [table.columns[name] for name in names]
    kept = [row for row, texts in enumerate(zip(*cells, strict=True)) if all(texts)]
    if len(kept) == len(table):
        return table, []
    if not kept:
        raise DataError(f"{table.path}: every row has an empty {listed(names)}; nothing can be learned")
    whole = set(kept)
    lines = listed([str(line) for row, line in enumerate(table.lines) if row not in whole])
    note = f"{table.path.name}: left out {len(table) - len(kept):,} rows with an empty {listed(names)} (lines {lines})"
    return table.subset(kept), [note]


def fingerprint_of(tables: Mapping[str, TextTable]) -> str:
    """sha256 over the files' own."""
    return hashlib.sha256("".join(table.sha256 for table in tables.values()).encode()).hexdigest()


def is_quoted(text: str) -> bool:
    """Whether quote marks of a tab-separated file are quoting, by the rule above."""
    if '"' not in text:
        return False
    header, even = _tabs_of_lines(text)
    doubled, position = False, text.find('"')
    while position >= 0:
        if position and text[position - 1] not in "\t\r\n":
            return False
        cell = _QUOTED_CELL.match(text, position)
        if cell is None:
            return False
        doubled = doubled or '""' in cell[1]
        position = text.find('"', cell.end())
    return not even or doubled or header.startswith('"')


def _tabs_of_lines(text: str) -> tuple[str, bool]:
    """The first line, and whether every other one has as many tabs."""
    lines = (line for line in _lines_of(text) if line.strip("\r\n"))
    header = next(lines, "")
    tabs = header.count("\t")
    return header, all(line.count("\t") == tabs for line in lines)


def _lines_of(text: str) -> Iterator[str]:
    """Lines with their ends; `str.splitlines` would also cut at form feeds and the like."""
    return (match[0] for match in _LINES.finditer(text))


def _find_delimiter(path: Path, text: str, names: Sequence[str]) -> str:
    """The delimiter with which the header holds all the columns; else, for the message, the likeliest one."""
    header = next(line for line in _lines_of(text) if line.strip("\r\n"))
    tab_first = path.suffix.lower() in (".tsv", ".tab")
    for delimiter in sorted(DELIMITERS, key=lambda mark: mark != "\t") if tab_first else DELIMITERS:
        cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        if {*names} <= {cell.strip() for cell in cells}:
            return delimiter
    return sniff_delimiter(text[:_SNIFFED]) or ("\t" if tab_first else ",")


def _plain_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row and its line."""
    for number, line in enumerate(_lines_of(text), start=1):
        if row := line.rstrip("\r\n"):
            yield number, row.split("\t")


def _check_header(path: Path, header: Sequence[str], names: Sequence[str], delimiter: str) -> None:
    known = TextTable(path, {name: [] for name in header if name}, [], delimiter, "", ())
    problems = known.missing_columns(list(dict.fromkeys(names)))
    if problems and len(header) == 1:
        problems.append(f"{path}:1: only one column was found; `delimiter` says what separates them")
    for name in dict.fromkeys(names):
        if header.count(name) > 1:
            problems.append(f"{path}:1: {header.count(name)} columns are named {name!r}; rename all but one")
    raise_problems(problems)


def _collect(
    rows: Iterator[tuple[int, list[str]]],
    path: Path,
    header: Sequence[str],
    names: Sequence[str],
    delimiter: str,
) -> tuple[dict[str, list[str]], list[int]]:
    columns: dict[str, list[str]] = {name: [] for name in names}
    places = [(header.index(name), cells) for name, cells in columns.items()]
    lines: list[int] = []
    ragged: list[tuple[int, int]] = []
    for line, row in rows:
        if len(row) != len(header):
            ragged.append((line, len(row)))
            continue
        lines.append(line)
        for place, cells in places:
            cells.append(row[place].strip())
    raise_problems(ragged_problems(ragged, path, len(header), delimiter))
    return columns, lines


@contextmanager
def _long_cells() -> Iterator[None]:
    """Python's csv module refuses long cells by a limit that all its readers share."""
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
