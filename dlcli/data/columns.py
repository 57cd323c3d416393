"""Columns of text become numbers or categories, by the rules that `choose_columns` states."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dlcli.data.csv_reading import TextTable, listed

ColumnKind = Literal["numeric", "categorical"]

MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NAN", "null", "NULL", "None"})
"""Cells that mean "not known"."""
MAX_CATEGORIES = 256
"""A text column with more distinct values is left out unless asked for: each value is a network input."""
MAX_FORCED_CATEGORIES = 10_000
MIXED_SHARE = 0.9
"""A text column with this share of numbers is a numeric column with faults, not a category."""

_FEW_ROWS = 20
_FEW_VALUES = 20
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_DATE_OR_TIME = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([ T]\d{1,2}:\d{2}.*)?"
    r"|\d{1,2}:\d{2}(:\d{2})?"
)
_WHOLE_AS_FLOAT = re.compile(r"([+-]?\d+)\.0+")


@dataclass(frozen=True)
class ChosenColumns:
    """The columns that the network sees, and why it does not see the others."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    """Column -> float32 (N, 1) with NaN for missing, or object (N, 1) text with "" for missing."""
    kinds: dict[str, ColumnKind] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the columns left out for it."""
    decimal_commas: list[str] = field(default_factory=list)
    """Numeric columns written as 1,5."""


def choose_columns(
    table: TextTable, names: Sequence[str], asked: Mapping[str, str], problems: list[str]
) -> ChosenColumns:
    """Decide what each column is; `asked` (column -> numeric, categorical or ignore) has the last word.

    1. No value, or one value throughout: left out.
    2. Every value a number: numeric; left out when they only count the rows (from 0 or 1, to 20 or more).
    3. Text, at least 90 % of it numbers with more than 20 distinct values: refused, the other cells named.
    4. Dates or times: left out.
    5. Text with more than 256 distinct values, or more than half as many as rows (of 20 or more): left out
       as identifiers and free text.
    6. Other text: categorical.

    Args:
        table: the train file.
        names: the columns to decide on.
        asked: what the user said of some of them.
        problems: takes a line for each fault.
    """
    chosen = ChosenColumns()
    for name in names:
        wanted = asked.get(name)
        if wanted == "ignore":
            continue
        numbers_found = table_numbers(table, name)
        decision = wanted or _decide(table, name, numbers_found, problems)
        if decision == "numeric":
            values = _as_float32(table, name, numbers_found, problems)
            if values is not None and wanted is None and _is_constant(values):
                decision = "constant"  # also numbers that differ only beyond float32
            elif values is not None:
                chosen.values[name] = values
                chosen.kinds[name] = "numeric"
                if table.delimiter != "," and any("," in cell for cell in table.columns[name]):
                    chosen.decimal_commas.append(name)
                continue
        elif decision == "categorical":
            _check_categories(table, name, problems)
            chosen.values[name] = category_values(table, name)
            chosen.kinds[name] = "categorical"
            continue
        if decision in _LEFT_OUT:
            chosen.ignored.setdefault(decision, []).append(name)
    return chosen


def column_notes(file_name: str, chosen: ChosenColumns) -> list[str]:
    """What was left out, one note a reason, with what to do to keep the columns; and decimal commas."""
    notes = [
        f"{file_name}: left out {_LEFT_OUT[reason][0]}: {listed(names, 8)}; {_LEFT_OUT[reason][1]}"
        for reason, names in chosen.ignored.items()
    ]
    if chosen.decimal_commas:
        notes.append(f"{file_name}: decimal commas (1,5 is read as 1.5): {listed(chosen.decimal_commas, 8)}")
    return notes


def refuse_mixed(
    table: TextTable, name: str, problems: list[str], counts: Mapping[str, int] | None = None
) -> bool:
    """Whether a text column is nearly all numbers; if so, the other cells become a problem.

    Args:
        table: the train file.
        name: the column.
        problems: takes a line for the fault.
        counts: how often each cell occurs, missing ones aside; counted when None.
    """
    if counts is None:
        counts = Counter(cell for cell in table.columns[name] if cell not in MISSING)
    number_rows = sum(count for cell, count in counts.items() if _is_number_or_missing(cell, table))
    if number_rows < MIXED_SHARE * sum(counts.values()) or len(counts) <= _FEW_VALUES:
        return False
    numeric_values(table, name, problems)
    problems[-1] += f", or `columns: {{{name}: categorical}}`"
    return True


def numbers(cells: Sequence[str], decimal_comma: bool = False) -> np.ndarray | None:
    """float64 (N,), NaN for missing cells; None when some cell is neither a number nor missing."""
    if decimal_comma and not any("." in cell for cell in cells):
        cells = [cell.replace(",", ".") for cell in cells]
    try:
        found = np.array(_floats(cells))
    except ValueError:
        return None
    # 1_000 is a number in Python, but a code in a table.
    return None if "_" in "".join(cells) else found


def numeric_values(table: TextTable, name: str, problems: list[str]) -> np.ndarray | None:
    """float32 (N, 1) with NaN for missing; a problem and None for text, infinite or too large numbers."""
    return _as_float32(table, name, table_numbers(table, name), problems)


def category_values(table: TextTable, name: str) -> np.ndarray:
    """Object (N, 1) of str, "" for missing; `1.0` is the category `1`: pandas writes columns with gaps so."""
    cells = table.columns[name]
    names = {cell: category_name(cell) for cell in set(cells)}
    values = np.empty((len(cells), 1), dtype=object)
    values[:, 0] = [names[cell] for cell in cells]
    return values


def category_name(cell: str) -> str:
    """A cell as a category: "" when missing, whole numbers without `.0`."""
    if cell in MISSING:
        return ""
    whole = _WHOLE_AS_FLOAT.fullmatch(cell)
    return whole[1] if whole else cell


_LEFT_OUT = {
    "constant": ("as constant in all rows", "nothing can be learned from one value"),
    "empty": ("as empty in all rows", "nothing can be learned from no value"),
    "row number": ("as a row number", "`columns: {NAME: numeric}` keeps it"),
    "date": (
        "as dates or times",
        "turn them into numbers (year, weekday, hour) or `columns: {NAME: categorical}`",
    ),
    "identifier": ("as text with too many distinct values", "`columns: {NAME: categorical}` keeps it"),
}


def _floats(cells: Sequence[str]) -> list[float]:
    try:
        return list(map(float, cells))
    except ValueError:  # slower, and only needed where cells are missing
        return [float("nan") if cell in MISSING else float(cell) for cell in cells]


def _as_float32(
    table: TextTable, name: str, values: np.ndarray | None, problems: list[str]
) -> np.ndarray | None:
    cells = table.columns[name]
    if values is None:
        wrong = [row for row, cell in enumerate(cells) if not _is_number_or_missing(cell, table)]
        shown = listed([repr(cells[row][:40]) for row in wrong], 3)
        problems.append(
            f"{table.where(wrong)} {name}: {shown} is no number; correct the cells or leave them empty"
        )
        return None
    # float32 holds nothing beyond 3.4e38: such a number would become infinite in the network.
    too_large = np.flatnonzero(np.abs(values) > _FLOAT32_MAX)
    if len(too_large):
        shown = listed([cells[row] for row in too_large], 3)
        problems.append(
            f"{table.where(too_large.tolist())} {name}: {shown} is infinite or beyond 3.4e38; correct the "
            "cells or leave them empty"
        )
        return None
    return values.astype(np.float32)[:, None]  # (N, 1)


def _decide(table: TextTable, name: str, values: np.ndarray | None, problems: list[str]) -> str:
    """numeric, categorical, or a reason of _LEFT_OUT."""
    if values is not None:
        if np.isnan(values).all():
            return "empty"
        return "row number" if _counts_rows(values) else "numeric"
    counts = Counter(table.columns[name])
    known = {cell: count for cell, count in counts.items() if cell not in MISSING}
    rows = sum(known.values())
    if len(counts) == 1:
        return "constant"
    if refuse_mixed(table, name, problems, known):
        return "refused"
    if sum(_DATE_OR_TIME.fullmatch(cell) is not None for cell in known) >= 0.9 * len(known):
        return "date"
    if len(known) > MAX_CATEGORIES or (rows >= _FEW_ROWS and len(known) > rows / 2):
        return "identifier"
    return "categorical"


def table_numbers(table: TextTable, name: str) -> np.ndarray | None:
    """`numbers` of a column; where the comma does not delimit, 1,5 is 1.5."""
    return numbers(table.columns[name], decimal_comma=table.delimiter != ",")


def _counts_rows(values: np.ndarray) -> bool:
    first = values[0] if len(values) >= _FEW_ROWS else -1
    return first in (0, 1) and np.array_equal(values, first + np.arange(len(values)))


def _is_constant(values: np.ndarray) -> bool:
    return not np.isnan(values).any() and bool(np.all(values == values[0]))


def _is_number_or_missing(cell: str, table: TextTable) -> bool:
    return numbers([cell], decimal_comma=table.delimiter != ",") is not None


def _check_categories(table: TextTable, name: str, problems: list[str]) -> None:
    distinct = len(set(table.columns[name]))
    if distinct > MAX_FORCED_CATEGORIES:
        problems.append(
            f"{table.path} {name}: {distinct:,} distinct values; a categorical column may have "
            f"{MAX_FORCED_CATEGORIES:,}; merge rare ones or `columns: {{{name}: ignore}}`"
        )
