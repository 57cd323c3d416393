"""What was exported, as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from dlcli.console import out, print_json
from dlcli.errors import CheckFailedError, DlcliError


def print_outcomes(run: str, outcomes: Sequence[dict[str, Any]], as_json: bool) -> None:
    """One table of all formats, with Keras as the first row."""
    if as_json:
        print_json({"run": run, "exports": list(outcomes)})
        return
    done = [each for each in outcomes if each["status"] == "exported"]
    if done:
        out.print(_table(done))
    for each in outcomes:
        if each["status"] == "exported":
            text = f"{each['format']}: {each['folder']}"
        else:
            reason, _, more = each["reason"].partition("\n")
            hint = f" (--format {each['format']} alone says more)" if more else ""
            text = f"{each['format']}: {each['status']}: {reason}{hint}"
        out.print(text, highlight=False, markup=False, soft_wrap=True)


def check_outcomes(outcomes: Sequence[dict[str, Any]], every: bool) -> None:
    """Turns what went wrong into an exit code.

    Args:
        outcomes: of all formats.
        every: `--all`: what cannot be done does not count, as long as something can.

    Raises:
        CheckFailedError: a check said no.
        DlcliError: a format that was named was refused, or all of them were.
    """
    names = {
        status: [each["format"] for each in outcomes if each["status"] == status] for status in _STATUSES
    }
    if names["failed"]:
        raise CheckFailedError(f"differ from the model and were not kept: {', '.join(names['failed'])}")
    refused = names["refused"] + names["missing"]
    if refused and not (every and names["exported"]):
        raise DlcliError(f"not exported: {', '.join(refused)}")


_STATUSES = ("exported", "refused", "missing", "failed")


def _table(done: Sequence[dict[str, Any]]) -> Table:
    first = done[0]
    title = f"{first['quantization'] or 'float32'}, {first['examples']} {compared_on(first['split'])}"
    table = Table(title=title, title_justify="left")
    metric = (first["metric"] or "metric").replace("mean_difference", "mean diff")
    for name in ("format", "max diff", "agree", metric, "size", "ms, 1 row", "ms, 64"):
        table.add_column(name, justify="left" if name == "format" else "right", no_wrap=True)
    table.add_row("Keras", "", "", _number(first["metric_keras"]), *_size_and_time(first, "keras"))
    for each in done:
        agreement = "" if each["agreement"] is None else f"{each['agreement']:.2%}"
        table.add_row(
            escape(each["format"]),
            f"{each['max_difference']:.1e}",
            agreement,
            _number(each["metric_artefact"]),
            *_size_and_time(each, "artefact"),
        )
    return table


def compared_on(split: str) -> str:
    """`examples of the test split`, or `random inputs`."""
    return "random inputs" if split == "random" else f"examples of the {split} split"


def _size_and_time(each: dict[str, Any], side: str) -> tuple[str, ...]:
    size, latency = each["bytes"][side], each["latency_ms"][side]
    shown = f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
    return shown, *(f"{taken:.3g}" if taken < 100 else f"{taken:.0f}" for taken in latency.values())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
