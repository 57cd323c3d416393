"""Rows of CSV files -> Subjects, and the rows that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from dlcli.data.columns import numeric_values
from dlcli.data.csv_reading import listed, raise_problems, read_table
from dlcli.data.csv_table import read_inputs
from dlcli.data.table_preprocessing import column_name, model_columns, takes_columns
from dlcli.errors import DataError, DlcliError
from dlcli.explain.attribution import Subject, Unreadable

Rows = dict[str, np.ndarray] | np.ndarray
"""N rows as the model reads them: columns, each (N, 1), or float32 (N, D)."""

MAX_BACKGROUND = 100
"""Rows that stand for the train split; more change little ("usually pretty good", shap's author, shap#1173)."""


def inputs_of_tables(
    model: keras.Model,
    inputs: Iterable[str],
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Iterator[Subject | Unreadable]:
    """The rows of CSV files, read as `dlcli predict` reads them.

    Args:
        model: takes a dict of columns, each (B, 1), as models of dlcli do; or float (B, D), as others do: then the
            file has D columns, in the model's order, and its header names them.
        inputs: files.
        delimiter: one character; sniffed when None.
        encoding: a Python codec; sniffed when None.

    Yields:
        One for each row, in order, named `table.csv row 3`; of a file that cannot be read, one that says why.
    """
    read = _rows_of_columns if takes_columns(model) else _rows_of_numbers
    for path in inputs:
        try:
            yield from read(model, Path(path), delimiter, encoding)
        except DataError as error:
            yield Unreadable(path, str(error))


def columns_of(subject: Subject) -> tuple[str, ...]:
    """The names of the D columns, in the order of `Attribution.values`."""
    if isinstance(subject.inputs, Mapping):
        return tuple(map(column_name, subject.inputs))
    return subject.words or tuple(f"column {index}" for index in range(len(subject.inputs)))


def cells_of(subject: Subject) -> list[float | str]:
    """What stands in the D columns; a missing number is NaN, a missing word is empty."""
    row = subject.inputs
    if isinstance(row, Mapping):
        return [column[0] if column.dtype.kind in "OUS" else float(column[0]) for column in row.values()]
    return [float(number) for number in row]


def _rows_of_columns(
    model: keras.Model, path: Path, delimiter: str | None, encoding: str | None
) -> Iterator[Subject]:
    read = read_inputs(path, *model_columns(model), delimiter, encoding)
    columns = {name: read[name] for name in model.input}  # the order of the train file
    known = _vocabularies(model)
    for row in range(len(next(iter(columns.values())))):
        cells = {name: values[row] for name, values in columns.items()}
        unseen = [
            f"{column_name(name)} {cells[name][0] or '(empty)'!s} was never seen in training"
            for name, words in known.items()
            if cells[name][0] not in words
        ]
        yield Subject(f"{path} row {row + 1}", cells, tuple(map(column_name, cells)), notes=tuple(unseen))


def _vocabularies(model: keras.Model) -> dict[str, set[str]]:
    """Input's name -> the words that its column had in training; `table_preprocessing` names the layers so."""
    lookups = {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.StringLookup)}
    return {
        name: set(lookups[f"{name}_one_hot"].get_vocabulary())
        for name in model.input
        if f"{name}_one_hot" in lookups
    }


def _rows_of_numbers(
    model: keras.Model, path: Path, delimiter: str | None, encoding: str | None
) -> Iterator[Subject | Unreadable]:
    table = read_table(path, delimiter, encoding)
    names, width = tuple(table.columns), model.inputs[0].shape[-1]
    if len(names) != width:
        raise DataError(
            f"{path}:1: the header names {len(names)} columns ({listed(names, 12)}), and the model reads {width} "
            f"numbers a row; leave exactly those {width} columns, in the order in which it was trained on them"
        )
    problems: list[str] = []
    columns = [numeric_values(table, name, problems) for name in names]
    raise_problems(problems)
    rows = np.concatenate([column for column in columns if column is not None], axis=1)  # (N, D)
    for index, row in enumerate(rows):
        name = f"{path} row {index + 1}"
        missing = [column for column, number in zip(names, row, strict=True) if np.isnan(number)]
        if missing:
            yield Unreadable(
                name,
                f"{listed(missing)}: the cell is empty, and a model from elsewhere has no way to fill it",
            )
        else:
            yield Subject(name, row, names)


def some_of(count: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of the indices 0..count-1, drawn by the seed, in their order."""
    return np.sort(np.random.default_rng(seed).choice(count, min(most, count), replace=False))


def background_of_subjects(subjects: Sequence[Subject], seed: int = 0) -> Rows:
    """Rows to compare with when there is no train split: of those that the user gave, at most MAX_BACKGROUND.

    Raises:
        DlcliError: there are fewer than two.
    """
    if len(subjects) < 2:
        raise DlcliError(
            "one row alone has nothing to be compared with; give a file with more rows, or the run in place of the "
            "model's file"
        )
    rows = [subjects[index].inputs for index in some_of(len(subjects), MAX_BACKGROUND, seed).tolist()]
    if isinstance(rows[0], Mapping):
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return np.stack(rows)
