"""Settings that are right on one device and cannot hold on several: refused by name, not changed silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlcli.errors import DlcliError
from dlcli.recipe.mistakes import Mistake, RecipePath, dotted
from dlcli.recipe.names import find
from dlcli.recipe.schema import NETWORKS, Recipe
from dlcli.recipe.wording import mistake_at, value_at
from dlcli.recipe.yaml_reader import Document
from dlcli.tasks import GENERATIVE_TASKS

OF_WHOLE_BATCHES = ("dice", "tversky")
"""Losses of Keras that are no mean over examples: ratios of sums over a batch."""

OF_ONE_PROCESS: dict[RecipePath, tuple[str, str]] = {
    ("training", "on_nan"): (
        "rollback",
        "several workers would all have to go back at once; take stop, and go on with `dlcli train --resume`",
    ),
    ("training", "on_out_of_memory"): (
        "halve_batch",
        "several workers would all have to go back at once; take stop, and a larger training.gradient_accumulation",
    ),
}
"""Key -> the value that changes a training on its way, and why workers cannot."""


def device_conflicts(value: Mapping[str, Any], document: Document) -> list[Mistake]:
    """What cannot hold on the devices that a recipe itself names.

    `auto` depends on the machine: of it `check_several` knows.

    Args:
        value: the recipe's values as given; they may have other mistakes.
        document: for positions.
    """
    strategy = value_at(value, ("distribution", "strategy"))
    devices = value_at(value, ("distribution", "devices"))
    several = (
        strategy in ("multi_worker", "tpu")
        or (strategy == "mirrored" and not (isinstance(devices, list) and len(devices) == 1))
        or value_at(value, ("distribution", "logical_devices")) is not None
    )
    if not several:
        return []
    found = _refused(value, workers=strategy == "multi_worker", xla=strategy == "tpu")
    return [mistake_at(document, path, what, value_at(value, path)) for path, what in found]


def check_several(recipe: Recipe, replicas: int, workers: int = 1, *, xla: bool = False) -> None:
    """Refuses what the devices that were found cannot do; with one of them everything goes.

    Args:
        recipe: resolved, with the batch size of all devices.
        replicas: devices that share each batch.
        workers: processes that they belong to.
        xla: whether they are cores of a TPU.

    Raises:
        DlcliError: with all that is refused.
    """
    if replicas == 1:
        return
    value = recipe.model_dump(mode="json")
    found = [
        *_refused(value, workers=workers > 1, xla=xla), *_batches(value, replicas), *_groups(value, replicas),
    ]  # fmt: skip
    if found:
        said = (f"{dotted(path)} {value_at(value, path)}: {what}" for path, what in found)
        raise DlcliError("\n".join(said))


def _refused(value: Mapping[str, Any], *, workers: bool, xla: bool) -> Iterator[tuple[RecipePath, str]]:
    """Key, and what is wrong with its value on several devices."""
    loss = value_at(value, ("task", "loss"))
    if isinstance(loss, str) and find(loss, OF_WHOLE_BATCHES):
        what = f"loss {loss} is of a whole batch at once, and each of several devices sees a part"
        yield ("task", "loss"), f"{what}; take another loss, or distribution.strategy none"
    for path in (("optimizer",), *(("optimizer", network) for network in NETWORKS)):
        here: RecipePath = (*path, "gradient_accumulation_steps")
        if value_at(value, here) is not None:
            what = "Keras cannot do that on several devices (keras#20582)"
            yield here, f"{what}; take training.gradient_accumulation"
    for here, (changing, why) in OF_ONE_PROCESS.items() if workers else ():
        if value_at(value, here) == changing:
            yield here, why
    here = ("training", "gradient_accumulation")
    parts = value_at(value, here)
    if xla and isinstance(parts, int) and parts > 1:
        yield here, "a TPU needs shapes known beforehand, which parts of a batch do not have; leave it out"
    if value_at(value, ("training", "precision")) == "mixed_float16":
        why = "short numbers of a TPU are bfloat16"
        if (
            not xla
        ):  # Keras's LossScaleOptimizer looks at the first replica's gradients, before they are summed
            why = "what overflows on one of several devices would get into the weights of all"
        yield ("training", "precision"), f"{why}; take mixed_bfloat16"


def _batches(value: Mapping[str, Any], replicas: int) -> Iterator[tuple[RecipePath, str]]:
    """A batch must be enough for all, and of tasks whose losses are means of a device's images go round."""
    if value_at(value, ("training", "batch_size_per_replica")) is not None:
        return
    here: RecipePath = ("training", "batch_size")
    batch, task = value_at(value, here), value_at(value, ("task", "name"))
    if batch < replicas:
        yield here, f"leaves some of {replicas} devices without an example"
    elif batch % replicas and task in GENERATIVE_TASKS:
        yield (
            here,
            (
                f"task {task} needs as many images on each of {replicas} devices; take {batch // replicas * replicas}"
            ),
        )


def _groups(value: Mapping[str, Any], replicas: int) -> Iterator[tuple[RecipePath, str]]:
    """Groups of images that a discriminator compares must lie on one device, as they would with one alone."""
    here: RecipePath = ("architecture", "minibatch_groups")
    size, batch = value_at(value, here), value_at(value, ("training", "batch_size"))
    if isinstance(size, int) and batch % (replicas * size):
        what = f"the discriminator compares {size} images with each other"
        shares = f"{replicas} devices share a batch of {batch}"
        yield here, f"{what}, and {shares}; take a batch size that {replicas * size} divides, or null"
