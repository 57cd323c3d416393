"""How a denoiser is told how noisy its images are."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

LONGEST_PERIOD = 10_000.0


@keras.saving.register_keras_serializable("dlcli")
class NoiseLevelEmbedding(keras.layers.Layer):
    """Logarithms of signal-to-noise ratios (B,) -> sines and cosines (B, D).

    They are first turned into the time at which a cosine schedule has them, 0 to 1000, since that is even where the
    ratio says little (Salimans and Ho 2022, "Progressive Distillation", appendix E: `inv_cos`); then as positions in
    Vaswani et al. 2017, section 3.5.

    Args:
        dimension: D, even.
    """

    def __init__(self, dimension: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if dimension < 4 or dimension % 2:
            raise ValueError(f"Expected an even dimension of at least 4. Received: {dimension}")
        self.dimension = dimension

    def call(self, log_snr: keras.KerasTensor) -> keras.KerasTensor:
        """(B,) -> (B, D)."""
        times = 2000 / math.pi * ops.arctan(ops.exp(-0.5 * ops.clip(log_snr, -20, 20)))
        half = self.dimension // 2
        rates = [LONGEST_PERIOD ** (-index / (half - 1)) for index in range(half)]
        angles = ops.expand_dims(times, -1) * ops.convert_to_tensor(rates, "float32")
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """One vector for each number."""
        return (*input_shape, self.dimension)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "dimension": self.dimension}
