"""What a training does about NaN and lack of memory: writes down what happened, and stops or goes on otherwise.

RUN/failures.json is a list, oldest first, and more than a log: what was changed to go on stands there alone. So a run
that is killed afterwards and resumed goes on with the same changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dlcli.console import note, warn
from dlcli.data.stream import indices_of_step
from dlcli.errors import DlcliError, NotFiniteError, OutOfMemoryError, TrainingFailedError
from dlcli.recipe.learning_rates import times_learning_rate
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, write_json
from dlcli.training.failures import has_checkpoint, what_is_kept
from dlcli.training.gradient_norm import GradientNorms
from dlcli.training.schedules import learning_rates
from dlcli.training.steps.trainer import Trainer

if TYPE_CHECKING:
    from dlcli.training.job import Job

FILE = "failures.json"
MOST_ROLLBACKS = 3
SLOWER = 0.5
"""What a rollback multiplies the learning rate with; a power of two, so that each schedule keeps its exact shape."""
LIKELY_CAUSE = (
    "A learning rate that is too large is the usual cause: try a tenth of it, regularization.gradient_clipping, or a "
    "warm-up"
)


def failures_of(run: Run) -> list[dict[str, Any]]:
    """What went wrong in a run so far, oldest first.

    Raises:
        DlcliError: the file is damaged.
    """
    path = run.path / FILE
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(failure) for failure in found]
    except (ValueError, TypeError) as error:
        raise DlcliError(
            f"{path}: damaged ({error}); without it nobody knows the learning rate and the parts of a batch that this "
            "run went on with: train the recipe anew"
        ) from error


def with_recoveries(recipe: Recipe, failures: Sequence[Mapping[str, Any]]) -> Recipe:
    """The recipe as it trains on after these failures: at a lower learning rate, or with batches in more parts."""
    rollbacks = _rollbacks(failures)
    asked = recipe.training.gradient_accumulation  # which may be more than was found, by `--resume --set`
    found = [failure["gradient_accumulation"] for failure in failures if failure["action"] == "halve_batch"]
    parts = max([asked, *found])
    if rollbacks:
        recipe = times_learning_rate(recipe, SLOWER**rollbacks)
    if parts > asked:
        training = recipe.training.model_copy(update={"gradient_accumulation": parts})
        recipe = recipe.model_copy(update={"training": training})
    return recipe


def _rollbacks(failures: Sequence[Mapping[str, Any]]) -> int:
    return sum(failure["action"] == "rollback" for failure in failures)


def note_recoveries(run: Run, recipe: Recipe) -> None:
    """Says what `with_recoveries` changes in the recipe of a run that goes on; nothing where that is nothing."""
    failures = failures_of(run)
    rollbacks = _rollbacks(failures)
    parts = with_recoveries(recipe, failures).training.gradient_accumulation
    said = []
    if rollbacks:
        times = "once" if rollbacks == 1 else f"{rollbacks} times"
        said.append(f"learning rates times {SLOWER**rollbacks:g} ({times} not finite)")
    if parts > recipe.training.gradient_accumulation:
        said.append(f"each batch in {parts} parts (out of memory)")
    if said:
        note(f"{run.path} goes on with what it recovered from ({run.path / FILE}): {'; '.join(said)}")


def after_not_finite(job: Job, run: Run, error: NotFiniteError) -> None:
    """Writes down a NaN; returns if training is to go on from its last checkpoint, with `with_recoveries`.

    Args:
        job: as it was when it happened.
        run: its folder.
        error: what happened.

    Raises:
        TrainingFailedError: it is to stop, or has gone back too often.
    """
    failures = failures_of(run)
    before = _rollbacks(failures)
    goes_on = job.recipe.training.on_nan == "rollback" and before < MOST_ROLLBACKS
    record = {
        "what": f"{error.what} not finite",
        "action": "rollback" if goes_on else "stop",
        **_circumstances(job, error),
    }
    write_json(run.path / FILE, [*failures, record])
    said = f"{error} ({_shown(record)}; the batch's examples are in {run.path / FILE})"
    if goes_on:
        warn(
            f"{said}; back to the last checkpoint, at half the learning rate ({before + 1} of {MOST_ROLLBACKS})"
        )
        return
    again = f", after it has gone back {before} of {MOST_ROLLBACKS} times" if before else ""
    go_on = ""
    if job.recipe.training.on_nan == "stop" and has_checkpoint(run):
        go_on = (
            ". Go on from the last checkpoint, at half the learning rate each time that it happens, with: "
            f"dlcli train --resume {quote(str(run.path))} --set training.on_nan=rollback"
        )
    raise TrainingFailedError(f"{said}{again}. {LIKELY_CAUSE}. {what_is_kept(run)}{go_on}")


def after_out_of_memory(job: Job, run: Run, error: OutOfMemoryError) -> None:
    """Writes down that memory ran out; returns if training is to go on from its last checkpoint in smaller parts.

    Args:
        job: as it was when it happened.
        run: its folder.
        error: what happened.

    Raises:
        OutOfMemoryError: it is to stop, or its parts are single examples already.
    """
    training = job.recipe.training
    parts = min(2 * training.gradient_accumulation, training.batch_size)
    goes_on = training.on_out_of_memory == "halve_batch" and parts > training.gradient_accumulation
    record = {
        "what": "out of memory",
        "action": "halve_batch" if goes_on else "stop",
        "batch_size": training.batch_size,
        "gradient_accumulation": parts if goes_on else training.gradient_accumulation,
    }
    write_json(run.path / FILE, [*failures_of(run), record])
    if not goes_on:
        raise error
    size = math.ceil(training.batch_size / parts)
    warn(f"out of memory: back to the last checkpoint, each batch in {parts} parts of {size} examples")


def _circumstances(job: Job, error: NotFiniteError) -> dict[str, Any]:
    """Where it happened, on which examples, and what the optimizers saw."""
    done = job.steps.per_epoch if error.step is None else error.step + 1
    last = error.epoch * job.steps.per_epoch + done - 1
    optimizers = _optimizers(job.models.network)
    step = last - max(_steps_ago(optimizer, updates, job) for optimizer, updates in optimizers.values())
    batch = job.recipe.training.batch_size * job.models.task.batches_per_step
    whole = job.models.task.whole_batches
    indices = indices_of_step(job.train, batch, job.recipe.training.seed, step, whole)
    paths = getattr(job.train, "paths", None)
    seen = {name: _seen(optimizer, updates, last - step) for name, (optimizer, updates) in optimizers.items()}
    return {
        "epoch": step // job.steps.per_epoch + 1,
        "step": step % job.steps.per_epoch + 1,
        "step_of_training": step + 1,
        "value": None if error.value is None else str(error.value),
        **seen.get("", seen),
        "examples": indices.tolist(),
        **({} if paths is None else {"files": [str(paths[index]) for index in indices]}),
    }


def _steps_ago(optimizer: Any, updates: int, job: Job) -> int:
    """How many steps before the last one an optimizer's gradients were first not finite, within one execution."""
    last = _updates_done(optimizer) - 1
    first = max(0, last + 1 - updates * job.recipe.training.steps_per_execution)
    found = optimizer.gradient_norms.first_not_finite(first, last)
    return 0 if found is None else (last - found) // updates


def _seen(optimizer: Any, updates: int, steps_ago: int) -> dict[str, Any]:
    """Learning rate, and the norm of the gradients of a step's first update that was not finite, and before it."""
    norms: GradientNorms = optimizer.gradient_norms
    end = _updates_done(optimizer) - updates * steps_ago
    found = norms.first_not_finite(max(0, end - updates), end - 1)
    update = max(0, end - 1) if found is None else found
    return {
        "learning_rate": float(learning_rates(optimizer._learning_rate, np.array([update]))[0]),
        "gradient_norm": _number(norms.of(update)),
        "gradient_norm_before": _number(norms.of(update - 1) if update else None),
    }


def _updates_done(optimizer: Any) -> int:
    return int(keras.ops.convert_to_numpy(optimizer._iterations))


def _optimizers(network: keras.Model) -> dict[str, tuple[Any, int]]:
    """Player (empty where there is one) -> its optimizer and how often a step updates it."""
    if isinstance(network, Trainer) and len(network.players) > 1:
        return {
            player: (network.optimizer_of(player), updates) for player, updates in network.updates.items()
        }
    return {"": (getattr(network.optimizer, "inner_optimizer", network.optimizer), 1)}


def _number(value: float | None) -> float | str | None:
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def _shown(record: Mapping[str, Any]) -> str:
    """`step 132 of the training; gradient norm nan, before 8.1e+04; learning rate 0.1`."""
    seen = (
        {"": record}
        if "gradient_norm" in record
        else {f"{name} ": record[name] for name in record if isinstance(record[name], dict)}
    )
    parts = [f"step {record['step_of_training']} of the training"]
    for name, values in seen.items():
        norm, before = (_rounded(values[key]) for key in ("gradient_norm", "gradient_norm_before"))
        parts.append(
            f"{name}gradient norm {norm}, before {before}, learning rate {values['learning_rate']:.3g}"
        )
    return "; ".join(parts)


def _rounded(value: float | str | None) -> str:
    return "unknown" if value is None else f"{value:.3g}" if isinstance(value, float) else value
