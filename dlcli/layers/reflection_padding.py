"""Padding that mirrors an image at its borders, so that convolutions draw no frame around it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class ReflectionPadding2D(keras.layers.Layer):
    """Images (B, H, W, C) -> (B, H + 2 padding, W + 2 padding, C); the border pixels themselves are not repeated.

    Args:
        padding: pixels on each side, less than H and W.
    """

    def __init__(self, padding: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, H + 2 padding, W + 2 padding, C)."""
        sides = (self.padding, self.padding)
        return ops.pad(images, ((0, 0), sides, sides, (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Two sides longer."""
        batch, height, width, channels = input_shape
        longer = [None if side is None else side + 2 * self.padding for side in (height, width)]
        return batch, *longer, channels

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "padding": self.padding}
