"""What a device does that gets no example, as of a last batch with fewer examples than devices.

TensorFlow's kernels for CPUs (oneDNN, TF 2.21) fail on nothing: a convolution has its input's shape in the place of its
own, and the gradient of max pooling ends the process. So such a device computes a row that counts nowhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import tree


class _Here(threading.local):
    """Of this replica; each is traced in a thread of its own."""

    counts: Any = 1.0
    """0 while a row is computed that counts nowhere."""


_here = _Here()


def on_rows(call: Callable[[Any], Any], inputs: Any) -> Any:
    """`call(inputs)`, whose outputs have no row where the inputs have none; with one device nothing else happens.

    Args:
        call: of a network; with outputs by rows.
        inputs: by rows.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return call(inputs)
    known = tf.shape(tree.flatten(inputs)[0])[0] > 0
    before, _here.counts = _here.counts, tf.cast(known, tf.float32)
    try:
        outputs = call(tree.map_structure(partial(_with_a_row, known=known), inputs))
    finally:
        _here.counts = before
    return tree.map_structure(lambda rows: rows[: tf.where(known, tf.shape(rows)[0], 0)], outputs)


def _with_a_row(rows: Any, known: Any) -> Any:
    """The rows, or one where there are none."""
    shape = tf.shape(rows)
    sides = tf.where(known, shape[1:], tf.maximum(shape[1:], 1))  # texts of no example have no length
    added = tf.concat([[tf.where(known, 0, 1)], sides], 0)
    # A token 0 is padding, and of padding alone some layers make NaN, whose gradient is NaN also where it is cut off.
    row = tf.ones(added, rows.dtype) if rows.dtype.is_integer else tf.zeros(added, rows.dtype)
    filled = tf.concat([tf.reshape(rows, tf.concat([shape[:1], sides], 0)), row], 0)
    return tf.ensure_shape(filled, [None, *rows.shape[1:]])


def synchronize(layer: keras.layers.BatchNormalization) -> None:
    """Lets a layer see the examples of all devices, and of each only those that count.

    Keras's own `synchronized` counts every row, and exchanges three messages where this has one.
    """
    layer.synchronized = True
    layer._moments = partial(_moments, layer._moments, layer)


def _moments(
    of_keras: Callable[..., Any], layer: keras.layers.Layer, inputs: Any, mask: Any
) -> tuple[Any, Any]:
    """Mean and variance over all devices, (C,)."""
    context = tf.distribute.get_replica_context()
    if mask is not None or context is None:
        found: tuple[Any, Any] = of_keras(inputs, mask)
        return found
    axes, channels = layer._reduction_axes, inputs.shape[layer.axis]
    rows = tf.cast(tf.size(inputs) // channels, inputs.dtype) * _here.counts
    here = tf.concat([*tf.nn.moments(inputs, axes), rows[None]], 0)
    # Each device fills a row of its own.
    own = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=here.dtype)
    everywhere = context.all_reduce(tf.distribute.ReduceOp.SUM, own[:, None] * here)
    means, variances, counts = tf.split(everywhere, [channels, channels, 1], axis=1)
    shares = tf.math.divide_no_nan(counts, tf.reduce_sum(counts))  # (devices, 1)
    mean = tf.reduce_sum(shares * means, axis=0)
    # Not the mean of squares less the square of the mean, as Keras has it: that loses digits where means are large.
    return mean, tf.reduce_sum(shares * (variances + tf.square(means - mean)), axis=0)
