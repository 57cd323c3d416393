"""Streams of batches: examples -> tf.data, where batch k of training is a pure function of (seed, k)."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from dlcli.data.augmentation import Augment, Position
from dlcli.data.examples import Examples

# Cipher rounds of the index shuffle. tf.random.experimental.index_shuffle has 4, where the orders of two
# epochs correlate with 0.75 and neighbours repel each other. From 8 rounds on neither can be measured.
SHUFFLE_ROUNDS = 12


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches of one pass over the examples; the last one may be short."""
    if num_examples < 1 or batch_size < 1:
        raise ValueError(
            "Expected at least one example and a batch size of at least 1. "
            f"Received: {num_examples}, {batch_size}"
        )
    return math.ceil(num_examples / batch_size)


def training_stream(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    augment: Augment | None = None,
    one_hot_classes: int | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches `(inputs, targets)`; each epoch shows every example once, in an order of its own.

    Batch k depends on (seed, k) alone, so a stream from `start_step` goes on where another one stopped.

    Args:
        examples: what to read.
        batch_size: examples a batch; the last batch of an epoch is shorter when the examples do not divide.
        seed: of the order and the augmentation, 0 to 2**31 - 1.
        augment: what to do to each batch of images, from `build_augment`.
        one_hot_classes: turn class indices (B,) into float32 (B, classes).
        start_step: the first batch to give.
    """
    num_examples, per_epoch = len(examples), steps_per_epoch(len(examples), batch_size)
    all_targets = tf.constant(examples.targets)

    def batch(step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        epoch = step // per_epoch
        first = tf.cast(step % per_epoch, tf.int32) * batch_size
        places = tf.range(first, tf.minimum(first + batch_size, num_examples))
        indices = _shuffled(places, seed, epoch, num_examples)
        inputs, targets = examples.read(indices), _one_hot(tf.gather(all_targets, indices), one_hot_classes)
        if augment is not None:
            return augment(inputs, targets, Position.of(seed, step, epoch, indices))
        return inputs, targets

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    return steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE
    )


def evaluation_stream(
    examples: Examples, batch_size: int, *, one_hot_classes: int | None = None
) -> tf.data.Dataset:
    """All examples once, in their order, as batches `(inputs, targets)`.

    Args:
        examples: what to read.
        batch_size: examples a batch; the last one may be shorter.
        one_hot_classes: turn class indices (B,) into float32 (B, classes).
    """
    num_examples = len(examples)
    all_targets = tf.constant(examples.targets)

    def batch(step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        first = tf.cast(step, tf.int32) * batch_size
        indices = tf.range(first, tf.minimum(first + batch_size, num_examples))
        return examples.read(indices), _one_hot(tf.gather(all_targets, indices), one_hot_classes)

    steps = tf.data.Dataset.range(steps_per_epoch(num_examples, batch_size))
    return steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE
    )


def _one_hot(targets: tf.Tensor, classes: int | None) -> tf.Tensor:
    return targets if classes is None else tf.one_hot(targets, classes)


def _shuffled(places: tf.Tensor, seed: int, epoch: tf.Tensor, num_examples: int) -> tf.Tensor:
    """Which examples stand at `places` in this epoch: a keyed permutation, nothing to store or to skip."""
    key = tf.stack([tf.constant(seed, tf.int64), epoch, tf.constant(0, tf.int64)])
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=key, max_index=num_examples - 1, rounds=SHUFFLE_ROUNDS
    )
