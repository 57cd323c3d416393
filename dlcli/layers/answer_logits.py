"""Where in a question's sequence an answer may begin and end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

NEVER = -1e9
"""A logit that no softmax sees, and that float32 can add to."""


@keras.saving.register_keras_serializable("dlcli")
class AnswerLogits(keras.layers.Layer):
    """Keeps the logits of the context's tokens and of the first position, which stands for "no answer".

    Its inputs are the logits (B, T, 2) and the token ids (B, T) of `start question separator context separator`.

    Args:
        separator: id of the token that ends the question and the context.
        no_answer: whether the model has learnt that a question may have no answer (SQuAD 2.0).
    """

    def __init__(self, separator: int, no_answer: bool, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.separator = separator
        self.no_answer = no_answer
        self.supports_masking = True

    def call(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """(B, T, 2), very negative wherever no answer can begin or end."""
        logits, tokens = inputs
        ends = keras.ops.equal(tokens, self.separator)
        passed = keras.ops.cumsum(
            keras.ops.cast(ends, "int32"), axis=1
        )  # the last separator ends the context
        in_context = keras.ops.logical_and(keras.ops.equal(passed, 1), keras.ops.logical_not(ends))
        first = keras.ops.equal(keras.ops.cumsum(keras.ops.ones_like(passed), axis=1), 1)
        allowed = keras.ops.logical_or(in_context, first)[:, :, None]
        return keras.ops.where(allowed, logits, NEVER)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """No mask goes on: padding is as impossible as the question."""

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """(B, T, 2)."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "separator": self.separator, "no_answer": self.no_answer}


def answer_logits_of(model: keras.Model) -> AnswerLogits | None:
    """The layer of a saved model of question answering; None for any other model."""
    return next((layer for layer in model.layers if isinstance(layer, AnswerLogits)), None)
