"""Reports as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from dlcli.console import note, out, print_json
from dlcli.errors import DlcliError
from dlcli.evaluation.predict import Prediction
from dlcli.evaluation.prediction_files import prediction_record, predictions_table, write_predictions

CLASSES_SHOWN = 20


def print_report(report: dict[str, Any], run: Path, as_json: bool) -> None:
    """The metrics of a split with their intervals, then the classes."""
    if as_json:
        print_json({"run": str(run), **report})
        return
    if not report.get("metrics"):
        out.print(str(run), highlight=False, soft_wrap=True)
        return
    floor = report.get("floor", {})
    table = Table(title=f"{report['split']}: {report['examples']:,} examples", title_justify="left")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    if floor:
        table.add_column(escape(floor["of"]), justify="right")
    for name, value in report["metrics"].items():
        low_high = report["intervals"].get(name)
        interval = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high and None not in low_high else ""
        beside = [f"{floor[name]:.4f}" if name in floor else ""] if floor else []
        table.add_row(name, "undefined" if value is None else f"{value:.4f}", interval, *beside)
    out.print(table)
    _print_classes(report)
    _print_samples(report)
    pictures = sorted(Path(report.get("pictures", run / "plots")).glob("*.png"))
    if pictures:
        note(f"pictures: {', '.join(str(path) for path in pictures)}")
    out.print(f"run: {run}", highlight=False, soft_wrap=True, markup=False)


def _print_classes(report: dict[str, Any]) -> None:
    classes = report.get("per_class") or []
    if not 2 < len(classes) <= CLASSES_SHOWN:
        return
    table = Table(title="classes", title_justify="left")
    for name in ("class", "precision", "recall", "f1", "support"):
        table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
    for row in classes:
        numbers = ["-" if row[name] is None else f"{row[name]:.3f}" for name in ("precision", "recall", "f1")]
        table.add_row(escape(str(row["name"])), *numbers, str(row["support"]))
    out.print(table)


def _print_samples(report: dict[str, Any]) -> None:
    """Of a model that draws: whose features the distances are in, and which classes it draws."""
    shares = report.get("class_shares") or {}
    if shares and len(shares) <= CLASSES_SHOWN:
        table = Table(title="classes, by the network of the features", title_justify="left")
        for name in ("class", "drawn", "real"):
            table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
        for name, share in shares.items():
            table.add_row(escape(name), f"{share:.1%}", f"{report['class_shares_real'][name]:.1%}")
        out.print(table)
    features = report.get("features")
    if features:
        whose = f"features: {features['source']} ({features['network']}, {features['dimension']} numbers)"
        out.print(whose, highlight=False, soft_wrap=True, markup=False)
        out.print(features["note"], highlight=False, soft_wrap=True, markup=False)


def print_predictions(rows: Iterable[Prediction], destination: Path | None, as_json: bool) -> None:
    """Predictions as a file, as JSON or as a table.

    Raises:
        DlcliError: some inputs could not be read; the others are predicted all the same.
    """
    kept: list[Prediction] = []
    if destination is not None:
        counts = write_predictions(rows, destination)
        written, failed = counts.predicted, counts.failed
        if as_json:
            print_json({"predictions": written, "failed": failed, "file": str(destination)})
        else:
            out.print(f"{written} predictions: {destination}", highlight=False, markup=False, soft_wrap=True)
    else:
        kept = list(rows)
        failed = sum(row.error is not None for row in kept)
        written = len(kept) - failed
        if as_json:
            print_json({"predictions": [prediction_record(row) for row in kept]})
        else:
            out.print(predictions_table(kept))
    if failed:
        others = "the others are predicted" if written else "nothing is predicted"
        raise DlcliError(f"{failed} of the inputs could not be read; {others}")
