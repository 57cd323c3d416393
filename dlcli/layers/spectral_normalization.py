"""Layers whose kernels have spectral norm 1. Miyato et al. 2018, "Spectral Normalization for GANs", section 2.1.

Keras's `SpectralNormalization` wrapper assigns the normalized kernel to the layer, so that no gradient passes through
the norm and the weight that the optimizer sees is replaced in each step; the paper learns the weight beneath.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

TINY = 1e-12


class _Spectral:
    """Mixed into a Keras layer: its matrix is read divided by its largest singular value.

    The value is estimated by one step of power iteration in each training call, from where the last one ended.
    """

    def add_singular_vector(self: Any, matrix: Any, initializer: Any) -> None:
        """Makes the vector (out,) that the iteration goes on with, of unit length.

        Args:
            matrix: (..., out), the layer's weight.
            initializer: the weight's: its seed, where it has one, decides this draw too.
        """
        self.singular_vector = self.add_weight(
            shape=(matrix.shape[-1],),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=getattr(initializer, "seed", None)),
            trainable=False,
            name="singular_vector",
            autocast=False,
            # Replicas hold the same matrix and so make the same step; their mean is it.
            aggregation="mean",
        )

    def save_own_variables(self: Any, store: Any) -> None:
        """All weights in their order; Keras's own form for these layers names kernel and bias alone."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self: Any, store: Any) -> None:
        """As they were saved."""
        keras.layers.Layer.load_own_variables(self, store)

    def normalized(self: Any, weight: Any, training: bool) -> Any:
        """The weight over its spectral norm, float32 also under mixed precision.

        Args:
            weight: (..., out), read as a matrix (in, out).
            training: whether the estimate takes a step.
        """
        weight = ops.cast(weight, "float32")
        matrix = ops.reshape(weight, (-1, weight.shape[-1]))
        fixed = ops.stop_gradient(matrix)
        right = ops.convert_to_tensor(self.singular_vector)[:, None]  # (out, 1)
        left = _unit(ops.matmul(fixed, right))  # (in, 1)
        if training:
            right = _unit(ops.matmul(ops.transpose(fixed), left))
            self.singular_vector.assign(right[:, 0])
        # Both vectors count as constants: then d(norm) / d(matrix) is left right^T (equation 11).
        norm = ops.sum(left * ops.matmul(matrix, _unit(right)))
        return weight / norm


def _unit(vector: Any) -> Any:
    return vector / (ops.norm(vector) + TINY)


@keras.saving.register_keras_serializable("dlcli")
class SpectralConv2D(_Spectral, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with spectral norm 1."""

    def build(self, input_shape: Any) -> None:
        """Makes kernel, bias and singular vector."""
        super().build(input_shape)
        self.add_singular_vector(self.kernel, self.kernel_initializer)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, h, w, filters)."""
        kernel = ops.cast(self.normalized(self._kernel, training), inputs.dtype)
        outputs = self.convolution_op(inputs, kernel)
        if self.use_bias:
            outputs = ops.add(outputs, ops.reshape(self.bias, (1, 1, 1, -1)))
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable("dlcli")
class SpectralDense(_Spectral, keras.layers.Dense):
    """`keras.layers.Dense` with spectral norm 1."""

    def build(self, input_shape: Any) -> None:
        """Makes kernel, bias and singular vector."""
        super().build(input_shape)
        self.add_singular_vector(self.kernel, self.kernel_initializer)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """(B, D) -> (B, units)."""
        outputs = ops.matmul(inputs, ops.cast(self.normalized(self._kernel, training), inputs.dtype))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable("dlcli")
class SpectralEmbedding(_Spectral, keras.layers.Embedding):
    """`keras.layers.Embedding` whose table (ids, width) has spectral norm 1, for projection discriminators."""

    def build(self, input_shape: Any = None) -> None:
        """Makes table and singular vector."""
        super().build(input_shape)
        self.add_singular_vector(self._embeddings, self.embeddings_initializer)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Ids (...) -> (..., width)."""
        table = self.normalized(self._embeddings, training)
        return ops.cast(ops.take(table, inputs, axis=0), self.compute_dtype)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Keras's own takes no `training`."""
        return super().compute_output_spec(inputs)
