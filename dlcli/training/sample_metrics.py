"""How far samples are from real images after each epoch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dlcli.data.examples import Examples
from dlcli.errors import DlcliError
from dlcli.evaluation.samples.distances import frechet_distance, quick_products, squared_discrepancy
from dlcli.evaluation.samples.image_features import FeatureNetwork, find_network, images_at, some_images
from dlcli.recipe.schema import Metrics, Recipe
from dlcli.training.health import require_finite

MEASURED = ("kernel_distance", "frechet_distance")
"""Keys of an epoch's logs; of both less is better. The first one is unbiased, so it decides which epoch is best."""


class MeasureSamples(keras.callbacks.Callback):
    """Adds `frechet_distance` and `kernel_distance` to an epoch's logs.

    The latents are the same ones each time, so that epochs differ by what was learnt and not by chance.

    Args:
        task: draws.
        model: what it draws with.
        real: images to compare with.
        metrics: of the recipe.
        seed: of the latents, and of which real images.
    """

    def __init__(self, task: Any, model: keras.Model, real: Examples, metrics: Metrics, seed: int) -> None:
        super().__init__()
        self.task, self.drawing_model, self.real, self.seed = task, model, real, seed
        wanted = measures_each_epoch(metrics, task.name)
        self.count = min(metrics.samples_each_epoch, len(real)) if wanted else 0
        self.network: FeatureNetwork | None = find_network(metrics.features or "") if self.count else None
        self._real_features: np.ndarray | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws, and compares."""
        if self.network is None or logs is None:
            return
        require_finite(self.drawing_model, epoch)
        if self._real_features is None:
            chosen = some_images(self.real, self.count, self.seed)
            self._real_features = self.network.describe(images_at(self.real, chosen)).features
        drawn = self.network.describe([self.task.draw(self.drawing_model, self.count, self.seed)]).features
        with quick_products(drawn.shape[1]):
            logs["frechet_distance"] = frechet_distance(self._real_features, drawn)
            logs["kernel_distance"] = squared_discrepancy(self._real_features, drawn)


def measures_each_epoch(metrics: Metrics, task: str) -> bool:
    """Whether epochs have distances: translation draws from pictures, and is measured at the end alone."""
    return bool(metrics.features) and metrics.samples_each_epoch > 0 and task != "image_translation"


def monitored(recipe: Recipe, validates: bool) -> tuple[str | None, str]:
    """Key of the logs that decides which epoch is best, and `min` or `max`.

    The losses of networks that play against each other say nothing about their samples, so that none of them is
    allowed, and without another measure the last epoch is kept.

    Raises:
        DlcliError: the recipe names something that is not measured, or a network of features that cannot be had.
    """
    metrics, wanted = recipe.metrics, recipe.training.monitor
    measured = measures_each_epoch(metrics, recipe.task.name)
    if metrics.features:
        find_network(metrics.features)
    if metrics.features and metrics.samples_each_epoch == 1:
        raise DlcliError("metrics.samples_each_epoch 1: a distance takes two images or more (0: none)")
    allowed = [*(MEASURED if measured else ()), *(["val_loss"] if validates else [])]
    if wanted is not None:
        name = "val_loss" if wanted == "loss" and validates else wanted
        if name not in allowed:
            raise DlcliError(f"training.monitor {wanted}: {_why_not(recipe, allowed)}")
        return name, "min"
    if not allowed and recipe.regularization.early_stopping is not None:
        raise DlcliError(f"regularization.early_stopping: {_why_not(recipe, allowed)}")
    return (allowed[0] if allowed else None), "min"


def _why_not(recipe: Recipe, allowed: list[str]) -> str:
    if allowed:
        return f"not measured after each epoch; allowed: {', '.join(allowed)}"
    if recipe.task.name == "image_translation":
        return (
            "task image_translation measures nothing after each epoch; leave it out: the last epoch is kept"
        )
    return (
        "nothing is measured after each epoch; name the features to compare images in (metrics.features: a run of task "
        "image_classification, or imagenet), or leave it out: the last epoch is kept"
    )
