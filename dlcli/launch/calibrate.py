"""How many replicas train a recipe fastest on this machine: each number is timed for a few steps, in new processes."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlcli.console import note, status
from dlcli.errors import DlcliError
from dlcli.launch.environment import cores, worker_environments
from dlcli.launch.workers import Ended, Workers
from dlcli.recipe.load import dump_recipe
from dlcli.recipe.schema import Recipe

CLOSE = 0.95
"""Of the highest throughput: who reaches it counts as fast, so that no device works for the last 5 %."""
EACH_UP_TO = 4
"""So far every number is timed, then the doubles."""
_LONGEST_SECONDS = 1800.0
_SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Measured:
    """One number of replicas."""

    replicas: int
    examples_per_second: float | None = None
    efficiency: float | None = None
    """Throughput over that of one replica, by the number of replicas; None where one alone could not be timed."""
    seconds_per_step: float | None = None
    batch_size: int | None = None
    """Of all replicas together."""
    memory_bytes: int | None = None
    """RAM of a process at its highest: of the one with most."""
    gpu_memory_bytes: int | None = None
    failed: str | None = None
    """Why there are no numbers."""
    exit_code: int = 0


@dataclass(frozen=True)
class Calibration:
    """What was measured, and what follows."""

    kind: Literal["workers", "devices"]
    """Whether a replica is a process, or a GPU of the one process."""
    rows: tuple[Measured, ...]
    chosen: int
    why: str
    gpus: tuple[str, ...]
    """For the training, as CUDA_VISIBLE_DEVICES names them."""
    changes: tuple[str, ...] = ()
    """Of the recipe, for the training."""

    @property
    def workers(self) -> int:
        """Processes of the training."""
        return self.chosen if self.kind == "workers" else 1

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        rows = [
            {name: value for name, value in asdict(row).items() if name != "exit_code"} for row in self.rows
        ]
        return {"replicas_are": self.kind, "measured": rows, "chosen": self.chosen, "why": self.why}


def calibrate(recipe: Recipe, most: int | None, gpus: Sequence[str]) -> Calibration:
    """Times a recipe's training on 1, 2, ... replicas of this machine, and chooses a number; nothing is kept.

    The batch is `training.batch_size` however many share it, as in the training; with
    `training.batch_size_per_replica` it grows with them.

    Args:
        recipe: resolved.
        most: replicas; None for the GPUs that are here, else the cores.
        gpus: of this machine, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        DlcliError: the recipe trains on one device, or no number could be timed.
    """
    kind = _kind(recipe, gpus)
    most = most or len(gpus) or cores()
    if gpus and most > len(gpus):
        raise DlcliError(
            f"--workers {most}: each replica needs a GPU of its own, and {len(gpus)} are here ({', '.join(gpus)})"
        )
    rows: list[Measured] = []
    steps = None
    with tempfile.TemporaryDirectory(prefix="dlcli-calibrate-") as folder:
        for count in numbers_up_to(most):
            with status(f"timing {_named(count, kind)}"):
                row, steps = _measure(recipe, kind, count, tuple(gpus[:count]), Path(folder), steps)
            first = rows[0].examples_per_second if rows else row.examples_per_second
            if first and row.examples_per_second:
                row = Measured(**{**asdict(row), "efficiency": row.examples_per_second / first / count})
            rows.append(row)
            if (
                row.exit_code == 2 and len(rows) == 1
            ):  # a mistake in recipe or data comes again with any number
                raise _NothingTimedError(row)
            note(f"{_named(count, kind)}: {_outcome(row)}")
    chosen, why = choose_fastest(rows, kind)
    alone = chosen == 1 and recipe.distribution.strategy == "multi_worker"
    changes = ("distribution.strategy=auto",) if alone else ()
    return Calibration(kind, tuple(rows), chosen, why, tuple(gpus[:chosen]), changes)


def _kind(recipe: Recipe, gpus: Sequence[str]) -> Literal["workers", "devices"]:
    settings = recipe.distribution
    if settings.logical_devices or settings.devices:
        key = "logical_devices" if settings.logical_devices else "devices"
        raise DlcliError(
            f"distribution.{key} says how many devices train: there is nothing to choose; drop it"
        )
    if settings.strategy not in ("auto", "mirrored", "multi_worker"):
        raise DlcliError(
            f"distribution.strategy {settings.strategy} trains on one device: there is nothing to choose; take auto"
        )
    if settings.strategy == "mirrored" and len(gpus) < 2:
        raise DlcliError(
            f"distribution.strategy mirrored is over several GPUs, and {len(gpus) or 'none'} is here; take auto"
        )
    return "devices" if len(gpus) > 1 and settings.strategy != "multi_worker" else "workers"


def numbers_up_to(most: int) -> list[int]:
    """Numbers of replicas to be timed: 1, 2, 3, 4, 8, 16, ..., and the largest."""
    doubles = [EACH_UP_TO * 2**power for power in range(1, most.bit_length())]
    return [*range(1, min(most, EACH_UP_TO) + 1), *(each for each in doubles if each < most)] + (
        [most] if most > EACH_UP_TO else []
    )


def choose_fastest(
    rows: Sequence[Measured], kind: Literal["workers", "devices"] = "workers"
) -> tuple[int, str]:
    """The fewest replicas whose throughput comes within 5 % of the highest, and why, in a sentence.

    Raises:
        DlcliError: none could be timed; its exit code is the first one's.
    """
    speeds = {row.replicas: row.examples_per_second for row in rows if row.examples_per_second is not None}
    if not speeds:
        raise _NothingTimedError(rows[0])
    best = max(speeds, key=lambda count: speeds[count])
    chosen = min(count for count, speed in speeds.items() if speed >= CLOSE * speeds[best])
    if chosen != best:
        share = speeds[chosen] / speeds[best]
        why = f"{share:.0%} of the highest throughput, that of {best}: more bring next to nothing"
    elif len(speeds) == 1:
        why = "no other number could be timed" if len(rows) > 1 else "no other number was asked for"
    elif chosen == 1:
        second = max(speed for count, speed in speeds.items() if count != best)
        why = f"more are slower here, with {second / speeds[best]:.2f} times its throughput at best"
    else:
        fewer = max((speed for count, speed in speeds.items() if count < best), default=None)
        why = "the highest throughput" + (
            "" if fewer is None else f", {speeds[best] / fewer:.2f} times that of fewer"
        )
    return chosen, f"{_named(chosen, kind)}: {why}"


class _NothingTimedError(DlcliError):
    def __init__(self, row: Measured) -> None:
        super().__init__(f"nothing could be timed; {_named(row.replicas, 'workers')}: {row.failed}")
        self.exit_code = row.exit_code or 4


def _measure(
    recipe: Recipe,
    kind: Literal["workers", "devices"],
    count: int,
    gpus: tuple[str, ...],
    folder: Path,
    steps: int | None,
) -> tuple[Measured, int | None]:
    """Times one number of replicas; also gives the steps of a round, which are the same for all numbers."""
    workers = count if kind == "workers" else 1
    strategy = "multi_worker" if workers > 1 else "auto"
    if kind == "devices" and count > 1:
        strategy = "mirrored"
    settings = recipe.distribution.model_copy(update={"strategy": strategy})
    (folder / "recipe.yaml").write_text(
        dump_recipe(recipe.model_copy(update={"distribution": settings, "finetune": None})), encoding="utf-8"
    )
    (folder / "request").write_text(
        json.dumps({"recipe": str(folder / "recipe.yaml"), "steps": steps}), encoding="utf-8"
    )
    result = folder / f"result-{count}"
    command = [sys.executable, "-P", "-m", "dlcli.launch.timing", str(folder / "request"), str(result)]
    ended = _run(command, worker_environments(workers, gpus))
    found = [_read(result.with_name(f"{result.name}.{index}")) for index in range(workers)]
    if all(each is not None and "error" not in each for each in found):
        return _row(count, [each for each in found if each is not None]), found[0]["steps"]  # type: ignore[index]
    return _failure(count, found, ended), steps


def _run(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Ended | None:
    """Runs the processes to their end, or to that of the first that fails; gives that one."""
    until = time.monotonic() + _LONGEST_SECONDS
    with Workers(command, environments) as workers:
        workers.mute()  # what goes wrong stands in their results
        while workers.alive and time.monotonic() < until:
            ended = workers.next_end(0.5)
            if ended is not None and ended.code != 0:
                settled = time.monotonic() + _SETTLE_SECONDS
                while workers.alive and time.monotonic() < settled:  # others may have more to say
                    workers.next_end(0.2)
                workers.stop()
                return ended
    return None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _row(count: int, found: Sequence[Mapping[str, Any]]) -> Measured:
    chief = found[0]
    in_gpus = [each["gpu_memory_bytes"] for each in found if each["gpu_memory_bytes"] is not None]
    return Measured(
        count,
        chief["examples_per_second"],
        seconds_per_step=chief["seconds_per_step"],
        batch_size=chief["batch_size"],
        memory_bytes=max(each["memory_bytes"] for each in found),
        gpu_memory_bytes=max(in_gpus, default=None),
    )


def _failure(count: int, found: Sequence[Mapping[str, Any] | None], ended: Ended | None) -> Measured:
    """The first worker's words that say why; who only lost another one has exit code 4."""
    said = sorted(
        (each for each in found if each is not None and "error" in each),
        key=lambda each: each["exit_code"] == 4,
    )
    if said:
        if "traceback" in said[0]:
            sys.stderr.write(said[0]["traceback"])
        return Measured(count, failed=said[0]["error"], exit_code=said[0]["exit_code"])
    if ended is None:
        return Measured(count, failed=f"no answer within {_LONGEST_SECONDS:.0f} seconds", exit_code=4)
    hint = " (for want of memory?)" if ended.code == -9 else ""
    return Measured(count, failed=f"{ended}{hint}", exit_code=4)


def _named(count: int, kind: Literal["workers", "devices"]) -> str:
    noun = "worker" if kind == "workers" else "GPU"
    return f"{count} {noun}{'s' if count > 1 else ''}"


def _outcome(row: Measured) -> str:
    if row.examples_per_second is None:
        return f"not timed: {row.failed}"
    return f"{row.examples_per_second:,.0f} examples/s"


def print_calibration(calibration: Calibration, console: Console) -> None:
    """The table, the choice, and the rule behind it."""
    table = Table(title=f"throughput by the number of {_plural(calibration.kind)}", title_justify="left")
    gpu = any(row.gpu_memory_bytes is not None for row in calibration.rows)
    names = [_plural(calibration.kind), "batch", "examples/s", "efficiency", "s a step", "memory a process"]
    for name in [*names, *(["memory a GPU"] if gpu else [])]:
        table.add_column(name, justify="right", overflow="fold")
    for row in calibration.rows:
        if row.examples_per_second is None:
            table.add_row(str(row.replicas), *["-"] * (len(table.columns) - 1))
            continue
        table.add_row(
            str(row.replicas),
            f"{row.batch_size:,}",
            f"{row.examples_per_second:,.0f}",
            "-" if row.efficiency is None else f"{row.efficiency:.0%}",
            f"{row.seconds_per_step:.4g}",
            _size(row.memory_bytes),
            *([_size(row.gpu_memory_bytes)] if gpu else []),
        )
    console.print(table)
    for row in calibration.rows:
        if row.failed:
            console.print(
                escape(f"{_named(row.replicas, calibration.kind)}: not timed: {row.failed}"), soft_wrap=True
            )
    console.print(escape(calibration.why), soft_wrap=True, highlight=False)
    console.print(
        f"(the rule: the fewest within {1 - CLOSE:.0%} of the highest throughput)",
        soft_wrap=True,
        highlight=False,
    )


def _plural(kind: Literal["workers", "devices"]) -> str:
    return "workers" if kind == "workers" else "GPUs"


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"
