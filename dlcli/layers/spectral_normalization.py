"""Layers whose kernels have spectral norm 1. Miyato et al. 2018, "Spectral Normalization for GANs", section 2.1.

Keras's `SpectralNormalization` wrapper assigns the normalized kernel to the layer, so that no gradient passes through
the norm and the weight that the optimizer sees is replaced in each step; the paper learns the weight beneath.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class _Spectral:
    """Mixed into a Keras layer: its `kernel` is read divided by its largest singular value.

    The value is estimated by one step of power iteration in each training call, from where the last one ended.
    """

    def build(self: Any, input_shape: Any) -> None:
        super().build(input_shape)  # type: ignore[misc]
        self.left = self.add_weight(
            shape=(self._kernel.shape[-1],),
            initializer=keras.initializers.RandomNormal(seed=self.kernel_initializer.seed)
            if getattr(self.kernel_initializer, "seed", None) is not None
            else "random_normal",
            trainable=False,
            name="singular_vector",
            aggregation="mean",
        )

    def normalized(self: Any, training: bool) -> Any:
        """The kernel over its spectral norm."""
        kernel = self._kernel
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))  # (in, out)
        left = ops.convert_to_tensor(self.left)
        fixed = ops.stop_gradient(matrix)
        right = _unit(ops.matmul(fixed, left[:, None]))  # (in, 1)
        if training:
            left = _unit(ops.matmul(ops.transpose(fixed), right))[:, 0]
            self.left.assign(left)
        sigma = ops.sum(right * ops.matmul(matrix, _unit(left[:, None])))
        return kernel / sigma


def _unit(vector: Any) -> Any:
    return vector / (ops.norm(vector) + 1e-12)


@keras.saving.register_keras_serializable("dlcli")
class SpectralConv2D(_Spectral, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with spectral norm 1."""

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, h, w, filters)."""
        outputs = self.convolution_op(inputs, ops.cast(self.normalized(training), inputs.dtype))
        if self.use_bias:
            outputs = ops.add(outputs, ops.reshape(self.bias, (1, 1, 1, -1)))
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable("dlcli")
class SpectralDense(_Spectral, keras.layers.Dense):
    """`keras.layers.Dense` with spectral norm 1."""

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """(B, D) -> (B, units)."""
        outputs = ops.matmul(inputs, ops.cast(self.normalized(training), inputs.dtype))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)
