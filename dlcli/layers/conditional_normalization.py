"""Gains and biases that depend on a class: with batch normalization before it, conditional batch normalization."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class ConditionalScale(keras.layers.Layer):
    """Scales and shifts each channel as the class of the image says.

    Behind a `BatchNormalization` without scale and centre this is the conditional batch normalization of Dumoulin et
    al. 2017, "A Learned Representation for Artistic Style", equation 5.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, inputs_shape: Any, labels_shape: Any) -> None:
        """Makes a gain and a bias for each class and channel."""
        shape = (self.num_classes, inputs_shape[-1])
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, inputs: keras.KerasTensor, labels: keras.KerasTensor) -> keras.KerasTensor:
        """Features (B, H, W, C) and labels (B,) -> (B, H, W, C)."""
        gamma = ops.take(self.gamma, labels, axis=0)[:, None, None, :]
        beta = ops.take(self.beta, labels, axis=0)[:, None, None, :]
        return inputs * ops.cast(gamma, inputs.dtype) + ops.cast(beta, inputs.dtype)

    def compute_output_shape(self, inputs_shape: Any, labels_shape: Any) -> Any:
        """As the features'."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "num_classes": self.num_classes}
