"""A recipe at another learning rate: every key that is one, and not only the optimizer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlcli.recipe.schema import PerNetwork, Recipe, Spec

_FLOORS = ("end_learning_rate", "min_learning_rate")
"""Arguments of schedules that are learning rates, and not shares of one."""


def times_learning_rate(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with each of its learning rates times a factor."""
    changes: dict[str, Any] = {
        "optimizer": _scaled(recipe.optimizer, ("learning_rate",), factor),
        "schedule": _scaled(recipe.schedule, _FLOORS, factor),
    }
    if recipe.finetune is not None:
        stages = tuple(
            stage.model_copy(update={"learning_rate": stage.learning_rate * factor})
            if stage.learning_rate
            else stage
            for stage in recipe.finetune.stages
        )
        changes["finetune"] = recipe.finetune.model_copy(update={"stages": stages})
    return recipe.model_copy(update=changes)


def _scaled(given: Spec | PerNetwork, names: Sequence[str], factor: float) -> Spec | PerNetwork:
    if isinstance(given, PerNetwork):
        each = {name: _scaled(spec, names, factor) for name, spec in given}
        return given.model_copy(update=each)
    known = given.arguments
    return given.model_copy(
        update={name: known[name] * factor for name in names if known.get(name) is not None}
    )
