"""From features to a logit for each token of the vocabulary, with the embedding's own weights where they fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

EMBEDDING = "token_embedding"
"""The name under which an architecture offers its embedding for tying."""

PROJECTION, LOGITS = "output_projection", "logits"
"""Names of the layers that a saved model is read by."""

Project = Callable[[keras.KerasTensor], keras.KerasTensor]
"""Features (..., D) -> logits (..., V), float32."""


def token_embedding(features: keras.KerasTensor) -> keras.layers.ReversibleEmbedding | None:
    """The embedding that `features` were made with, if its weights can also be read backwards."""
    model = keras.Model(keras.utils.get_source_inputs(features), features)
    return next((layer for layer in model.layers if _reversible(layer)), None)


def output_projection(
    embedding: keras.layers.ReversibleEmbedding | None, vocabulary_size: int, *, use_bias: bool = False
) -> Project:
    """The layers behind the features; each call of what it returns shares them.

    With an embedding its transpose is the output matrix (Press and Wolf 2017, "Using the Output Embedding to
    Improve Language Models"); the embedding itself is called backwards, so a saved model holds the weights once.

    Args:
        embedding: as wide as the features; None for a matrix of its own.
        vocabulary_size: V.
        use_bias: a bias for each token; a matrix of its own always has one.
    """
    logits = TokenLogits(use_bias or embedding is None, name=LOGITS)
    if embedding is not None:
        return lambda features: logits(embedding(features, reverse=True))
    matrix = keras.layers.Dense(vocabulary_size, use_bias=False, name=PROJECTION)
    return lambda features: logits(matrix(features))


def projection_of(model: keras.Model) -> Project:
    """The output projection of a saved model, to use on other features."""
    layers = {layer.name: layer for layer in model.layers}
    logits = layers[LOGITS]
    if PROJECTION in layers:
        return lambda features: logits(layers[PROJECTION](features))
    return lambda features: logits(layers[EMBEDDING](features, reverse=True))


def _reversible(layer: keras.layers.Layer) -> bool:
    return layer.name == EMBEDDING and isinstance(layer, keras.layers.ReversibleEmbedding)


@keras.saving.register_keras_serializable("dlcli")
class TokenLogits(keras.layers.Layer):
    """Products (..., V) -> logits (..., V): float32 also under mixed precision, with a bias for each token.

    Args:
        use_bias: whether to add one.
    """

    def __init__(self, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.use_bias = use_bias
        self.supports_masking = True
        self.bias: Any = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the bias."""
        if self.use_bias:
            self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Float32 (..., V)."""
        logits = keras.ops.cast(inputs, "float32")
        return logits if self.bias is None else logits + self.bias

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """No mask: targets of 0 say what counts, and Keras would weigh the loss a second time."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(..., V)."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "use_bias": self.use_bias}


@keras.saving.register_keras_serializable("dlcli")
class ChosenTokens(keras.layers.Layer):
    """Features (B, T, D) and marked ids (B, T) -> features (M, D) of the M tokens whose id is negative, in order.

    A masked language model predicts 15 % of the tokens: projecting the others onto the vocabulary would take more
    time than the rest of a small model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, features: keras.KerasTensor, ids: keras.KerasTensor) -> keras.KerasTensor:
        """(M, D); M differs from batch to batch and may be 0."""
        width = features.shape[-1]
        (places,) = keras.ops.nonzero(keras.ops.reshape(ids, (-1,)) < 0)
        return keras.ops.take(keras.ops.reshape(features, (-1, width)), places, axis=0)

    def compute_mask(self, *arguments: Any, **keywords: Any) -> None:
        """No mask: no padding is among the chosen."""

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], ids_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """(M, D)."""
        return (None, features_shape[-1])
