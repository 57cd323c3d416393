"""Where a style-based generator begins: a map that is the same for every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class LearnedConstant(keras.layers.Layer):
    """A learnt map, once for each example. Karras et al. 2019, "A Style-Based Generator Architecture", section 2.

    Args:
        shape: (H, W, C).
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.constant: Any = None

    def build(self, input_shape: Any) -> None:
        """Makes the map."""
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.constant = self.add_weight(shape=self.shape, initializer=normal, name="constant")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Anything (B, ...) -> (B, H, W, C)."""
        constant = ops.cast(self.constant, self.compute_dtype)[None]
        return ops.broadcast_to(constant, (ops.shape(inputs)[0], *self.shape))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, H, W, C)."""
        return (input_shape[0], *self.shape)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "shape": list(self.shape)}
