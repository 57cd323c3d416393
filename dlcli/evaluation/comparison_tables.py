"""A comparison of runs as a person reads it in a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from dlcli.console import note, out, print_json
from dlcli.evaluation.compare_runs import Comparison
from dlcli.evaluation.run_differences import Differences


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """Recipes, environments, metrics and tests, one table each."""
    if as_json:
        print_json(comparison.record())
        return
    names = comparison.names
    for title, found, same in (
        ("recipes", comparison.recipes, "recipes: the same"),
        ("environments", comparison.environments, "environments: the same versions, devices and data"),
    ):
        if found:
            print_differences(title, found, names)
        else:
            out.print(same)
    _print_metrics(comparison)
    _print_tests(comparison)
    if comparison.picture is not None:
        note(f"learning curves: {comparison.picture}")


def print_differences(title: str, found: Differences, names: Sequence[str]) -> None:
    """One row for each key, one column for each run."""
    table = Table(title=title, title_justify="left")
    for name in ("key", *names):
        table.add_column(escape(name), overflow="fold")
    for key, values in found.items():
        table.add_row(escape(key), *(escape(_plain(value)) for value in values))
    out.print(table)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_metrics(comparison: Comparison) -> None:
    known = dict.fromkeys(name for each in comparison.metrics for name in each["metrics"] or {})
    if not known:
        out.print("metrics: no run has any")
        return
    table = Table(title="metrics, with 95 % intervals", title_justify="left")
    table.add_column("metric", overflow="fold")
    for name, each in zip(comparison.names, comparison.metrics, strict=True):
        table.add_column(escape(f"{name} ({each['split'] or 'no score'})"), justify="right", overflow="fold")
    for metric in known:
        table.add_row(metric, *(_with_interval(each, metric) for each in comparison.metrics))
    out.print(table)


def _with_interval(report: dict[str, Any], metric: str) -> str:
    """The value, and below it the interval."""
    value = (report["metrics"] or {}).get(metric)
    bounds = (report["intervals"] or {}).get(metric)
    if value is None:
        return "-"
    return f"{value:.4f}" + (f"\n{_range(bounds)}" if bounds and None not in bounds else "")


def _range(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""


def _print_tests(comparison: Comparison) -> None:
    shown = dict(zip((str(run.path) for run in comparison.runs), comparison.names, strict=True))
    tested = [row for row in comparison.tests if "reason" not in row]
    if tested:
        out.print(_table_of_tests(tested, shown, comparison.split))
        how = " or ".join(sorted({row["test"] for row in tested}))
        out.print(f"p: {how}, two-sided; differences: the first run minus the second", highlight=False)
    for row in comparison.tests:
        if "reason" in row:
            text = f"no paired test of {shown[row['first']]} and {shown[row['second']]}: {row['reason']}"
            out.print(text, markup=False, highlight=False, soft_wrap=True)


def _table_of_tests(tested: Sequence[dict[str, Any]], shown: dict[str, str], split: str) -> Table:
    """One row for each metric of each pair; the first metric is the one that was tested."""
    several = len(tested) > 1
    title = f"paired tests on {tested[0]['examples']:,} {tested[0]['units']} of {split}"
    table = Table(title=title, title_justify="left")
    alone = any("only_first_right" in row for row in tested)
    for name in (
        "runs",
        "metric",
        "difference",
        "95 % interval",
        *(["only one right"] if alone else []),
        "p",
    ):
        table.add_column(name, overflow="fold")
    if several:
        table.add_column("p (Holm)")
    for row in tested:
        pair = f"{shown[row['first']]} - {shown[row['second']]}"
        for number, (metric, each) in enumerate(row["differences"].items()):
            value = "-" if each["difference"] is None else f"{each['difference']:+.4f}"
            cells = [escape(pair), metric, value, _range(each["interval"])]
            table.add_row(*cells, *(_test(row, alone, several) if number == 0 else ()))
    return table


def _test(row: dict[str, Any], alone: bool, several: bool) -> list[str]:
    """The cells of a test: how many examples each was alone in having right, and p."""
    counts = f"{row['only_first_right']} : {row['only_second_right']}" if "only_first_right" in row else ""
    values = [row["p"], *([row.get("p_holm")] if several else [])]
    return [*([counts] if alone else []), *("-" if value is None else f"{value:.2g}" for value in values)]
