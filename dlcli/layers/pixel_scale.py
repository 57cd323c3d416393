"""The width of a decoder's distribution of pixels, learnt and kept with it."""

from __future__ import annotations

import math
from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class PixelScale(keras.layers.Layer):
    """Passes images on, and holds one learnt number: the logarithm of the scale that all pixels share.

    Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders", section 4.1. Samples do not read
    it; what a sample is worth does.

    Args:
        initial: scale to begin with, in gray levels of 0 to 255.
    """

    def __init__(self, initial: float = 32.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.initial = initial

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weight."""
        start = keras.initializers.Constant(math.log(self.initial))
        self.log_scale = self.add_weight(shape=(), initializer=start, name="log_scale")

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C), as they are."""
        return images

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "initial": self.initial}
