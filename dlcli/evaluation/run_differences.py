"""What differs between runs: recipes, environments, the rows of history.csv. No model and no data is read."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from dlcli.errors import DlcliError
from dlcli.recipe.flat import flattened
from dlcli.runs import Run

CLOCK = ("seconds", "examples_per_second")
"""Columns of history.csv that are never the same twice."""

DECIDES = ("versions", "platform", "machine", "devices", "distribution", "data_fingerprint", "source_sha256")
"""Of environment.json: what the numbers of a training depend on; several devices add floats up in another order."""

SPLITS = ("train", "validation", "test")

_ABSENT = "-"

Differences = dict[str, list[Any]]
"""Dotted key -> its value in each run; `-` where a run has none."""


def check_comparable(runs: Sequence[Run], split: str | None) -> None:
    """Refuses what is no comparison, before any work.

    Raises:
        DlcliError: fewer than two runs, one of them twice, or no such split.
    """
    if len(runs) < 2:
        raise DlcliError("compare what with what? give two runs or more")
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise DlcliError("a run is named twice; compare it with another one")
    if split is not None and split not in SPLITS:
        raise DlcliError(f"--split {split}: allowed: {', '.join(SPLITS)}")


def recipe_differences(runs: Sequence[Run]) -> Differences:
    """Keys of the resolved recipes that differ: `optimizer.learning_rate`."""
    return differences([run.recipe.model_dump(mode="json") for run in runs])


def environment_differences(runs: Sequence[Run]) -> Differences:
    """Versions, platforms, devices and data that differ."""
    known = [environment_of(run) for run in runs]
    return differences([{name: each[name] for name in DECIDES if name in each} for each in known])


def environment_of(run: Run) -> dict[str, Any]:
    """What `environment.json` holds; empty when it was not kept."""
    return run.environment if (run.path / "environment.json").is_file() else {}


def differences(values: Sequence[Mapping[str, Any]]) -> Differences:
    """Keys of nested mappings whose values are not all equal."""
    flat = [flattened(value) for value in values]
    keys = dict.fromkeys(key for each in flat for key in each)
    found = {key: [each.get(key, _ABSENT) for each in flat] for key in keys}
    return {key: each for key, each in found.items() if any(value != each[0] for value in each)}


def history_columns(run: Run) -> dict[str, list[float]]:
    """The columns of `history.csv`, without those of the clock; empty when there is none.

    Raises:
        DlcliError: it cannot be read.
    """
    path = run.path / "history.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # A training that went on with other metrics than before leaves some empty.
        return {name: [float(row[name] or "nan") for row in rows] for name in rows[0] if name not in CLOCK}
    except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
        raise DlcliError(f"{path}: is no history of a training ({error}); put back a copy of it") from error
