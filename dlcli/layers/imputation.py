"""Missing numbers filled in, and said to be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class Imputation(keras.layers.Layer):
    """Replaces NaN by a value of its column and says where: (B, D) -> (B, D + number of indicators).

    Args:
        values: what replaces NaN in each of the D columns, for instance the medians of the train split.
        indicators: positions of the columns that get a missing indicator.
    """

    def __init__(self, values: Sequence[float], indicators: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.values = [float(value) for value in values]
        self.indicators = [int(position) for position in indicators]
        if not all(0 <= position < len(self.values) for position in self.indicators):
            raise ValueError(f"Expected `indicators` below {len(self.values)}. Received: {self.indicators}")

    def call(self, inputs: Any) -> Any:
        """Float (B, D) with NaN -> float (B, D + M) without."""
        is_missing = keras.ops.isnan(inputs)
        filled = keras.ops.where(is_missing, keras.ops.cast(self.values, inputs.dtype), inputs)
        if not self.indicators:
            return filled
        indicated = keras.ops.take(
            keras.ops.cast(is_missing, inputs.dtype), self.indicators, axis=1
        )  # (B, M)
        return keras.ops.concatenate([filled, indicated], axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """(B, D + M)."""
        return (input_shape[0], len(self.values) + len(self.indicators))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "values": self.values, "indicators": self.indicators}
