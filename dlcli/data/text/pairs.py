"""The data set `pairs`: sentences and their translations, in two columns of CSV or TSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np

from dlcli.data.csv_reading import TextTable
from dlcli.data.examples import DataInfo, Source
from dlcli.data.text.rows import fingerprint_of, read_tables, rows_with_text
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError
from dlcli.recipe.arguments import Field


def pairs(
    *,
    path: Path,
    source: str = "source",
    target: str = "target",
    test_path: Path | None = None,
    validation_path: Path | None = None,
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None,
    encoding: str | None = None,
) -> Source:
    """Pairs of texts in two columns of a CSV or TSV file with a header row; the second is what to write.

    Rows in which a side is empty are left out and counted. When quote marks are quoting and when text stands at
    `dlcli.data.text.rows`, encodings at `dlcli.data.text.reading`.

    Args:
        path: the train file.
        source: the column to translate from.
        target: the column to translate to.
        test_path: a file with the same columns, used only by `evaluate`.
        validation_path: a file with the same columns; left out, validation is split off the train file.
        delimiter: one character; left out, the one with which the header holds the columns.
        encoding: a Python codec such as `gb18030`; left out, byte order marks count, else UTF-8 is required.

    Raises:
        DataError: the files cannot be used as they are; every fault is named by file and line.
    """
    if source == target:
        raise DataError(f"dataset.target: expected another column than source. Received: {target} for both")
    files = {"path": path, "validation_path": validation_path, "test_path": test_path}
    tables = read_tables(files, [source, target], delimiter, encoding)
    examples = {}
    notes: list[str] = []
    for argument, table in tables.items():
        whole, empty = rows_with_text(table, [source, target])
        notes += [*table.notes, *empty]
        examples[argument] = _examples(whole, source, target)
    info = DataInfo(
        kind="pairs",
        input_shape=(),
        target="text",
        notes=tuple(notes),
        fingerprint=fingerprint_of(tables),
    )
    return Source(
        examples["path"],
        info,
        None,
        test=examples.get("test_path"),
        validation=examples.get("validation_path"),
    )


def _examples(table: TextTable, source: str, target: str) -> TextExamples:
    columns = {"source": Texts.of(table.columns[source]), "target": Texts.of(table.columns[target])}
    return TextExamples(columns, np.zeros(len(table), np.int32))
