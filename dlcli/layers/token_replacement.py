"""The generator of ELECTRA at work: its loss, and tokens drawn from it."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class TokenReplacement(keras.layers.Layer):
    """Marked ids (B, T) and the generator's logits (M, V) for the M negative ones -> ids (B, T) that it completed.

    Adds the generator's cross-entropy to the model's loss, and shows it as `generator_loss`. No gradient passes the
    draw (Clark et al. 2020, "ELECTRA", section 2). Outside training the draw is the same each time.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator()
        self.generator_loss = keras.metrics.Mean(name="generator_loss")

    def call(
        self, ids: keras.KerasTensor, logits: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Int32 (B, T), no longer negative."""
        flat = keras.ops.reshape(ids, (-1,))
        (places,) = keras.ops.nonzero(flat < 0)
        original = -keras.ops.take(flat, places)
        losses = keras.ops.sparse_categorical_crossentropy(original, logits, from_logits=True)
        count = keras.ops.cast(keras.ops.size(places), "float32")
        loss = keras.ops.sum(losses) / keras.ops.maximum(count, 1)
        self.add_loss(loss)
        self.generator_loss.update_state(loss, sample_weight=count)
        drawn = keras.random.categorical(
            keras.ops.stop_gradient(logits), 1, seed=self.seed_generator if training else 0
        )
        drawn = keras.ops.cast(keras.ops.reshape(drawn, (-1,)), "int32")
        return keras.ops.reshape(
            keras.ops.scatter_update(flat, keras.ops.expand_dims(places, -1), drawn), keras.ops.shape(ids)
        )

    def compute_output_shape(
        self, ids_shape: tuple[int | None, ...], logits_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """(B, T)."""
        return ids_shape

    def compute_output_spec(self, ids: Any, logits: Any, training: bool = False) -> keras.KerasTensor:
        """Int32 (B, T)."""
        return keras.KerasTensor(ids.shape, "int32")

    def compute_mask(self, *arguments: Any, **keywords: Any) -> None:
        """No mask: the ids say what is padding."""
