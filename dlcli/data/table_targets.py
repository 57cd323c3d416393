"""The target columns of a table: classes, labels or values, by the rule that `infer_target` states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dlcli.data.columns import (
    MISSING,
    category_name,
    category_values,
    numeric_values,
    refuse_mixed,
    table_numbers,
)
from dlcli.data.csv_reading import TextTable, listed
from dlcli.data.sniff import quoted_near_miss

MAX_INTEGER_CLASSES = 20
"""Whole numbers with more distinct values are values to regress."""
MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Target:
    """What the target columns mean."""

    columns: tuple[str, ...]
    kind: Literal["classes", "labels", "values"]
    class_names: tuple[str, ...]
    note: str


def infer_target(
    table: TextTable, columns: Sequence[str], asked: Mapping[str, str], problems: list[str]
) -> Target | None:
    """Decide what the target is; `asked` (column -> numeric or categorical) has the last word.

    - One column of text: classes. One column of whole numbers with at most 20 distinct values, each met twice
      on average: classes. Other numbers: values.
    - Several columns: labels when every cell is 0 or 1, else values.

    Args:
        table: the train file, without rows that lack a target.
        columns: the target columns.
        asked: what the user said of columns.
        problems: takes a line for each fault: constant target, text among several targets, too many classes.

    Returns:
        None when a problem stands in the way.
    """
    wanted = {asked[column] for column in columns if column in asked}
    if "ignore" in wanted or len(wanted) > 1:
        problems.append(f"columns: the target ({listed(columns)}) must be all numeric or all categorical")
        return None
    constant = [column for column in columns if len(_distinct(table, column)) < 2]
    for column in constant:
        problems.append(
            f"{table.path} {column}: every row has the target {table.columns[column][0]!r}: nothing to learn"
        )
    if constant:
        return None
    if len(columns) > 1:
        return _several(table, columns, wanted, problems)
    return _single(table, columns[0], next(iter(wanted), None), problems)


def encode_target(table: TextTable, target: Target, problems: list[str]) -> np.ndarray:
    """int32 (N,) class indices, or float32 (N, K) labels or values; unknown classes are problems."""
    if target.kind != "classes":
        columns = [numeric_values(table, column, problems) for column in target.columns]
        if any(values is None for values in columns):
            return np.zeros((len(table), len(columns)), np.float32)
        encoded = np.concatenate([values for values in columns if values is not None], axis=1)  # (N, K)
        wrong = np.flatnonzero(~np.isin(encoded, (0, 1)).all(axis=1)).tolist()
        if wrong and target.kind == "labels":
            problems.append(f"{table.where(wrong)} {listed(target.columns)}: labels must be 0 or 1")
        return encoded
    column = target.columns[0]
    index = {name: position for position, name in enumerate(target.class_names)}
    names = category_values(table, column)[:, 0].tolist()
    unknown = [row for row, name in enumerate(names) if name not in index]
    if unknown:
        found = sorted({names[row] for row in unknown})
        near = quoted_near_miss(found[0], target.class_names)
        problems.append(
            f"{table.where(unknown)} {column}: {listed(found)} is no class that was trained on "
            f"({listed(target.class_names)}){near}"
        )
    return np.array([index.get(name, 0) for name in names], dtype=np.int32)


def rows_with_target(table: TextTable, columns: Sequence[str]) -> tuple[TextTable, list[str]]:
    """The table without the rows in which a target cell is missing, and a note that counts them."""
    cells = [table.columns[column] for column in columns]
    kept = [row for row, values in enumerate(zip(*cells, strict=True)) if MISSING.isdisjoint(values)]
    if len(kept) == len(table):
        return table, []
    lost = sorted(set(range(len(table))) - set(kept))
    lines = listed([str(table.lines[row]) for row in lost])
    note = f"{table.path.name}: left out {len(lost):,} rows without {listed(columns)} (lines {lines})"
    return table.subset(kept), [note]


def _distinct(table: TextTable, column: str) -> set[str]:
    return {category_name(cell) for cell in set(table.columns[column])}


def _single(table: TextTable, column: str, wanted: str | None, problems: list[str]) -> Target | None:
    values = table_numbers(table, column)
    distinct = len(_distinct(table, column))
    if wanted is None and values is None and refuse_mixed(table, column, problems):
        return None
    if wanted == "numeric" or (wanted is None and values is not None and not _few_whole(values, distinct)):
        note = f"target {column}: numbers to regress ({distinct:,} distinct values)"
        if wanted is None:
            note += f"; `columns: {{{column}: categorical}}` makes classes of them"
        return Target((column,), "values", (column,), note)
    if distinct > MAX_CLASSES or (distinct > len(table) / 2 and len(table) >= MAX_INTEGER_CLASSES):
        problems.append(
            f"{table.path} {column}: {distinct:,} distinct values in {len(table):,} rows are too many "
            "classes; name another target, or correct the column"
        )
        return None
    names = sorted(_distinct(table, column))
    if values is not None:
        names.sort(key=float)
    note = f"target {column}: {distinct} classes ({listed(names)})"
    if values is not None and wanted is None:
        note += f"; `columns: {{{column}: numeric}}` regresses it"
    return Target((column,), "classes", tuple(names), note)


def _several(
    table: TextTable, columns: Sequence[str], wanted: set[str], problems: list[str]
) -> Target | None:
    found = len(problems)
    values = [numeric_values(table, column, problems) for column in columns]
    if len(problems) > found:
        problems.append("several target columns must all hold 0 and 1 (labels) or numbers (regression)")
        return None
    zeros_and_ones = all(column is not None and np.isin(column, (0, 1)).all() for column in values)
    if wanted == {"categorical"} and not zeros_and_ones:
        problems.append(f"{table.path} {listed(columns)}: several categorical targets must hold 0 and 1 only")
        return None
    kind: Literal["labels", "values"] = "labels" if zeros_and_ones and wanted != {"numeric"} else "values"
    meaning = "labels, any of which may hold" if kind == "labels" else "numbers to regress"
    return Target(tuple(columns), kind, tuple(columns), f"targets {listed(columns)}: {meaning}")


def _few_whole(values: np.ndarray, distinct: int) -> bool:
    is_whole = bool(np.all(values == np.floor(values)))
    return is_whole and distinct <= MAX_INTEGER_CLASSES and distinct <= len(values) / 2
