"""The last layer of a saved model: logits become what a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras


@keras.saving.register_keras_serializable("dlcli")
class Predictions(keras.layers.Layer):
    """Logits -> probabilities of the named classes, or values in the target's own unit.

    Args:
        target: `classes` gives softmax probabilities (B, K), also from the one logit of a binary model;
            `labels` gives a sigmoid for each label (B, K); `values` gives `logits * scale + offset` (B, K).
        class_names: K names in index order; for `values` the names of the target columns.
        scale: for `values`, the standard deviation of each target in the train split.
        offset: for `values`, the mean of each target in the train split.
    """

    def __init__(
        self,
        target: Literal["classes", "labels", "values"],
        class_names: Sequence[str],
        scale: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        # float32 also under mixed precision: half-precision probabilities do not sum to one.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.target = target
        self.class_names = list(class_names)
        self.scale = list(scale) if scale is not None else None
        self.offset = list(offset) if offset is not None else None
        self.supports_masking = True

    def call(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """(B, K) or, for two classes, (B, 1) logits -> (B, K)."""
        if self.target == "classes":
            if logits.shape[-1] == 1:
                positive = keras.ops.sigmoid(logits)
                return keras.ops.concatenate([1 - positive, positive], axis=-1)
            return keras.ops.softmax(logits)
        if self.target == "labels":
            return keras.ops.sigmoid(logits)
        return logits * keras.ops.convert_to_tensor(self.scale, logits.dtype) + keras.ops.convert_to_tensor(
            self.offset, logits.dtype
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, K)."""
        return (*input_shape[:-1], len(self.class_names))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {
            "target": self.target,
            "class_names": self.class_names,
            "scale": self.scale,
            "offset": self.offset,
        }
        return {**super().get_config(), **own}
