"""A weighted mean over the tokens of a sequence, with learnt weights."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class AttentionPooling(keras.layers.Layer):
    """Additive attention with a learnt query, (B, T, D) -> (B, D).

    Each token is scored by `context . tanh(kernel . token + bias)`, and the mean of the tokens is weighted with the
    softmax of the scores: the word attention of Yang et al. 2016 (Hierarchical Attention Networks, section 2.2,
    equations 5 to 7). An empty text gives zeros.

    Args:
        width: Width of the hidden layer that scores; None for that of the tokens, as in the paper.
    """

    def __init__(self, width: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights."""
        features = input_shape[-1]
        width = self.width or features
        self.kernel = self.add_weight((features, width), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight((width,), initializer="zeros", name="bias")
        self.context = self.add_weight((width, 1), initializer="glorot_uniform", name="context")

    def call(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> keras.KerasTensor:
        """(B, T, D), and a mask (B, T) that is true for real tokens; without one all are real."""
        hidden = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + self.bias)
        scores = keras.ops.cast(keras.ops.matmul(hidden, self.context), "float32")  # (B, T, 1)
        real = keras.ops.ones_like(scores, "bool") if mask is None else keras.ops.expand_dims(mask, -1)
        scores = keras.ops.where(real, scores, -1e9)
        # The softmax is written out because of texts without any token.
        highest = keras.ops.stop_gradient(keras.ops.max(scores, axis=1, keepdims=True))
        weights = keras.ops.exp(scores - highest) * keras.ops.cast(real, "float32")
        # The highest score adds 1 to the sum: below that there is no token at all.
        weights = weights / keras.ops.maximum(keras.ops.sum(weights, axis=1, keepdims=True), 0.5)
        return keras.ops.sum(inputs * keras.ops.cast(weights, inputs.dtype), axis=1)

    def compute_mask(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> None:
        """A vector has no tokens left to mask."""
        return

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, D)."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "width": self.width}
