"""Settings that only the data or the model show to be wrong, said before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import tree

from dlcli.data.cache import available_memory
from dlcli.data.examples import Data, Examples
from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask
from dlcli.tasks.task import Task
from dlcli.training.distribution import shard_here
from dlcli.training.steps.trainer import Trainer

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
    shard = shard_here()
    here = 1.0 if shard is None else shard.count / shard.replicas
    rows = math.ceil(recipe.training.batch_size * here)
    needed = 4 * rows * math.prod(data.info.input_shape)
    available = available_memory()
    if needed > available:
        shape = "x".join(str(side) for side in data.info.input_shape)
        raise DlcliError(
            f"a batch of {rows} inputs of {shape} takes {needed / 1e9:.0f} GB as float32, and "
            f"{available / 1e9:.0f} GB are free: lower training.batch_size or dataset.image_size"
        )


@contextmanager
def weights_that_fit() -> Iterator[None]:
    """Refuses weights that cannot fit while they are made, each before the memory for it is asked for.

    Otherwise the system may end the process before anything can be said. Keras has no way to count the weights of a
    network without making them, so for so long its layers' `add_weight` counts first.

    Raises:
        DlcliError: they and their gradients take more than the free memory.
    """
    add_weight = keras.layers.Layer.add_weight
    available = available_memory()
    count = 0

    def counted(layer: keras.layers.Layer, *arguments: Any, **named: Any) -> Any:
        nonlocal count
        shape = named.get("shape", arguments[0] if arguments else None)
        count += math.prod(shape if isinstance(shape, Sequence) else (shape or 1,))
        if 2 * 4 * count > available:
            raise DlcliError(
                f"architecture: with layer {layer.name} it has {count:,} weights or more; they and their gradients "
                f"take {2 * 4 * count / 1e9:,.0f} GB, and {available / 1e9:.0f} GB are free: make it smaller"
            )
        return add_weight(layer, *arguments, **named)

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def check_outputs(network: keras.Model, recipe: Recipe, data: Data) -> None:
    """Refuses a network when what one of its layers gives for a batch is larger than the free memory.

    All layers together take more; but how much of that is there at once, only the training shows.
    """
    examples = math.ceil(recipe.training.batch_size / recipe.training.gradient_accumulation)
    length = data.info.max_length if data.info.tokenizer else 1
    available = available_memory()
    for part in network.networks.values() if isinstance(network, Trainer) else [network]:
        for name, layer in named_layers(part):
            for shape in (tensor.shape[1:] for tensor in tree.flatten(layer.output)):
                needed = 4 * examples * math.prod(side or length for side in shape)
                if needed > available:
                    shown = "x".join(str(side or length) for side in shape)
                    raise DlcliError(
                        f"layer {name} gives {shown} numbers for each of {examples} examples: {needed / 1e9:,.0f} GB, "
                        f"and {available / 1e9:.0f} GB are free: lower training.batch_size or the size of the "
                        "examples, or raise training.gradient_accumulation"
                    )


def check_steps_per_execution(wanted: int, batches: int) -> None:
    """Refuses what Keras would round up: it runs whole executions, and would read into the next epoch."""
    if batches % wanted:
        fitting = [str(number) for number in range(1, min(batches, 1000) + 1) if batches % number == 0]
        raise DlcliError(
            f"training.steps_per_execution {wanted} does not divide the {batches} steps of an epoch; "
            f"allowed: {', '.join(fitting)}"
        )
