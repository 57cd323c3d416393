"""The low-pass filter beside strided convolutions, without which they alias. Zhang 2019, arXiv:1904.11486."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
"""Of bilinear resampling by two."""


@keras.saving.register_keras_serializable("dlcli")
class Blur(keras.layers.Layer):
    """Each channel's weighted mean over 4x4 pixels; what is beyond the border counts as 0.

    With an even number of taps the result lies half a pixel beside; `padding` says on which side.

    Args:
        strides: 2 halves the sides.
        padding: pixels before and after, along both axes: (2, 1) and (1, 2) keep the sides, (1, 1) with stride 2.
        gain: of the result; 4 behind a transposed convolution, which leaves three of four pixels out.
    """

    def __init__(
        self, strides: int = 1, padding: Sequence[int] = (2, 1), gain: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.strides = strides
        self.padding = tuple(padding)
        self.gain = gain

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, H, W, C) or (B, H / 2, W / 2, C)."""
        kernel = np.repeat((self.gain * TAPS)[:, :, None, None], inputs.shape[-1], axis=2)
        padded = ops.pad(inputs, ((0, 0), self.padding, self.padding, (0, 0)))
        return ops.depthwise_conv(padded, ops.cast(kernel, inputs.dtype), strides=self.strides)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, C)."""
        batch, height, width, channels = input_shape
        more = sum(self.padding) - 4
        return (
            batch,
            (height + more) // self.strides + 1,
            (width + more) // self.strides + 1,
            channels,
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {"strides": self.strides, "padding": list(self.padding), "gain": self.gain}
        return {**super().get_config(), **own}
