"""Classification: one of several classes, or any of several labels."""

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
from dlcli.tasks.decoded import DecodedLoss, DecodedMetric
from dlcli.tasks.task import Task

TAKES_INDICES = ("Sparse", "CategoricalGeneralizedCrossEntropy")
"""How the names of losses begin that compare with class indices, not with one-hot targets."""

NOT_OF_CLASSES = ("Circle", "PearsonCorrelation", "ConcordanceCorrelation")
"""Of pairs of embeddings, and of series of numbers."""


class Classification(Task):
    """One of several classes, or any of several labels; what images, tables and texts have in common.

    Args:
        info: of the data.
        loss: any of keras.losses.
        metrics: of keras.metrics.
    """

    def __init__(self, info: DataInfo, loss: Loss | None, metrics: Sequence[Metric]) -> None:
        super().__init__(info)
        if info.target == "values":
            raise DataError("the target column holds numbers, not classes: use `task: regression`")
        if info.target not in ("classes", "labels"):
            raise DataError(f"task {self.name} needs examples with classes, and this data set holds none")
        self._target = info.target
        self.loss = loss
        self.metrics = tuple(metrics)
        named = [keras_class_name("losses", loss)] if loss else []
        named += [keras_class_name("metrics", metric) for metric in self.metrics]
        if wrong := [each for each in named if each in NOT_OF_CLASSES]:
            raise DataError(
                f"{wrong[0]} does not compare probabilities with classes: take another loss or metric"
            )
        if info.target == "labels" and (wrong := [each for each in named if "Categorical" in each]):
            raise DataError(f"{wrong[0]} compares one class for each example; this target has several labels")
        # Two classes need one logit, unless the recipe's loss compares classes.
        self._binary = (
            info.target == "classes"
            and len(info.class_names) == 2
            and (loss is None or named[0].startswith("Binary"))
        )
        self.num_logits = 1 if self._binary else len(info.class_names)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Width of one-hot targets."""
        return len(self.info.class_names)

    def wants_one_hot(self, label_smoothing: float, mixes: bool) -> bool:
        """Whether the loss compares with one-hot targets (B, K) and not with class indices (B,).

        Args:
            label_smoothing: share of the target spread over all classes.
            mixes: whether an augmentation mixes the targets of two examples.
        """
        if self.info.target != "classes" or self._binary:
            return False
        sparse_loss = self.loss is None or keras_class_name("losses", self.loss).startswith(TAKES_INDICES)
        return label_smoothing > 0 or mixes or not sparse_loss

    def encode(self, targets: np.ndarray) -> np.ndarray:
        """Targets as the loss wants them: indices (N,), or float32 (N, 1) for two classes."""
        return targets.astype("float32").reshape(-1, 1) if self._binary else targets

    def outputs(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Logits (B, K); (B, 1) for two classes."""
        if len(features.shape) == 4:
            features = keras.layers.GlobalAveragePooling2D(name="pooling")(features)  # (B, D)
        if len(features.shape) != 2:
            raise ValueError(f"Expected features (B, D) or (B, H, W, D). Received: {features.shape}")
        return keras.layers.Dense(self.num_logits, dtype="float32", name="logits")(features)

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Probabilities (B, K)."""
        return Predictions(self._target, self.info.class_names, name="predictions")(logits)

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """The loss on logits; `one_hot` as `wants_one_hot` said."""
        if self.loss is None:
            if self._binary or self.info.target == "labels":
                return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
            if one_hot:
                return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        name = keras_class_name("losses", self.loss)
        arguments: dict[str, Any] = {}
        if label_smoothing > 0:
            if "Crossentropy" not in name or name.startswith("Sparse"):
                raise DataError(f"regularization.label_smoothing does not work with task.loss {self.loss}")
            arguments["label_smoothing"] = label_smoothing
        loss = getattr(keras.losses, name)(**arguments)
        # Most losses want probabilities; those on logits would need from_logits, which only some have.
        return DecodedLoss(loss, self._probabilities)

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy, then what the recipe asks for."""
        if self._binary or self.info.target == "labels":
            # A logit's threshold is 0; mixed targets (MixUp, CutMix) count as their larger share.
            binary = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
            accuracy = DecodedMetric(binary, lambda logits: logits, keras.ops.round)
        else:
            sparse = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            accuracy = DecodedMetric(sparse, lambda logits: logits, self._indices)
        names = [keras_class_name("metrics", name) for name in self.metrics]
        # Keras's `Accuracy` compares logits with targets exactly; the accuracy of a class is the one above.
        return [accuracy, *(self._metric(name) for name in names if name != "Accuracy")]

    def _metric(self, name: str) -> keras.metrics.Metric:
        several = self.info.target == "labels"
        arguments: dict[str, Any] = {}
        if name in ("F1Score", "FBetaScore"):
            arguments = {"average": "macro"} | ({"threshold": 0.5} if self._binary or several else {})
        metric = getattr(keras.metrics, name)(**arguments)
        if name.startswith("Sparse"):
            return DecodedMetric(metric, self._each_class, self._indices)
        if "Categorical" in name:
            return DecodedMetric(metric, self._each_class, self._one_hot)
        if self._binary or several:
            return DecodedMetric(metric, self._probabilities, keras.ops.round)
        return DecodedMetric(metric, self._probabilities, self._one_hot)

    def _probabilities(self, logits: Any) -> Any:
        """(B, K); (B, 1) for two classes."""
        if self._binary or self.info.target == "labels":
            return keras.ops.sigmoid(logits)
        return keras.ops.softmax(logits)

    def _each_class(self, logits: Any) -> Any:
        """(B, K), also for two classes."""
        probabilities = self._probabilities(logits)
        if self._binary:
            return keras.ops.concatenate([1 - probabilities, probabilities], axis=-1)
        return probabilities

    def _indices(self, targets: Any) -> Any:
        """One-hot or mixed targets (B, K) -> the larger class (B,)."""
        if self._binary:
            return keras.ops.cast(keras.ops.round(keras.ops.reshape(targets, (-1,))), "int32")
        return keras.ops.argmax(targets, axis=-1) if len(targets.shape) == 2 else targets

    def _one_hot(self, targets: Any) -> Any:
        """The classes of targets as (B, K)."""
        return keras.ops.one_hot(self._indices(targets), self.num_classes)


class ImageClassification(Classification):
    """Which class does an image show? Features are a map (B, H, W, D), averaged over H and W, or a vector (B, D).

    Args:
        loss: any of keras.losses. Default: cross-entropy; binary cross-entropy for two classes and for labels.
        metrics: more of keras.metrics to show in each epoch, beside accuracy.
    """

    name: ClassVar[str] = "image_classification"

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        loss: Loss | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        super().__init__(info, loss, metrics)


class TabularClassification(Classification):
    """Which class does a row of a table belong to? Binary, multi-class or multi-label, as the target column says.

    Args:
        loss: any of keras.losses. Default: cross-entropy; binary cross-entropy for two classes and for labels.
        metrics: more of keras.metrics to show in each epoch, beside accuracy.
    """

    name: ClassVar[str] = "tabular_classification"

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        loss: Loss | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        super().__init__(info, loss, metrics)
