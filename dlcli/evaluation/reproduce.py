"""A run trained again from its own recipe, and how far the two agree: weights, history, metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcli.console import note
from dlcli.errors import CheckFailedError, DlcliError, TrainingInterruptedError
from dlcli.evaluation.run_differences import (
    Differences,
    differences,
    environment_differences,
    environment_of,
    history_columns,
    recipe_differences,
)
from dlcli.layers.tokens import saved_tokenizer, tokens_of
from dlcli.recipe.load import PATHS, load_recipe
from dlcli.runs import Run, environment
from dlcli.training.recovery import failures_of
from dlcli.training.train import finetune, resume, train

if TYPE_CHECKING:
    import keras

_OF_DATA = tuple(f"dataset.{name}" for name in PATHS)
MOVABLE = (*_OF_DATA, "finetune.source", "architecture.source")
"""Keys that say where something lies, which may be elsewhere on another machine."""

Report = dict[str, Any]


def check_movable(changes: Sequence[str]) -> None:
    """Refuses changes that would make another training of it.

    Raises:
        DlcliError: one of them changes more than where the data are.
    """
    for change in changes:
        if change.split("=", 1)[0].strip() not in MOVABLE:
            raise DlcliError(
                f"--set {change}: a reproduction trains the run's own recipe; only where its data lie can be "
                f"changed: {', '.join(MOVABLE)}"
            )


def reproduce_run(run: Run, out: Path | None = None, changes: Sequence[str] = ()) -> Run:
    """Trains again what a run was trained with: its recipe, its vocabulary, the model that it began from.

    Args:
        run: whose training has ended.
        out: the new run folder; left out, RUN-reproduced, RUN-reproduced-2, ...
        changes: of the recipe: where data lie.

    Raises:
        DlcliError: the run has not ended, or its recipe cannot be trained here; otherwise as `train`.
    """
    _refuse_unfinished(run)
    check_movable(changes)
    recipe = load_recipe(run.path / "recipe.yaml", changes)
    out = out or _free_name(run.path)
    known, here = environment_of(run), environment("")
    now = {key: here[key] if key in _HERE else value for key, value in known.items()}
    if changed := differences([known, now]):
        note(f"not the same as when {run.path} was trained: {_said(changed)}")
    tokenizer = saved_tokenizer(run.model_path)  # WordPiece and Unigram learn other pieces each time
    try:
        if recipe.finetune is not None:
            return finetune(recipe, out.name, out=out, tokenizer=tokenizer)
        return train(recipe, out.name, out, tokenizer)
    except TrainingInterruptedError as error:
        raise TrainingInterruptedError(
            f"{error}\nThen compare: dlcli reproduce {quote(str(run.path))} --resume {quote(str(out))}",
            error.exit_code,
        ) from None


def finish_reproduction(run: Run, again: Run) -> Run:
    """Goes on with a reproduction that was interrupted; one that is complete stays as it is.

    Raises:
        DlcliError: the two were not trained from one recipe; otherwise as `resume`.
    """
    _refuse_unfinished(run)
    other = sorted(set(recipe_differences([run, again])) - set(MOVABLE))
    if other:
        raise DlcliError(
            f"--resume {again.path}: no reproduction of {run.path}: their recipes differ in {', '.join(other)}; "
            "`dlcli compare` compares runs of different recipes"
        )
    return resume(again)


def _refuse_unfinished(run: Run) -> None:
    if not run.has_ended:
        raise DlcliError(
            f"{run.path}: its training has not ended, so there is nothing to compare with: "
            f"dlcli train --resume {quote(str(run.path))}"
        )


_HERE = ("versions", "platform", "machine", "devices")
"""Of environment.json: what is known before the data are read."""


def _free_name(path: Path) -> Path:
    path = path if path.name not in ("", "..") else path.resolve()
    names = (f"{path.name}-reproduced" + (f"-{number}" if number > 1 else "") for number in count(1))
    return next(place for place in map(path.with_name, names) if not place.exists())


def compare_exactly(run: Run, again: Run) -> Report:
    """How far two trainings of one recipe agree, bit by bit.

    Returns:
        `exact`; `expected_exact`, and with it what speaks against it in `changed` and `doubts`; `weights` of each
        saved model, `history` of each column, and `metrics`, each with `exact` and `largest_difference` (None where
        numbers cannot be compared); `commands`.
    """
    changed = _changed(run, again)
    doubts = _doubts(run, again)
    parts = {
        "weights": {
            name: _compare_models(run, again, name)
            for name in sorted({*_models(run), *_models(again)}, key=lambda name: (name != "model", name))
        },
        "history": _compare_columns(history_columns(run), history_columns(again)),
        "metrics": _compare_metrics(run, again),
    }
    return {
        "run": str(run.path),
        "reproduction": str(again.path),
        "exact": all(each["exact"] for part in parts.values() for each in part.values()),
        "expected_exact": not changed and not doubts,
        "changed": changed,
        "doubts": doubts,
        **parts,
        "commands": [environment_of(each).get("command") for each in (run, again)],
    }


def _changed(run: Run, again: Run) -> Differences:
    """What two trainings do not share; not where it lies, since fingerprint and sha256 say what it is."""
    has_sha256 = all(environment_of(each).get("source_sha256") for each in (run, again))
    places = MOVABLE if has_sha256 else _OF_DATA  # of a source without one, a preset, only the name is known
    recipes = recipe_differences([run, again])
    kept = {key: values for key, values in recipes.items() if key not in places}
    return kept | environment_differences([run, again])


def _doubts(run: Run, again: Run) -> list[str]:
    """Why two trainings on one machine need not be the same, though nothing is known to have changed."""
    known = environment_of(run)
    if not known:
        return ["environment.json was not kept, so nobody knows what has changed"]
    found = []
    if known.get("resumed"):
        found.append("the run went on from a checkpoint with something changed (environment.json: resumed)")
    actions = {failure["action"] for each in (run, again) for failure in failures_of(each)}
    if "rollback" in actions and run.recipe.training.checkpoint.every_minutes is not None:
        found.append(
            "a loss was not finite, and the checkpoint that training went back to was perhaps one that the clock had "
            "set (failures.json, training.checkpoint.every_minutes)"
        )
    if "halve_batch" in actions:
        found.append("memory ran out, so that batches were added up in parts (failures.json)")
    if any(
        device.startswith("GPU")
        for each in (run, again)
        for device in environment_of(each).get("devices", [])
    ):
        found.append("a GPU adds up in another order each time")
    return found


def _models(run: Run) -> tuple[str, ...]:
    return ("model", *run.parts)


def _compare_models(run: Run, again: Run, name: str) -> dict[str, Any]:
    missing = [str(each.part_path(name)) for each in (run, again) if not each.part_path(name).is_file()]
    if missing:
        return {"exact": False, "largest_difference": None, "where": f"{missing[0]} is missing"}
    return compare_weights(run.part(name), again.part(name))


def compare_weights(first: keras.Model, second: keras.Model) -> dict[str, Any]:
    """The largest difference of two models' weights, and which weight has it."""
    vocabularies = [tokens and tokens.tokenizer_json for tokens in (tokens_of(first), tokens_of(second))]
    if vocabularies[0] != vocabularies[1]:
        return {"exact": False, "largest_difference": None, "where": "the vocabulary"}
    counts = [len(model.weights) for model in (first, second)]
    if counts[0] != counts[1]:
        return {
            "exact": False,
            "largest_difference": None,
            "where": f"{counts[0]} weights, and {counts[1]}",
        }
    largest = 0.0
    where: str | None = None
    for weight, other in zip(first.weights, second.weights, strict=True):
        values, others = (np.asarray(each.value) for each in (weight, other))
        if values.shape != others.shape:
            return {"exact": False, "largest_difference": None, "where": f"the shape of {weight.path}"}
        if values.tobytes() == others.tobytes():
            continue
        apart = np.abs(values.astype(np.float64) - others.astype(np.float64))
        difference = float(np.nan_to_num(apart, nan=np.inf).max())
        if where is None or difference > largest:
            largest, where = difference, weight.path
    return {"exact": where is None, "largest_difference": _finite(largest), "where": where}


def _compare_columns(
    first: Mapping[str, list[float]], second: Mapping[str, list[float]]
) -> dict[str, dict[str, Any]]:
    """Column -> its largest difference, and the first epoch in which it differs."""
    found = {}
    for name in dict.fromkeys([*first, *second]):
        values, others = first.get(name, []), second.get(name, [])
        pairs = list(zip(values, others, strict=False))
        apart = [epoch for epoch, pair in enumerate(pairs, start=1) if not _same(*pair)]
        if len(values) != len(others):
            apart.append(len(pairs) + 1)
        largest = max((abs(value - other) for value, other in pairs), default=0.0)
        found[name] = {
            "exact": not apart,
            "largest_difference": _finite(largest) if len(values) == len(others) else None,
            "where": f"epoch {apart[0]}" if apart else None,
        }
    return found


def _compare_metrics(run: Run, again: Run) -> dict[str, dict[str, Any]]:
    first, second = run.metrics, again.metrics
    values, others = (each.get("metrics") or {} for each in (first, second))
    found = {}
    for name in dict.fromkeys([*values, *others]):
        value, other = values.get(name), others.get(name)
        both = name in values and name in others and first["split"] == second["split"]
        difference = None if value is None or other is None or not both else abs(value - other)
        found[name] = {
            "exact": both and value == other,
            "largest_difference": difference,
            "values": [value, other],
        }
    return found


def _same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def check_tolerance(run: Run, tolerance: float | None) -> None:
    """Refuses a tolerance where there is nothing to hold against it, before any work.

    Raises:
        DlcliError: the run has no metrics.
    """
    if tolerance is not None and not run.metrics.get("metrics"):
        raise _nothing_to_tolerate(str(run.path), tolerance)


def _nothing_to_tolerate(run: str, tolerance: float) -> DlcliError:
    return DlcliError(
        f"--tolerance {tolerance:g}: a tolerance is of metrics, and {run} has no metrics; without it, weights and "
        "history are compared bit by bit"
    )


def check_reproduction(report: Report, tolerance: float | None) -> None:
    """Says no where two trainings should have agreed, and do not.

    Args:
        report: of `compare_exactly`.
        tolerance: how far a metric may be off; None asks for the same bits, where nothing has changed.

    Raises:
        CheckFailedError: exit code 3.
        DlcliError: a tolerance, and no metrics.
    """
    if tolerance is not None:
        if not report["metrics"]:
            raise _nothing_to_tolerate(report["run"], tolerance)
        far = [
            f"{name} {_shown(each['values'])}"
            for name, each in report["metrics"].items()
            if not each["exact"]
            and (each["largest_difference"] is None or each["largest_difference"] > tolerance)
        ]
        if far:
            raise CheckFailedError(f"further apart than --tolerance {tolerance:g}: {'; '.join(far)}")
    elif report["expected_exact"] and not report["exact"]:
        raise CheckFailedError(
            f"{report['reproduction']} is not bit-exact, though recipe, data, versions and devices are those of "
            f"{report['run']}; to allow a difference of metrics: --tolerance"
        )


def _shown(values: Sequence[float | None]) -> str:
    return " and ".join("undefined" if value is None else f"{value:.6g}" for value in values)


def _said(changed: Differences) -> str:
    return "; ".join(f"{key} {was}, now {now}" for key, (was, now) in changed.items())
