"""Convolution over texts of different lengths."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class MaskedConv1D(keras.layers.Conv1D):
    """One window around each token, (B, T, D) -> (B, T, filters): beyond a text's ends a window sees zeros.

    So a text gives the same windows whatever padding follows it, and a text shorter than the window still gives
    one window for each of its tokens. Windows of even width reach one token further to the right than to the left.

    Args:
        filters: Filters.
        kernel_size: Tokens in a window.
        kwargs: Of keras.layers.Conv1D.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "same"})
        self.supports_masking = True

    def call(self, inputs: keras.KerasTensor, mask: keras.KerasTensor | None = None) -> keras.KerasTensor:
        """(B, T, D), and a mask (B, T) that is true for real tokens and goes on with the output."""
        if mask is not None:
            inputs = inputs * keras.ops.expand_dims(keras.ops.cast(mask, inputs.dtype), -1)
        return super().call(inputs)
