"""The data set `text_csv`: a column of documents and one or more of labels, in CSV or TSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from dlcli.data.csv_reading import TextTable, listed, raise_problems
from dlcli.data.examples import DataInfo, Source
from dlcli.data.table_targets import Target, encode_target, infer_target, rows_with_target
from dlcli.data.text.rows import fingerprint_of, read_tables, rows_with_text
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError
from dlcli.recipe.arguments import Field


def text_csv(
    *,
    path: Path,
    text: str,
    target: str | Sequence[str],
    test_path: Path | None = None,
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None,
    encoding: str | None = None,
) -> Source:
    """Documents in a column of a CSV or TSV file with a header row, their labels in others.

    One label column holds classes; several hold 0 and 1 each, labels any of which may hold. Rows with an empty
    text or without a label (empty, `?`, `NA`, `null` and the like) are left out and counted. When quote marks are
    quoting and when text stands at `dlcli.data.text.rows`, encodings at `dlcli.data.text.reading`.

    Args:
        path: the train file.
        text: the column of documents.
        target: the column of classes, or several columns of 0 and 1.
        test_path: a file with the same columns, used only by `evaluate`.
        delimiter: one character; left out, the one with which the header holds the columns.
        encoding: a Python codec such as `gb18030`; left out, byte order marks count, else UTF-8 is required.

    Raises:
        DataError: the files cannot be used as they are; every fault is named by file and line.
    """
    targets = [target] if isinstance(target, str) else list(target)
    if not targets or len({text, *targets}) < len(targets) + 1:
        raise DataError(
            f"dataset.target: expected columns that differ from text and each other. Received: text {text}, "
            f"target {listed(targets) or 'none'}"
        )
    tables = read_tables({"path": path, "test_path": test_path}, [text, *targets], delimiter, encoding)
    notes: list[str] = []
    for argument, table in tables.items():
        tables[argument] = _usable_rows(table, text, targets, notes)
    train = tables["path"]
    problems: list[str] = []
    goal = infer_target(train, targets, dict.fromkeys(targets, "categorical"), problems)
    raise_problems(problems)
    if goal is None:
        raise ValueError("Expected a target or a problem. Received: neither")
    examples = {argument: _examples(table, text, goal, problems) for argument, table in tables.items()}
    raise_problems(problems)
    test = tables.get("test_path")
    if test is not None and goal.kind == "classes":
        unseen = sorted(
            set(goal.class_names) - {goal.class_names[each] for each in examples["test_path"].targets}
        )
        notes += [f"{test.path.name}: no row of {len(unseen)} classes ({listed(unseen)})"] if unseen else []
    info = DataInfo(
        kind="text",
        input_shape=(),
        target=goal.kind,
        class_names=goal.class_names,
        notes=(*notes, goal.note),
        fingerprint=fingerprint_of(tables),
    )
    return Source(examples["path"], info, None, test=examples.get("test_path"))


def _usable_rows(table: TextTable, text: str, targets: Sequence[str], notes: list[str]) -> TextTable:
    with_text, empty = rows_with_text(table, [text])
    labelled, unlabelled = rows_with_target(with_text, targets)
    if not len(labelled):
        raise DataError(f"{table.path}: every row lacks {listed(targets)}; nothing can be learned")
    notes += [*table.notes, *empty, *unlabelled]
    return labelled


def _examples(table: TextTable, text: str, goal: Target, problems: list[str]) -> TextExamples:
    return TextExamples({"text": Texts.of(table.columns[text])}, encode_target(table, goal, problems))
