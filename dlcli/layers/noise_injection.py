"""Noise for what is random about an image besides its style: hairs, freckles, leaves.

Karras et al. 2019, "A Style-Based Generator Architecture", section 3.2.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

MARGIN = 64
"""Rows and columns of the stored field beyond the map's: windows differ by up to this much along each axis."""
DIGITS = 1e4
"""Times a latent this, the fraction of what comes out is as good as drawn."""


@keras.saving.register_keras_serializable("dlcli")
class NoiseInjection(keras.layers.Layer):
    """Adds a map of normal noise, the same for all channels, by a learnt strength that begins at 0.

    The noise is a window into a field that is stored with the layer. In training each image has a window of its own,
    chosen by the fine digits of two of its latents: no state to keep, nothing that a resumed training or another
    number of devices would draw otherwise. At inference all images have the same window, so that equal latents give
    equal images and near latents near ones.

    Args:
        place: which latents choose the window: this one and the next, counted around.
    """

    def __init__(self, place: int = 0, **kwargs: Any) -> None:
        # Latents come as they were drawn: cast to 16 bits they would have no fine digits.
        super().__init__(**{"autocast": False, **kwargs})
        self.place = place
        self.field: Any = None
        self.strength: Any = None

    def build(self, inputs_shape: Any, latents_shape: Any) -> None:
        """Makes the field (H + MARGIN, W + MARGIN) and the strength."""
        side = (inputs_shape[1] + MARGIN, inputs_shape[2] + MARGIN)
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.field = self.add_weight(shape=side, initializer=normal, trainable=False, name="field")
        self.strength = self.add_weight(shape=(), initializer="zeros", name="strength")

    def call(
        self, inputs: keras.KerasTensor, latents: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Features (B, H, W, C) and latents (B, Z) -> (B, H, W, C)."""
        height, width = inputs.shape[1:3]
        if training:
            noise = self._windows(latents, height, width)
        else:
            noise = ops.convert_to_tensor(self.field)[None, :height, :width]
        noise = ops.cast(noise, "float32")[..., None] * ops.cast(self.strength, "float32")
        return inputs + ops.cast(noise, inputs.dtype)

    def _windows(self, latents: Any, height: int, width: int) -> Any:
        """(B, H, W)."""
        rows = self._offsets(latents, self.place)[:, None, None] + ops.arange(height)[None, :, None]
        columns = self._offsets(latents, self.place + 1)[:, None, None] + ops.arange(width)[None, None, :]
        flat = ops.reshape(ops.convert_to_tensor(self.field), (-1,))
        return ops.take(flat, rows * (width + MARGIN) + columns, axis=0)

    def _offsets(self, latents: Any, place: int) -> Any:
        """(B,) of 0 to MARGIN."""
        digits = ops.mod(ops.cast(latents[:, place % latents.shape[-1]], "float32") * DIGITS, 1.0)
        return ops.cast(ops.minimum(ops.floor(digits * (MARGIN + 1)), MARGIN), "int32")

    def compute_output_shape(self, inputs_shape: Any, latents_shape: Any) -> Any:
        """As the features'."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "place": self.place}
