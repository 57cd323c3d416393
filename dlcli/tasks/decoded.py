"""Losses and metrics of Keras that read decoded outputs (probabilities, real units), on a model that gives logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

Decode = Callable[[Any], Any]


class DecodedLoss(keras.losses.Loss):
    """`loss(targets, decode(outputs))`.

    Args:
        loss: the Keras loss.
        decode: outputs (B, K) -> what the loss expects, such as probabilities.
    """

    def __init__(self, loss: keras.losses.Loss, decode: Decode) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.decode = decode

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each example (B,)."""
        return self.loss.call(y_true, self.decode(y_pred))


class DecodedMetric(keras.metrics.Metric):
    """`metric(decode_targets(targets), decode(outputs))`, under the metric's own name.

    Args:
        metric: the Keras metric.
        decode: outputs -> what the metric expects.
        decode_targets: targets -> what the metric expects.
    """

    def __init__(self, metric: keras.metrics.Metric, decode: Decode, decode_targets: Decode) -> None:
        super().__init__(name=metric.name)
        self.metric = metric
        self.decode = decode
        self.decode_targets = decode_targets

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds one batch."""
        return self.metric.update_state(self.decode_targets(y_true), self.decode(y_pred), sample_weight)

    def result(self) -> Any:
        """The metric so far."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Starts an epoch."""
        self.metric.reset_state()
