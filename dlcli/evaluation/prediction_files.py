"""Predictions as a CSV or JSON file, or as a table on a terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from dlcli.errors import DlcliError
from dlcli.evaluation.predict import Prediction
from dlcli.files import atomic_path

if TYPE_CHECKING:
    from rich.table import Table

MOST_COLUMNS = 100
"""With more classes than this only the most probable are written."""


class Counts(NamedTuple):
    """How many inputs were predicted, and how many could not be read."""

    predicted: int
    failed: int


def write_predictions(rows: Iterable[Prediction], path: Path) -> Counts:
    """Writes predictions as they come; the file appears when it is complete.

    Args:
        rows: Predictions of one model.
        path: Ends with `.csv` or `.json`.

    Raises:
        DlcliError: Another suffix; raised before any input is read.
    """
    writers = {".csv": _write_csv, ".json": _write_json}
    if path.suffix.lower() not in writers:
        raise DlcliError(f"{path}: expected a file name that ends with .csv or .json")
    if path.is_dir():
        raise DlcliError(f"{path}: is a folder; give the name of a file")
    # A file name that is not UTF-8 is written with its bytes as \udcff, not refused.
    with (
        atomic_path(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        return writers[path.suffix.lower()](rows, file)


def prediction_record(row: Prediction) -> dict[str, Any]:
    """For JSON: `input` with `class`, `probability` and `top`; or with `labels`, `values`, `text` or `error`."""
    if row.error is not None:
        return {"input": row.input, "error": row.error}
    if row.head.target == "text":
        return {"input": row.input, "text": row.text, **dict(row.top), **row.details}
    if row.head.target == "values":
        return {"input": row.input, "values": dict(row.top)}
    record: dict[str, Any] = {"input": row.input}
    if row.head.target == "classes":
        record |= {"class": row.class_name, "probability": row.probability}
    else:
        record["labels"] = list(row.labels)
    record["top"] = [{"class": name, "probability": probability} for name, probability in row.top]
    if len(row.head.names) <= MOST_COLUMNS:
        record["probabilities"] = dict(zip(row.head.names, _outputs(row), strict=True))
    return record


def predictions_table(rows: Iterable[Prediction]) -> Table:
    """Predictions for a terminal, one a line, what could not be read in red."""
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("input", overflow="fold")
    if rows and rows[0].head.target in ("values", "text"):
        if rows[0].head.target == "text":
            table.add_column("text", overflow="fold")
        for name in rows[0].head.names:
            table.add_column(Text(name), justify="right")
    else:
        table.add_column("labels" if rows and rows[0].head.target == "labels" else "class", overflow="fold")
        table.add_column("probability", justify="right")
        table.add_column("then" if rows and rows[0].head.target == "classes" else "most probable")
    for row in rows:
        # Text, because a name such as "[red]" would be read as markup.
        table.add_row(
            Text(row.input), *(Text(cell) for cell in _cells(row)), style="red" if row.error else None
        )
    return table


def _cells(row: Prediction) -> list[str]:
    if row.error is not None:
        return [row.error]
    if row.head.target in ("values", "text"):
        text = [row.text or ""] if row.head.target == "text" else []
        return text + [f"{value:.6g}" for _, value in row.top]
    others = row.top[1:] if row.head.target == "classes" else row.top
    listed = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in others)
    return [row.class_name or "", "" if row.probability is None else f"{100 * row.probability:.1f} %", listed]


def _write_json(rows: Iterable[Prediction], file: TextIO) -> Counts:
    predicted = failed = 0
    file.write("[")
    for row in rows:
        file.write("\n" if predicted + failed == 0 else ",\n")
        file.write(json.dumps(prediction_record(row), ensure_ascii=False, allow_nan=False))
        predicted, failed = predicted + (row.error is None), failed + (row.error is not None)
    file.write("\n]\n")
    return Counts(predicted, failed)


def _write_csv(rows: Iterable[Prediction], file: TextIO) -> Counts:
    predicted = failed = 0
    writer = csv.writer(file)
    for row in rows:
        header = _csv_header(row)
        if predicted + failed == 0:
            writer.writerow(header)
        cells = _csv_cells(row) if row.error is None else [""] * (len(header) - 2)
        writer.writerow([row.input, *cells, row.error or ""])
        predicted, failed = predicted + (row.error is None), failed + (row.error is not None)
    return Counts(predicted, failed)


def _csv_header(row: Prediction) -> list[str]:
    names, target = row.head.names, row.head.target
    if target in ("values", "text"):
        return ["input", *(["text"] if target == "text" else []), *names, "error"]
    first = ["class", "probability"] if target == "classes" else ["labels"]
    ranks = range(2 if target == "classes" else 1, row.head.top + 1)
    others = [column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}")]
    every = [f"probability of {name}" for name in names] if len(names) <= MOST_COLUMNS else []
    return ["input", *first, *others, *every, "error"]


def _csv_cells(row: Prediction) -> list[Any]:
    values = _outputs(row)
    if row.head.target in ("values", "text"):
        return [row.text, *values] if row.head.target == "text" else values
    first = [row.class_name, row.probability] if row.head.target == "classes" else [row.class_name]
    others = [cell for pair in row.top[1 if row.head.target == "classes" else 0 :] for cell in pair]
    return [*first, *others, *(values if len(values) <= MOST_COLUMNS else [])]


def _outputs(row: Prediction) -> list[float]:
    return [] if row.outputs is None else row.outputs.tolist()
