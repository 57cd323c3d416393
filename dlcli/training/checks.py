"""Settings that only the data or the model show to be wrong, said before the first step."""

from __future__ import annotations

import math
from typing import Any

from dlcli.data.cache import available_memory
from dlcli.data.examples import Data, Examples
from dlcli.errors import DlcliError
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask
from dlcli.tasks.task import Task

SMALLER_IS_BETTER = (
    "loss",
    "error",
    "mae",
    "mse",
    "crossentropy",
    "divergence",
    "poisson",
    "hinge",
    "log_cosh",
)


def monitored_metric(recipe: Recipe, task: Task, validation: Examples | None) -> tuple[str | None, Any]:
    """The metric that decides which epoch is best, and whether more or less of it is better."""
    if isinstance(task, GenerativeTask):
        return task.monitored(recipe, validation is not None)
    if validation is None:
        if recipe.training.monitor or recipe.regularization.early_stopping:
            raise DlcliError(
                "training.monitor and regularization.early_stopping need validation examples: raise "
                "dataset.validation_split above 0"
            )
        return None, "max"
    wanted = (recipe.training.monitor or task.monitor).removeprefix("val_")
    names = ["loss", *(metric.name for metric in task.metric_functions())]
    if wanted not in names:
        raise DlcliError(f"training.monitor: no metric {wanted!r}; allowed: {', '.join(names)}")
    return f"val_{wanted}", "min" if any(word in wanted for word in SMALLER_IS_BETTER) else "max"


def check_memory(recipe: Recipe, data: Data) -> None:
    """Refuses a batch that cannot fit, before the system ends the process for it."""
    needed = 4 * recipe.training.batch_size * math.prod(data.info.input_shape)
    available = available_memory()
    if needed > available:
        shape = "x".join(str(side) for side in data.info.input_shape)
        raise DlcliError(
            f"a batch of {recipe.training.batch_size} inputs of {shape} takes {needed / 1e9:.0f} GB as float32, and "
            f"{available / 1e9:.0f} GB are free: lower training.batch_size or dataset.image_size"
        )


def check_steps_per_execution(wanted: int, batches: int) -> None:
    """Refuses what Keras would round up: it runs whole executions, and would read into the next epoch."""
    if batches % wanted:
        fitting = [str(number) for number in range(1, min(batches, 1000) + 1) if batches % number == 0]
        raise DlcliError(
            f"training.steps_per_execution {wanted} does not divide the {batches} steps of an epoch; "
            f"allowed: {', '.join(fitting)}"
        )
