"""Pooling over the real tokens of a sequence."""

from __future__ import annotations

from typing import Any, Literal

import keras


@keras.saving.register_keras_serializable("dlcli")
class MaskedPooling(keras.layers.Layer):
    """The mean or the maximum of each feature over the tokens that the mask keeps, (B, T, D) -> (B, D).

    Keras's GlobalMaxPooling1D lets padding win, and its GlobalAveragePooling1D divides by zero where a text is
    empty. Here an empty text gives zeros.

    Args:
        reduction: `mean` or `max`.
    """

    def __init__(self, reduction: Literal["mean", "max"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in ("mean", "max"):
            raise ValueError(f"Expected reduction mean or max. Received: {reduction!r}")
        self.reduction = reduction
        self.supports_masking = True

    def call(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> keras.KerasTensor:
        """(B, T, D), and a mask (B, T) that is true for real tokens; without one all are real."""
        if mask is None:
            return (keras.ops.mean if self.reduction == "mean" else keras.ops.max)(inputs, axis=1)
        real = keras.ops.expand_dims(keras.ops.cast(mask, inputs.dtype), -1)  # (B, T, 1)
        if self.reduction == "mean":
            # Counted in float32: half precision has no 2,049.
            count = keras.ops.sum(keras.ops.cast(mask, "float32"), axis=1, keepdims=True)  # (B, 1)
            share = keras.ops.cast(1 / keras.ops.maximum(count, 1), inputs.dtype)
            return keras.ops.sum(inputs * real, axis=1) * share
        lowest = keras.ops.where(real > 0, inputs, float("-inf"))
        highest = keras.ops.max(lowest, axis=1)
        return keras.ops.where(keras.ops.any(mask, axis=1, keepdims=True), highest, 0)

    def compute_mask(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> None:
        """A vector has no tokens left to mask."""
        return

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, D)."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "reduction": self.reduction}
