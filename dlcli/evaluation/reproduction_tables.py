"""How far a reproduction agrees, as a person reads it in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from dlcli.console import out, print_json
from dlcli.evaluation.compare_runs import short_names
from dlcli.evaluation.comparison_tables import print_differences

_PARTS = {"weights": "weights of {}.keras", "history": "history: {}", "metrics": "metric: {}"}


def print_reproduction(report: dict[str, Any], as_json: bool) -> None:
    """One line where all bits agree, else what differs and what has changed."""
    if as_json:
        print_json(report)
        return
    if report["exact"]:
        counted = {"weights": "model", "history": "column of history", "metrics": "metric"}
        same = (_count(len(report[part]), unit) for part, unit in counted.items())
        out.print(f"bit-exact: the weights of {', '.join(same)}", highlight=False)
    else:
        _print_apart(report)
    if report["changed"]:
        names = short_names([Path(report["run"]), Path(report["reproduction"])])
        print_differences("changed since", report["changed"], names)
    for doubt in report["doubts"]:
        out.print(doubt, highlight=False, markup=False, soft_wrap=True)
    if not report["exact"]:
        for command in report["commands"]:
            out.print(f"command: {' '.join(command or ['unknown'])}", highlight=False, markup=False)
    out.print(f"run: {report['reproduction']}", highlight=False, soft_wrap=True, markup=False)


def _count(number: int, unit: str) -> str:
    """`1 metric`, `6 columns of history`."""
    noun, _, rest = unit.partition(" ")
    return f"{number} {noun}{'' if number == 1 else 's'}{' ' + rest if rest else ''}"


def _print_apart(report: dict[str, Any]) -> None:
    table = Table(title="not bit-exact", title_justify="left")
    for name in ("what", "largest difference", "where", "then", "now"):
        table.add_column(name, overflow="fold")
    for part, wording in _PARTS.items():
        for name, each in report[part].items():
            if each["exact"]:
                continue
            largest = each["largest_difference"]
            values = ["-" if value is None else f"{value:.6g}" for value in each.get("values", ())]
            table.add_row(
                escape(wording.format(name)),
                "-" if largest is None else f"{largest:.3g}",
                escape(each.get("where") or ""),
                *values,
            )
    out.print(table)
    same = [f"{part} {name}" for part in _PARTS for name, each in report[part].items() if each["exact"]]
    if same:
        out.print(f"the same: {', '.join(same)}", highlight=False, markup=False, soft_wrap=True)
