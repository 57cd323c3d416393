"""What `dlcli explain` prints: a line for each explanation, then how far to believe each method."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from dlcli.console import out, print_json, warn
from dlcli.errors import DlcliError
from dlcli.evaluation.figure import shorten
from dlcli.evaluation.text_inputs import kind_of_path

ROWS_SHOWN = 20
"""Explanations on a terminal; explanation.json has all."""


def print_explanations(report: Mapping[str, Any], as_json: bool) -> None:
    """Shows what was explained; as JSON, the whole of explanation.json.

    Raises:
        DlcliError: some inputs could not be read; the others are explained all the same.
    """
    if as_json:
        with Path(report["file"]).open(encoding="utf-8") as file:
            shutil.copyfileobj(file, sys.stdout)
    else:
        for line in report["texts"]:
            out.print(line, soft_wrap=True)
        out.print(_explanations(report["shown"]))
        if report["inputs"] > len({name for name, _ in report["shown"]}):
            _say(f"{report['inputs']:,} inputs are explained; all stand in {report['file']}")
        if report["inputs"] > 1 and report["faithfulness"]:
            means = [f"{method} {mean:+.2f}" for method, mean in report["faithfulness"].items()]
            _say(f"mean faithfulness: {', '.join(means)}")
        _print_warnings(report["shown"])
        _print_randomization(report["randomization"])
        _say(f"look: {report['index']}")
    if report["unreadable"]:
        others = "the others are explained" if report["inputs"] else "nothing is explained"
        raise DlcliError(f"{report['unreadable']} of the inputs could not be read; {others}")


def _explanations(rows: list[tuple[str, Mapping[str, Any]]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("input", overflow="fold")
    wide = out.width >= 72  # elsewhere the input would have no room
    table.add_column("method", no_wrap=wide, overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("faithfulness", justify="right", no_wrap=wide, overflow="fold")
    table.add_column("than random", no_wrap=wide, overflow="fold")
    stable = any((row["trust"] or {}).get("stability") is not None for _, row in rows)
    if stable:
        table.add_column("stability", justify="right", no_wrap=wide, overflow="fold")
    for name, row in rows:
        trust = row["trust"] or {}
        share = "" if row["probability"] is None else f" {100 * row['probability']:.1f} %"
        cells = [_signed(trust.get("faithfulness")), trust.get("verdict", "").removesuffix(" than random")]
        # Text, because a name such as "[red]" would be read as markup.
        table.add_row(
            Text(shorten(Path(name).name if kind_of_path(Path(name)) == "file" else name, 24)),
            row["method"],
            Text(f"{shorten(row['class'])}{share}"),
            *cells,
            *([_signed(trust.get("stability"))] if stable else []),
        )
    return table


def _print_warnings(rows: list[tuple[str, Mapping[str, Any]]]) -> None:
    """What is wrong with single explanations; the same sentence once."""
    told: dict[str, list[str]] = {}
    for name, row in rows:
        sentences = row["warnings"] if row["status"] == "ok" else [FAILED[row["status"]]]
        for sentence in sentences:
            told.setdefault(f"{row['method']}: {sentence}", []).append(shorten(name, 40))
    for sentence, names in told.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warn(f"{sentence} ({', '.join(names[:3])}{more})")


FAILED = {
    "flat_map": "the map is flat: no part of the input stands out (of an image of one colour: try --baseline black; of "
    "a probability near 1: --output logit)",
    "not_finite": "the map is not finite: there is nothing to see",
}
"""Status of an explanation -> what a person is told in the place of a picture."""


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _print_randomization(checks: Mapping[str, Any]) -> None:
    """Says which methods' maps do not change when the weights are scrambled."""
    for method, check in checks.items():
        if check["passed"] is False:
            warn(f"{method} {check['verdict']}")


def print_audit(report: Mapping[str, Any], as_json: bool) -> None:
    """The methods beside each other, the best first; then where the pictures of the errors are."""
    if as_json:
        print_json(report)
        return
    title = f"{report['examples']:,} of {report['of']:,} {report['split']} examples"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("method", no_wrap=True)
    # Better: than random orders; sum off: of what attributions should sum to; weights: once they are scrambled.
    names = ["faithful", "better", "stable", "sum off", "seconds", "weights"]
    flat = any(row["failed"] for row in report["methods"].values())
    for name in [*names, "flat"] if flat else names:
        table.add_column(name, justify="right", no_wrap=True)
    for method, row in report["methods"].items():
        error = "" if row["faithfulness_error"] is None else f" ±{row['faithfulness_error']:.2f}"
        check = report["randomization"].get(method, {"passed": None})
        table.add_row(
            method,
            f"{_signed(row['faithfulness'])}{error}",
            "" if row["better_than_random"] is None else f"{100 * row['better_than_random']:.0f} %",
            _signed(row["stability"]),
            "" if row["completeness"] is None else f"{100 * row['completeness']:.1f} %",
            f"{row['seconds_a_sample']:.3f}",
            {True: "matter", False: "hardly", None: ""}[check["passed"]],
            *([str(row["failed"])] if flat else []),
        )
    out.print(table)
    for pair in report["confused"]:
        _say(f"{pair['count']} times {pair['true']} was taken for {pair['predicted']}")
    if report["index"]:
        _say(f"look at the errors: {report['index']}")
    _say(f"the numbers: {report['file']}")


def _say(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)
