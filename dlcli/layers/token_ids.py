"""Between dlcli's token ids and those of a pretrained model from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

NUM_SPECIAL = 5
"""`<pad> <unk> <start> <end> <mask>`, the first ids of every vocabulary of dlcli."""


@keras.saving.register_keras_serializable("dlcli")
class PresetTokens(keras.layers.Layer):
    """Token ids (B, T) of dlcli -> what a model of KerasHub reads: its own ids, where tokens are, segments of 0.

    Both vocabularies hold the same tokens. In dlcli's the special ones come first, and all others follow in the order
    of the preset's ids.

    Args:
        vocabulary_size: tokens of the preset.
        special_ids: the preset's ids of `<pad> <unk> <start> <end> <mask>`; one that the preset lacks has the id of
            another.
    """

    def __init__(self, vocabulary_size: int, special_ids: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "int32", **kwargs})
        if len(special_ids) != NUM_SPECIAL or not all(0 <= index < vocabulary_size for index in special_ids):
            raise ValueError(
                f"Expected {NUM_SPECIAL} special ids below {vocabulary_size}. Received: {list(special_ids)}"
            )
        self.vocabulary_size = vocabulary_size
        self.special_ids = [int(index) for index in special_ids]

    def call(self, inputs: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        """`token_ids`, `padding_mask` (1 for tokens, 0 for padding) and `segment_ids`, each int32 (B, T)."""
        ids = keras.ops.take(preset_ids(self.vocabulary_size, self.special_ids), inputs, axis=0)
        return {
            "token_ids": keras.ops.cast(ids, "int32"),
            "padding_mask": keras.ops.cast(keras.ops.not_equal(inputs, 0), "int32"),
            "segment_ids": keras.ops.zeros_like(keras.ops.cast(inputs, "int32")),
        }

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> dict[str, tuple[int | None, ...]]:
        """Three of (B, T)."""
        return dict.fromkeys(("token_ids", "padding_mask", "segment_ids"), input_shape)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {"vocabulary_size": self.vocabulary_size, "special_ids": self.special_ids}
        return {**super().get_config(), **own}


def preset_ids(vocabulary_size: int, special_ids: Sequence[int]) -> np.ndarray:
    """The preset's id of each of dlcli's ids, int32."""
    others = np.setdiff1d(np.arange(vocabulary_size), np.asarray(special_ids))
    return np.concatenate([np.asarray(special_ids), others]).astype("int32")


@keras.saving.register_keras_serializable("dlcli")
class WithMask(keras.layers.Layer):
    """Features (B, T, D) and a padding mask (B, T) -> the same features, with that mask as Keras's own.

    Models of KerasHub read their mask as an input and hand none on; pooling would average the padding too.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Features, unchanged."""
        return inputs[0]

    def compute_mask(self, inputs: Sequence[keras.KerasTensor], mask: Any = None) -> keras.KerasTensor:
        """True for tokens, bool (B, T)."""
        return keras.ops.not_equal(inputs[1], 0)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """(B, T, D)."""
        return tuple(input_shape[0])
