"""The initializer that makes a convolution begin as the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class Dirac(keras.initializers.VarianceScaling):
    """Partial identity for 2D convolutions: the first filters pass a channel through (Jordan 2024).

    Of a kernel (height, width, inputs, filters), filter i < min(inputs, filters) is 1 at the centre of
    channel i and 0 elsewhere; the filters after that are drawn uniformly within 1 / sqrt(fan-in), PyTorch's
    default.

    Args:
        seed: As in Keras's own initializers: None draws a new one, which `keras.utils.set_random_seed` fixes.
    """

    def __init__(self, seed: int | keras.random.SeedGenerator | None = None) -> None:
        super().__init__(scale=1 / 3, mode="fan_in", distribution="uniform", seed=seed)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        """A kernel of this shape."""
        if len(shape) != 4:
            raise ValueError(
                f"Expected a 2D convolution's kernel, (height, width, inputs, filters). Received: {shape}"
            )
        height, width, inputs, filters = shape
        rest = super().__call__(shape, dtype)
        passed = min(inputs, filters)
        identity = ops.reshape(ops.eye(inputs, passed, dtype=rest.dtype), (1, 1, inputs, passed))
        before = [height // 2, width // 2]
        around = [[before[0], height - 1 - before[0]], [before[1], width - 1 - before[1]], [0, 0], [0, 0]]
        return ops.concatenate([ops.pad(identity, around), rest[..., passed:]], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The seed; all else is fixed."""
        return {"seed": super().get_config()["seed"]}
