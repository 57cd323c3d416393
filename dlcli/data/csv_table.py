"""Tables in CSV files: `dataset: {name: csv, path: train.csv, target: income}`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import keras
import numpy as np

from dlcli.data.columns import (
    ChosenColumns,
    category_values,
    choose_columns,
    column_notes,
    numeric_values,
)
from dlcli.data.csv_reading import TextTable, listed, raise_problems, read_table
from dlcli.data.examples import ArrayExamples, DataInfo, Source
from dlcli.data.table_preprocessing import input_name, model_columns, table_preprocessing
from dlcli.data.table_targets import Target, encode_target, infer_target, rows_with_target
from dlcli.errors import DataError
from dlcli.recipe.arguments import Field

MANY_COLUMNS = 2_000
"""More are worth a word: Keras needs about 10 ms for each input of a model."""


def csv(
    *,
    path: Path,
    target: str | Sequence[str],
    test_path: Path | None = None,
    columns: dict[str, Literal["numeric", "categorical", "ignore"]] | None = None,
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None,
    encoding: str | None = None,
) -> Source:
    """A table with a header row: numeric columns are standardized, text columns become one-hot.

    Cells that are empty, `?`, `NA`, `N/A`, `nan`, `null` or `None` are missing: numbers get the median and an
    indicator, text a category of its own; rows without a target are left out and counted. What is numeric,
    categorical or left out is stated at `dlcli.data.columns.choose_columns`; what the target means at
    `dlcli.data.table_targets.infer_target`; `columns` overrules both.

    Args:
        path: the train file.
        target: the column to predict, or several: 0/1 columns for multi-label, numbers for regression.
        test_path: a file with the same columns, used only by `evaluate`.
        columns: what named columns are: `numeric`, `categorical` or `ignore`. For the target, `numeric` means
            regression and `categorical` classification.
        delimiter: one character; sniffed among comma, semicolon, tab and bar when left out.
        encoding: a Python codec such as `utf-8` or `shift_jis`; sniffed when left out (UTF-8, UTF-16, else
            windows-1252).

    Raises:
        DataError: the files cannot be used as they are; every fault is named by file, line and column.
    """
    target_columns = [target] if isinstance(target, str) else list(target)
    asked = dict(columns or {})
    train, test = _read_files(path, test_path, delimiter, encoding)
    _check_names(train, test, target_columns, asked)
    train, notes = rows_with_target(train, target_columns)
    problems: list[str] = []
    if not len(train):
        raise DataError(f"{train.path}: every row lacks {listed(target_columns)}; nothing can be learned")
    goal = infer_target(train, target_columns, asked, problems)
    features = [name for name in train.columns if name not in target_columns]
    chosen = choose_columns(train, features, asked, problems)
    notes = [_summary(train, chosen), *train.notes, *notes, *column_notes(train.path.name, chosen)]
    if not problems and not chosen.values:
        problems.append("\n".join([f"{train.path}: no input column is left beside the target", *notes[1:]]))
    raise_problems(problems)
    if goal is None:
        raise ValueError("Expected a target or a problem. Received: neither")
    if len(chosen.values) > MANY_COLUMNS:
        notes.append(
            f"{len(chosen.values):,} columns are as many inputs of the model, which takes minutes to build, save "
            "and load; `columns: {NAME: ignore}` leaves some out"
        )
    train_examples = ArrayExamples(_named_inputs(chosen.values), encode_target(train, goal, problems))
    test_examples = None
    if test is not None:
        test, test_notes = rows_with_target(test, target_columns)
        notes += [*test.notes, *test_notes]
        test_examples = _test_examples(test, chosen, goal, problems)
    raise_problems(problems)
    info = DataInfo(
        kind="table",
        input_shape=(len(chosen.values),),
        target=goal.kind,
        class_names=goal.class_names,
        notes=(*notes, goal.note),
        fingerprint=hashlib.sha256((train.sha256 + (test.sha256 if test else "")).encode()).hexdigest(),
    )
    return Source(train_examples, info, table_preprocessing, test=test_examples)


def read_inputs(
    path: Path,
    numeric: Sequence[str],
    categorical: Sequence[str],
    delimiter: str | None = None,
    encoding: str | None = None,
) -> dict[str, np.ndarray]:
    """Read the input columns of a file for prediction; labels are not needed, other columns are ignored.

    Args:
        path: a CSV file with a header row.
        numeric: names of numeric columns (`dlcli.data.table_preprocessing.model_columns` gives a model's).
        categorical: names of categorical columns.
        delimiter: one character; sniffed when None.
        encoding: a Python codec; sniffed when None.

    Returns:
        `input_name(column)` -> float32 (N, 1) with NaN for missing, or object (N, 1) of str.

    Raises:
        DataError: columns are missing, or numeric columns hold text or infinite numbers.
    """
    table = read_table(path, delimiter, encoding)
    raise_problems(table.missing_columns([*numeric, *categorical]))
    return _read_columns(table, numeric, categorical)


def csv_examples_like(
    model: keras.Model,
    path: Path,
    target: str | Sequence[str],
    delimiter: str | None = None,
    encoding: str | None = None,
) -> ArrayExamples:
    """Read a file as a saved model reads its inputs and names its targets; nothing is inferred from the file.

    Args:
        model: a run's saved model, of a table.
        path: a CSV file with the model's columns and the target; other columns are ignored.
        target: the target column or columns.
        delimiter: one character; sniffed when None.
        encoding: a Python codec; sniffed when None.

    Raises:
        DataError: a column is missing, or a cell is nothing that the model knows.
    """
    last = model.layers[-1]
    columns = (target,) if isinstance(target, str) else tuple(target)
    if last.target != "classes" and columns != tuple(last.class_names):
        raise DataError(
            f"dataset.target {listed(columns)}: the model was trained on {listed(last.class_names)}"
        )
    table = read_table(Path(path), delimiter, encoding)
    raise_problems(table.missing_columns(columns))
    table, _ = rows_with_target(table, columns)
    problems: list[str] = []
    goal = Target(columns, last.target, tuple(last.class_names), "")
    examples = _evaluation_examples(table, *model_columns(model), goal, problems)
    raise_problems(problems)
    if examples is None:
        raise ValueError("Expected examples or a problem. Received: neither")
    return examples


def csv_fingerprint(path: str, test_path: str | None) -> str:
    """The `DataInfo.fingerprint` of these files as they are now; a file that is gone counts as empty."""
    digests = [_file_digest(Path(file)) for file in (path, test_path) if file is not None]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _read_files(
    path: Path, test_path: Path | None, delimiter: str | None, encoding: str | None
) -> tuple[TextTable, TextTable | None]:
    tables: list[TextTable] = []
    problems = []
    for file in [path] if test_path is None else [path, test_path]:
        try:
            tables.append(read_table(Path(file), delimiter, encoding))
        except DataError as error:  # the other file's faults are worth knowing too
            problems.append(str(error))
    raise_problems(problems)
    if len(tables) == 2 and tables[0].sha256 == tables[1].sha256:
        raise DataError(f"{tables[1].path}: test_path is a copy of path; a score on it would mean nothing")
    return tables[0], tables[1] if len(tables) == 2 else None


def _check_names(
    train: TextTable, test: TextTable | None, target_columns: Sequence[str], asked: Mapping[str, str]
) -> None:
    problems = []
    if not target_columns or len(set(target_columns)) < len(target_columns):
        problems.append(f"target: expected one or more different columns. Received: {listed(target_columns)}")
    named = list(dict.fromkeys([*target_columns, *asked]))
    problems += train.missing_columns(named)
    if len(train.columns) == 1:
        problems.append(f"{train.path}:1: only one column was found; `delimiter` says what separates them")
    if test is not None and not problems:
        problems += test.missing_columns(target_columns)
    raise_problems(problems)


def _test_examples(
    table: TextTable, chosen: ChosenColumns, goal: Target, problems: list[str]
) -> ArrayExamples | None:
    numeric = [name for name, kind in chosen.kinds.items() if kind == "numeric"]
    categorical = [name for name in chosen.kinds if name not in set(numeric)]
    examples = _evaluation_examples(table, numeric, categorical, goal, problems)
    if examples is None or not isinstance(examples.inputs, dict):
        return None
    # In the train split's order, so that both splits look alike.
    inputs = {name: examples.inputs[name] for name in _named_inputs(chosen.values)}
    return ArrayExamples(inputs, examples.targets)


def _evaluation_examples(
    table: TextTable, numeric: Sequence[str], categorical: Sequence[str], goal: Target, problems: list[str]
) -> ArrayExamples | None:
    raise_problems(table.missing_columns([*numeric, *categorical]))
    if not len(table):
        problems.append(f"{table.path}: every row lacks {listed(goal.columns)}; nothing can be evaluated")
        return None
    targets = encode_target(table, goal, problems)
    return ArrayExamples(_read_columns(table, numeric, categorical, problems), targets)


def _read_columns(
    table: TextTable, numeric: Sequence[str], categorical: Sequence[str], problems: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    found = list(problems)
    values = {name: numeric_values(table, name, found) for name in numeric}
    raise_problems(found)
    texts = {name: category_values(table, name) for name in categorical}
    return _named_inputs({**{name: array for name, array in values.items() if array is not None}, **texts})


def _named_inputs(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {input_name(name): values for name, values in columns.items()}


def _summary(table: TextTable, chosen: ChosenColumns) -> str:
    numeric = list(chosen.kinds.values()).count("numeric")
    gaps = {
        name: int(np.sum(np.isnan(values) if kind == "numeric" else values == ""))
        for (name, kind), values in zip(chosen.kinds.items(), chosen.values.values(), strict=True)
    }
    missing = listed([f"{name} {count:,}" for name, count in gaps.items() if count], 8)
    kinds = f"{numeric} numeric and {len(chosen.kinds) - numeric} categorical columns"
    text = f"{table.path.name}: {len(table):,} rows, {kinds}"
    return text + (f"; missing cells: {missing}" if missing else "")
