"""Where a token stands in its text, added to its embedding."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class PositionEmbedding(keras.layers.Layer):
    """Adds to each token's embedding (B, T, D) that of its position.

    `learned` is a table (GPT, BERT). `sinusoidal` (Vaswani et al. 2017, section 3.5) has no weights: feature 2i of
    position p is sin(p / 10000^(2i / D)), feature 2i + 1 the cosine; small embeddings must be multiplied by sqrt(D)
    before (section 3.4), or the positions drown them. Rotary positions have no embedding: they are an option of the
    attention (`TransformerBlock`).

    Args:
        kind: learned or sinusoidal.
        max_length: rows of the learned table; no text may be longer. Sinusoids know no limit.
        initializer: of the learned table.
    """

    def __init__(
        self,
        kind: Literal["learned", "sinusoidal"] = "learned",
        max_length: int | None = None,
        initializer: Any = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in ("learned", "sinusoidal"):
            raise ValueError(f"Expected kind learned or sinusoidal. Received: {kind!r}")
        if kind == "learned" and (max_length is None or max_length < 1):
            raise ValueError(
                f"Expected a max_length of at least 1 for a learned table. Received: {max_length}"
            )
        self.kind = kind
        self.max_length = max_length
        self.initializer = keras.initializers.get(initializer)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the learned table."""
        if self.kind == "learned":
            self.table = self.add_weight(
                shape=(self.max_length, input_shape[-1]), initializer=self.initializer.clone(), name="table"
            )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(B, T, D), its first token at position 0."""
        if self.kind != "learned":
            return self.step(inputs, 0)
        length = inputs.shape[1]
        if length is not None and length > self.max_length:
            raise ValueError(
                f"Expected at most {self.max_length} tokens, the rows of the table of positions. Received: {length}"
            )
        # Cut off, not looked up: the gradient of a look-up lists the same rows once for each device, and Keras's
        # optimizers square each of them instead of their sum.
        return inputs + ops.convert_to_tensor(self.table)[: ops.shape(inputs)[1]]

    def step(self, inputs: keras.KerasTensor, position: Any) -> keras.KerasTensor:
        """(B, T, D), its first token at `position`: one step of a longer text."""
        positions = position + ops.arange(ops.shape(inputs)[1])
        if self.kind == "learned":
            return inputs + ops.take(self.table, positions, axis=0)
        return inputs + ops.cast(sinusoids(positions, inputs.shape[-1]), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, D)."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {
            "kind": self.kind,
            "max_length": self.max_length,
            "initializer": keras.initializers.serialize(self.initializer),
        }
        return {**super().get_config(), **own}


def sinusoids(positions: Any, width: int) -> Any:
    """Sines and cosines (T, width) of positions (T,), as Vaswani et al. 2017, section 3.5."""
    features = ops.arange(width)
    exponents = ops.cast(features // 2 * 2, "float32") / width
    angles = ops.cast(positions, "float32")[:, None] * ops.exp(-ops.log(10_000.0) * exponents)
    return ops.where(features % 2 == 0, ops.sin(angles), ops.cos(angles))
