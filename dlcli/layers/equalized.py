"""Layers whose weights all begin as large and learn as fast as each other: equalized learning rate.

Karras et al. 2018, "Progressive Growing of GANs", section 4.1. Weights are drawn from N(0, 1) and scaled in each call
by the inputs' number, as an initializer would once, so that an optimizer's step means the same for every layer.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class EqualizedDense(keras.layers.Dense):
    """`keras.layers.Dense` with an equalized learning rate.

    Args:
        units: width of the output.
        learning_rate_multiplier: how much faster than other layers it learns; 0.01 for a mapping network.
    """

    def __init__(self, units: int, *, learning_rate_multiplier: float = 1.0, **kwargs: Any) -> None:
        kwargs.setdefault("kernel_initializer", _drawn_for(learning_rate_multiplier))
        super().__init__(units, **kwargs)
        self.learning_rate_multiplier = learning_rate_multiplier

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(..., D) -> (..., units)."""
        scale = self.learning_rate_multiplier / math.sqrt(inputs.shape[-1])
        outputs = ops.matmul(inputs, ops.cast(self.kernel, inputs.dtype) * scale)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias * self.learning_rate_multiplier)
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "learning_rate_multiplier": self.learning_rate_multiplier}


@keras.saving.register_keras_serializable("dlcli")
class EqualizedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with an equalized learning rate."""

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any) -> None:
        kwargs.setdefault("kernel_initializer", _drawn_for(1.0))
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, h, w, filters)."""
        scale = 1 / math.sqrt(math.prod(self.kernel_size) * inputs.shape[-1])
        outputs = self.convolution_op(inputs, ops.cast(self.kernel, inputs.dtype) * scale)
        if self.use_bias:
            outputs = ops.add(outputs, ops.reshape(self.bias, (1, 1, 1, -1)))
        return outputs if self.activation is None else self.activation(outputs)


def _drawn_for(multiplier: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=1 / multiplier)
