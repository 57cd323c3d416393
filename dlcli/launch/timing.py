"""`python -m dlcli.launch.timing REQUEST RESULT`: times a few steps of a training, as one worker; nothing is kept."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dlcli.errors import DlcliError
from dlcli.launch.worker import PARENT, stay_with

if TYPE_CHECKING:
    from dlcli.recipe.schema import Recipe
    from dlcli.training.job import Job

ROUNDS = 3
"""Whose median counts: on a machine with other work, a mean would be of that work too."""
SECONDS_A_ROUND = 1.0
FEWEST_STEPS, MOST_STEPS = 2, 50


def main(request: Path, result: Path) -> None:
    """Times as a file says, and writes what came out beside it; what went wrong is a result too.

    Args:
        request: JSON with `recipe`, a path, and `steps` a round, null for as many as take a second.
        result: JSON for each worker, `RESULT.0`, `RESULT.1`, ...
    """
    if parent := os.environ.get(PARENT):
        stay_with(int(parent))
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    try:
        found = _timed(json.loads(request.read_text(encoding="utf-8")))
    except DlcliError as error:
        found = {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # noqa: BLE001  the table says so, and goes on with the next row
        found = {
            "error": f"{type(error).__name__}: {error}",
            "exit_code": 1,
            "traceback": traceback.format_exc(),
        }
    result.with_name(f"{result.name}.{task.get('index', 0)}").write_text(json.dumps(found), encoding="utf-8")
    sys.stderr.flush()
    if "error" in found:
        os._exit(found["exit_code"])  # others may wait for this one inside TensorFlow, and it for them


def _timed(request: dict[str, Any]) -> dict[str, Any]:
    from dlcli.backend import load_backend
    from dlcli.console import be_quiet
    from dlcli.recipe.load import load_recipe

    recipe = load_recipe(Path(request["recipe"]))
    be_quiet()
    load_backend()
    return time_steps(recipe, request["steps"])


def time_steps(recipe: Recipe, steps: int | None) -> dict[str, Any]:
    """Builds a training as `dlcli train` does, and times its steps with the reading of their batches.

    Args:
        recipe: resolved.
        steps: of each round; None for about SECONDS_A_ROUND of them, which workers would not agree on.

    Returns:
        `steps` of a round, `seconds_per_step`, `examples_per_second` of all devices together, `replicas`, `batch_size`
        of all of them, `memory_bytes` of this process at its highest, and `gpu_memory_bytes` of its fullest GPU.
    """
    from dlcli.training.agreement import Agreement
    from dlcli.training.distribution import strategy_scope
    from dlcli.training.failures import explained_failures
    from dlcli.training.fit import build
    from dlcli.training.job import images_per_step, prepare, training_batches
    from dlcli.training.settled import settled

    with strategy_scope(recipe) as choice, explained_failures(recipe):
        recipe = settled(recipe, choice)
        job = prepare(recipe, agreement=Agreement(choice.workers, choice.worker))
        build(job.models.network, training_batches(job))
        steps = _whole(job, _enough(job) if steps is None else steps)
        # The first round is to warm up: TensorFlow builds its graphs, and the reading gets ahead.
        seconds = median(_rounds(job, steps, 1 + ROUNDS)[1:]) / steps
        job.agreement.meet()
    read = min(len(job.train), job.steps.per_epoch * images_per_step(job)) / job.steps.per_epoch
    return {
        "steps": steps,
        "seconds_per_step": seconds,
        "examples_per_second": read / seconds,
        "replicas": choice.replicas,
        "batch_size": recipe.training.batch_size,
        "memory_bytes": _peak_memory(),
        "gpu_memory_bytes": _peak_of_gpus(),
    }


def _enough(job: Job) -> int:
    """Steps that take about SECONDS_A_ROUND."""
    few = _whole(job, FEWEST_STEPS)
    seconds = _rounds(job, few, 2)[1] / few
    return min(max(round(SECONDS_A_ROUND / seconds), FEWEST_STEPS), MOST_STEPS)


def _whole(job: Job, steps: int) -> int:
    """As many steps, or more, in whole calls of the network's."""
    each = job.models.network.steps_per_execution
    return math.ceil(steps / each) * each


def _rounds(job: Job, steps: int, rounds: int) -> list[float]:
    """Seconds of so many rounds of so many steps each, from the training's first on."""
    import keras

    from dlcli.training.fit import fit
    from dlcli.training.job import training_batches

    seconds: list[float] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            for value in (logs or {}).values():
                float(value)  # waits for the devices, which may be behind
            seconds.append(time.perf_counter() - self.began)

    fit(
        job.models.network,
        training_batches(job),
        first_epoch=0,
        first_step=0,
        epochs=rounds,
        steps_per_epoch=steps,
        validation=None,
        callbacks=[Watch()],
        agreement=job.agreement,
    )
    return seconds


def _peak_memory() -> int:
    """Bytes of RAM that this process held at its highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere it counts KiB


def _peak_of_gpus() -> int | None:
    """Bytes that the fullest GPU of this process held at its highest; None without one."""
    import tensorflow as tf

    names = [f"GPU:{number}" for number in range(len(tf.config.list_logical_devices("GPU")))]
    return max((tf.config.experimental.get_memory_info(name)["peak"] for name in names), default=None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
