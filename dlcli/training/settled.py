"""A recipe as several devices train it: what their number decides is written out, what it forbids is refused."""

from __future__ import annotations

import math
from typing import Any

from dlcli.console import note
from dlcli.recipe.learning_rates import times_learning_rate
from dlcli.recipe.schema import Recipe
from dlcli.recipe.several_devices import check_several
from dlcli.training.distribution import Choice


def settled(recipe: Recipe, choice: Choice) -> Recipe:
    """The recipe as the chosen devices train it, so that its run folder says what was done.

    The learning rate grows with the batch as in Goyal et al. 2017, arXiv:1706.02677, section 2.1, where it is asked to.

    Raises:
        DlcliError: something in it cannot hold on so many.
    """
    training, replicas = recipe.training, choice.replicas
    changes: dict[str, Any] = {}
    each = training.batch_size_per_replica
    if each is not None:
        changes |= {
            "batch_size": each * replicas,
            "batch_size_per_replica": None,
            "scale_learning_rate": "none",
        }
        note(f"batch size {each * replicas}: {each} on each of {replicas} devices")
        rule = training.scale_learning_rate
        factor = {"none": 1.0, "linear": float(replicas), "sqrt": math.sqrt(replicas)}[rule]
        if factor != 1:
            note(f"learning rates times {factor:.4g}, for {replicas} devices ({rule})")
            recipe = times_learning_rate(recipe, factor)
    if replicas > 1 and training.steps_per_execution > 1:
        changes["steps_per_execution"] = 1
        note(
            f"training.steps_per_execution {training.steps_per_execution} is for one device; with {replicas} each step "
            "is a call of its own (keras#19246)"
        )
    recipe = (
        recipe.model_copy(update={"training": training.model_copy(update=changes)}) if changes else recipe
    )
    if replicas > 1:
        check_several(recipe, replicas, choice.workers, xla=choice.strategy == "tpu")
    return recipe
