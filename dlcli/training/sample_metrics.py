"""How far samples are from real images after each epoch."""

from __future__ import annotations

from typing import Any

import keras

from dlcli.data.examples import Examples
from dlcli.recipe.schema import Metrics, Recipe


class MeasureSamples(keras.callbacks.Callback):
    """Adds `frechet_distance` and `kernel_distance` to an epoch's logs (to be written)."""

    def __init__(self, task: Any, model: keras.Model, real: Examples, metrics: Metrics, seed: int) -> None:
        super().__init__()


def monitored(recipe: Recipe, validates: bool) -> tuple[str | None, str]:
    """Key of the logs that decides which epoch is best, and `min` or `max`."""
    return ("val_loss" if validates else None), "min"
