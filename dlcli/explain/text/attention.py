"""Attention rollout: along which tokens attention hands on what the model reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.hooks import hooked
from dlcli.explain.network import Network
from dlcli.layers.attention import Attention
from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.masked_pooling import MaskedPooling

CAVEATS = (
    "attention weights say where the model looks, and need not be why it decides (Jain & Wallace 2019)",
    "attention knows no classes: the map is the same whichever is explained",
)

MEAN = "mean of the tokens"
MEAN_FOR_MAXIMUM = "mean of the tokens, though the model takes their maximum"

_KERAS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_POOLED = (MaskedPooling, keras.layers.GlobalAveragePooling1D, keras.layers.GlobalMaxPooling1D)


def attention(network: Network, subjects: Sequence[Subject], outputs: np.ndarray) -> list[Attribution]:
    """How much of each token reaches the output through attention (Abnar & Zuidema 2020, section 3, "rollout").

    In each layer a token's new features are half its own, half what the mean head gathers: A = W / 2 + I / 2; the
    product of all A says what came from where. Rows are read as the model does: the mean over tokens where it pools,
    an attention pooling's own weights, the first token, or the last one of a language model. The values are shares
    and sum to 1, special tokens included.

    Args:
        network: the model, with layers of attention.
        subjects: texts.
        outputs: without influence: attention is the same for all.

    Raises:
        DlcliError: there is no attention in the model.
    """
    layers = attention_layers(network.model)
    pools = [seen.layer for seen in network.layers if isinstance(seen.layer, AttentionPooling)]
    if not layers and not pools:
        raise DlcliError(
            "attention: the model has no layer of attention (Attention, MultiHeadAttention, GroupQueryAttention or "
            "AttentionPooling); these work: integrated_gradients, occlusion, lime, shap"
        )
    readout = _readout(network, pools)
    shares = network.compiled("attention rollout", lambda network: _rollout(network, layers, readout))
    settings = {
        "layers": [layer.name for layer in (*layers, *pools)],
        "readout": readout if isinstance(readout, str) else readout.name,
    }
    found = []
    for subject in subjects:
        values = np.asarray(shares(tf.constant(np.asarray(subject.inputs)[None])), np.float32)
        found.append(Attribution(values, signed=False, settings=settings, warnings=CAVEATS))
    return found


def attention_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Every layer in which tokens attend to tokens, also inside models and layers made of layers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, (Attention, *_KERAS))]


def _readout(network: Network, pools: Sequence[AttentionPooling]) -> str | AttentionPooling:
    """Which tokens' features the output is made of."""
    if network.language:
        return "last token"
    if pools:
        return pools[-1]
    found = [seen.layer for seen in network.layers if isinstance(seen.layer, _POOLED)]
    if not found:
        return "first token"
    maximum = (
        isinstance(found[-1], keras.layers.GlobalMaxPooling1D) or getattr(found[-1], "reduction", "") == "max"
    )
    return MEAN_FOR_MAXIMUM if maximum else MEAN


def _rollout(
    network: Network, layers: Sequence[keras.layers.Layer], readout: str | AttentionPooling
) -> Callable[[tf.Tensor], tf.Tensor]:
    def rollout(ids: tf.Tensor) -> tf.Tensor:
        """Ids (1, T) of one text without padding -> the share of each token (T,)."""
        weights: list[tf.Tensor] = []
        pooling: list[tf.Tensor] = []
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(_watched(layer, weights))
            if isinstance(readout, AttentionPooling):
                stack.enter_context(hooked(readout, _pooling_hook(readout, pooling)))
            network.forward(ids)
        length = tf.shape(ids)[1]
        mixed = tf.eye(length)
        for each in weights:
            if len(each.shape) == 4:  # (1, N, T, S), heads of one layer
                step = tf.reduce_mean(tf.cast(each[0], tf.float32), axis=0)
                mixed = tf.matmul((step + tf.eye(length)) / 2, mixed)
        if pooling:
            return tf.linalg.matvec(mixed, pooling[0][0], transpose_a=True)
        if readout in (MEAN, MEAN_FOR_MAXIMUM):
            return tf.reduce_mean(mixed, axis=0)
        return mixed[-1] if readout == "last token" else mixed[0]

    return rollout


@contextmanager
def _watched(layer: keras.layers.Layer, weights: list[tf.Tensor]) -> Iterator[None]:
    """Within the block, what each call of the layer attends to is kept: (B, N, T, S)."""
    name = "_attend" if isinstance(layer, Attention) else "_compute_attention"
    inside = getattr(layer, name)

    def own(query: Any, key: Any, value: Any, bias: Any, training: bool | None = False) -> Any:
        scores = keras.ops.einsum("btnh,bsnh->bnts", query * layer.head_width**-0.5, key)
        weights.append(keras.ops.softmax(scores if bias is None else scores + bias))
        return inside(query, key, value, bias, training)

    def theirs(*args: Any, **kwargs: Any) -> Any:
        # A fused operation would keep the weights to itself.
        given = inspect.signature(inside).bind(*args, **kwargs)
        if "return_attention_scores" in given.signature.parameters:
            given.arguments["return_attention_scores"] = True
        else:
            layer._return_attention_scores = True
        output, scores = inside(*given.args, **given.kwargs)
        weights.append(scores)
        return output, scores

    object.__setattr__(layer, name, own if isinstance(layer, Attention) else theirs)
    try:
        yield
    finally:
        object.__delattr__(layer, name)


def _pooling_hook(layer: AttentionPooling, kept: list[tf.Tensor]) -> Callable[..., Any]:
    """Keeps the layer's weights (B, T), of texts without padding."""

    def hook(call: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = keras.ops.tanh(keras.ops.matmul(inputs, layer.kernel) + layer.bias)
        scores = keras.ops.cast(keras.ops.matmul(hidden, layer.context), "float32")
        kept.append(keras.ops.softmax(scores[..., 0]))
        return call(inputs, *args, **kwargs)

    return hook
