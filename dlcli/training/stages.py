"""The stages of a training: which layers learn, for how long, at which learning rate. Plain training has one."""

from __future__ import annotations

from typing import Any

import keras

from dlcli.recipe.schema import Recipe, Stage, spec_of
from dlcli.training.build import Models
from dlcli.training.freezing import Freezing
from dlcli.training.layer_decay import learning_rate_factors, with_factors
from dlcli.training.optimizer import build_optimizer, build_schedule, optimizer_class, regularize_weights
from dlcli.training.schedules import Steps
from dlcli.training.steps.trainer import Trainer


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The recipe's stages; one, with all its epochs, when it names none."""
    finetune = recipe.finetune
    if finetune is not None and finetune.stages:
        return finetune.stages
    freeze = "none" if finetune is None else finetune.freeze
    return (Stage(freeze=freeze, epochs=recipe.training.epochs),)


def compile_stage(
    recipe: Recipe,
    models: Models,
    freezing: Freezing | None,
    stage: Stage,
    steps_per_epoch: int,
    one_hot: bool,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Freezes what the stage freezes, and gives the network an optimizer of its own.

    Args:
        recipe: resolved.
        models: of the recipe.
        freezing: of the network; None for training from scratch.
        stage: what begins.
        steps_per_epoch: batches.
        one_hot: whether targets are one-hot.

    Returns:
        The stage's schedule, over its own steps.
    """
    if freezing is not None:
        freezing.apply(stage.freeze)
    if isinstance(models.network, Trainer):
        return _compile_trainer(recipe, models.network, steps_per_epoch, stage.epochs)
    spec = spec_of(recipe.optimizer)
    if stage.learning_rate is not None:
        spec = spec.model_copy(update={"learning_rate": stage.learning_rate})
    steps = Steps(per_epoch=steps_per_epoch, total=steps_per_epoch * stage.epochs)
    schedule = build_schedule(spec_of(recipe.schedule), spec.arguments["learning_rate"], steps)
    kind: Any = optimizer_class(spec)
    if recipe.finetune is not None and recipe.finetune.layer_decay < 1 and freezing is not None:
        factors = learning_rate_factors(freezing.layers, set(models.task.head), recipe.finetune.layer_decay)
        kind = with_factors(kind, factors)
    optimizer = build_optimizer(spec, recipe.regularization, schedule, kind)
    regularize_weights(models.network.trainable_weights, optimizer, recipe.regularization)
    models.network.compile(
        optimizer=optimizer,
        loss=models.task.loss_function(recipe.regularization.label_smoothing, one_hot),
        metrics=models.task.metric_functions(),
        steps_per_execution=recipe.training.steps_per_execution,
    )
    models.network.accumulate(recipe.training.gradient_accumulation, models.task.terms)
    return schedule


def _compile_trainer(
    recipe: Recipe, trainer: Trainer, steps_per_epoch: int, epochs: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Gives each network of a generative task its optimizer, with its penalties and its schedule.

    Returns:
        The schedule of the network that draws.
    """
    optimizers: dict[str, keras.optimizers.Optimizer] = {}
    schedules = []
    for player, updates in trainer.updates.items():
        spec, weights = spec_of(recipe.optimizer, player), trainer.variables_of(player)
        per_epoch = steps_per_epoch * updates
        steps = Steps(per_epoch=per_epoch, total=per_epoch * epochs)
        schedules.append(
            build_schedule(spec_of(recipe.schedule, player), spec.arguments["learning_rate"], steps)
        )
        # The average is of what draws: the other player has to stay up with it.
        averaged = (
            recipe.regularization
            if not optimizers
            else recipe.regularization.model_copy(update={"ema": None})
        )
        optimizers[player] = build_optimizer(spec, averaged, schedules[-1])
        regularize_weights(weights, optimizers[player], recipe.regularization)
    trainer.compile_players(optimizers, recipe.training.steps_per_execution)
    return schedules[0]
