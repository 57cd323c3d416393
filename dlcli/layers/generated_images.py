"""The last layer of a saved generative model: what a network draws becomes pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class GeneratedImages(keras.layers.Layer):
    """Images (B, H, W, C) in [-1, 1] -> float32 in [0, 1], clipped.

    Args:
        class_names: of the labels that the model takes, in index order; empty when it takes none.
    """

    def __init__(self, class_names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.class_names = list(class_names)

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return keras.ops.clip((images + 1) / 2, 0, 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "class_names": self.class_names}
