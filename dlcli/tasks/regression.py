"""Regression: numbers from a table or an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from dlcli.data.examples import DataInfo
from dlcli.errors import DataError
from dlcli.layers.predictions import Predictions
from dlcli.recipe.arguments import Loss, Metric
from dlcli.recipe.signatures import keras_class_name
from dlcli.tasks.decoded import DecodedMetric
from dlcli.tasks.task import Task

OF_CLASSES = (
    "Accuracy", "AUC", "Binary", "Categorical", "Dice", "Entropy", "F1", "FBeta", "Hinge", "KLDivergence", "Negatives",
    "Poisson", "Positives", "Precision", "Recall", "Sensitivity", "Specificity", "Circle", "Tversky",
)  # fmt: skip
"""Parts of the names of Keras's losses and metrics that want probabilities of classes, or counts."""


class Regression(Task):
    """How much? One or several numbers for each example.

    The network learns standardized targets (mean 0, deviation 1 over the train split), so that one learning rate
    suits houses in millions and lengths in millimetres; metrics and predictions are in the target's own unit.

    Args:
        loss: any of keras.losses, on standardized targets. Default: mean squared error.
        metrics: more of keras.metrics to show in each epoch, beside the mean absolute error.
        standardize_targets: false leaves the targets as they are.
    """

    name: ClassVar[str] = "regression"
    monitor = "mae"

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        loss: Loss | None = None,
        metrics: Sequence[Metric] = (),
        standardize_targets: bool = True,
    ) -> None:
        super().__init__(info)
        if info.target != "values":
            raise DataError(
                f"the target holds classes ({', '.join(info.class_names[:5])}...), not numbers: use "
                f"`task: {'image' if info.kind == 'image' else 'tabular'}_classification`"
            )
        names = [keras_class_name("metrics", name) for name in metrics]
        names += [keras_class_name("losses", loss)] if loss else []
        if wrong := [name for name in names if any(word in name for word in OF_CLASSES)]:
            raise DataError(f"{wrong[0]} compares classes, and regression predicts numbers")
        self.loss = loss
        self.metrics = tuple(metrics)
        targets = train_targets.astype("float64").reshape(len(train_targets), -1)
        self.num_logits = targets.shape[1]
        deviation = targets.std(axis=0) if standardize_targets else np.ones(self.num_logits)
        self.scale = np.where(deviation > 0, deviation, 1.0)
        self.offset = targets.mean(axis=0) if standardize_targets else np.zeros(self.num_logits)

    def encode(self, targets: np.ndarray) -> np.ndarray:
        """Standardized targets, float32 (N, K)."""
        return ((targets.reshape(len(targets), -1) - self.offset) / self.scale).astype("float32")

    def outputs(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Standardized values (B, K)."""
        if len(features.shape) == 4:
            features = keras.layers.GlobalAveragePooling2D(name="pooling")(features)  # (B, D)
        return keras.layers.Dense(self.num_logits, dtype="float32", name="logits")(features)

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Values in the target's own unit (B, K)."""
        return Predictions(
            "values", self.info.class_names, self.scale.tolist(), self.offset.tolist(), name="predictions"
        )(logits)

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """Mean squared error, or the recipe's."""
        name = keras_class_name("losses", self.loss) if self.loss else "MeanSquaredError"
        return getattr(keras.losses, name)()

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Mean absolute error, then what the recipe asks for, in the target's own unit."""
        names = [keras_class_name("metrics", name) for name in self.metrics]
        metrics: list[Any] = [keras.metrics.MeanAbsoluteError(name="mae")]
        metrics += [getattr(keras.metrics, name)() for name in names]
        return [DecodedMetric(metric, self._in_own_unit, self._in_own_unit) for metric in metrics]

    def _in_own_unit(self, values: Any) -> Any:
        return values * keras.ops.cast(self.scale, values.dtype) + keras.ops.cast(self.offset, values.dtype)
