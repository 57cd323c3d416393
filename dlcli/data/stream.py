"""Streams of batches: examples -> tf.data, where batch k of training is a pure function of (seed, k)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Augment, Position
from dlcli.data.examples import Examples
from dlcli.data.sharding import Shard

# Cipher rounds of the index shuffle. tf.random.experimental.index_shuffle has 4, where the orders of two
# epochs correlate with 0.75 and neighbours repel each other. From 8 rounds on neither can be measured.
SHUFFLE_ROUNDS = 12


BUCKET_BATCHES = 32
"""Batches whose examples are sorted by length together, so that each batch pads little; enough of them that which
examples meet in a batch stays random."""


def steps_per_epoch(num_examples: int, batch_size: int, whole_batches: bool = False) -> int:
    """Batches of one pass over the examples; the last one may be short, or is left out."""
    if num_examples < 1 or batch_size < 1:
        raise ValueError(
            "Expected at least one example and a batch size of at least 1. "
            f"Received: {num_examples}, {batch_size}"
        )
    if whole_batches:
        if num_examples < batch_size:
            raise ValueError(f"Expected at least {batch_size} examples for a batch. Received: {num_examples}")
        return num_examples // batch_size
    return math.ceil(num_examples / batch_size)


def training_stream(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    augment: Augment | None = None,
    one_hot_classes: int | None = None,
    start_step: int = 0,
    whole_batches: bool = False,
    weigh: Callable[[tf.Tensor], tf.Tensor] | None = None,
    shard: Shard | None = None,
    before: int = 0,
    group: int = 1,
) -> tf.data.Dataset:
    """Endless batches `(inputs, targets)`; each epoch shows every example once, in an order of its own.

    Batch k depends on (seed, k) alone, so a stream from `start_step` goes on where another one stopped. With a shard
    it is a tuple of such batches, one for each replica of this process, and no other examples are read.

    Args:
        examples: what to read.
        batch_size: examples a batch; the last batch of an epoch is shorter when the examples do not divide.
        seed: of the order and the augmentation, 0 to 2**31 - 1.
        augment: what to do to each batch of images, from `build_augment`.
        one_hot_classes: turn class indices (B,) into float32 (B, classes).
        start_step: the first batch to give.
        whole_batches: an epoch ends before its short last batch; which examples that leaves out changes each time.
        weigh: targets -> weights (B,), which become a third part of each batch.
        shard: the replicas of this process; None gives whole batches.
        before: how many examples before its own a replica must know for `augment`: see `rows_before`.
        group: examples that `augment` makes one row of, such as a GAN's images of a step.
    """
    num_examples, per_epoch = len(examples), steps_per_epoch(len(examples), batch_size, whole_batches)
    read = _reader(examples, seed, augment, one_hot_classes, weigh)
    lengths = _lengths(examples)

    def batch(step: tf.Tensor) -> Any:
        indices = _indices(step, per_epoch, batch_size, seed, num_examples, lengths)
        place = Position.of(seed, step, step // per_epoch, indices)
        return _cut(read, place, shard, before, group)

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    return _batches(steps, batch)


def indices_of_step(
    examples: Examples, batch_size: int, seed: int, step: int, whole_batches: bool = False
) -> np.ndarray:
    """Which examples batch number `step` of `training_stream` holds, int32 (B,); the arguments are the stream's."""
    per_epoch = steps_per_epoch(len(examples), batch_size, whole_batches)
    place = tf.constant(step, tf.int64)
    found = _indices(place, per_epoch, batch_size, seed, len(examples), _lengths(examples))
    return np.asarray(found)


def evaluation_stream(
    examples: Examples,
    batch_size: int,
    *,
    one_hot_classes: int | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    shard: Shard | None = None,
) -> tf.data.Dataset:
    """All examples once, in their order, as batches `(inputs, targets)`.

    Args:
        examples: what to read.
        batch_size: examples a batch; the last one may be shorter.
        one_hot_classes: turn class indices (B,) into float32 (B, classes).
        augment: what a task does to every batch, such as masking; the same in every pass.
        seed: of `augment`.
        shard: as for `training_stream`.
    """
    num_examples = len(examples)
    read = _reader(examples, seed, augment, one_hot_classes, in_order=True)

    def batch(step: tf.Tensor) -> Any:
        first = tf.cast(step, tf.int32) * batch_size
        indices = tf.range(first, tf.minimum(first + batch_size, num_examples))
        return _cut(read, Position.of(seed, step, tf.zeros([], tf.int64), indices), shard)

    return _batches(tf.data.Dataset.range(steps_per_epoch(num_examples, batch_size)), batch)


def by_length(examples: Examples) -> tuple[Examples, np.ndarray]:
    """The examples sorted by length where they have one, so that batches pad little; and where each came from."""
    lengths = getattr(examples, "lengths", None)
    order = np.arange(len(examples)) if lengths is None else np.argsort(-lengths, kind="stable")
    return (examples if lengths is None else examples.subset(order)), order


Read = Callable[[Position], tuple[Any, ...]]


def _reader(
    examples: Examples,
    seed: int,
    augment: Augment | None,
    classes: int | None,
    weigh: Callable[[tf.Tensor], tf.Tensor] | None = None,
    in_order: bool = False,
) -> Read:
    """A function of a position: reads the examples there and does to them what is to be done."""
    all_targets = tf.constant(examples.targets)
    # Of two sets of images the smaller one has epochs of its own.
    read_at = None if in_order else getattr(examples, "read_at", None)

    def read(place: Position) -> tuple[Any, ...]:
        inputs = examples.read(place.indices) if read_at is None else read_at(place, seed)
        targets = _targets(examples, all_targets, place.indices, classes)
        if augment is not None:
            inputs, targets = augment(inputs, targets, place)
        return (inputs, targets) if weigh is None else (inputs, targets, weigh(targets))

    return read


def _cut(
    read: Read, place: Position, shard: Shard | None, before: int = 0, group: int = 1
) -> tuple[Any, ...]:
    """A batch; with a shard a tuple of the parts of its replicas."""
    if shard is None:
        return read(place)
    rows = tf.size(place.indices) // group
    if shard.holds_all:
        return shard.parts(read(place), rows)
    here = place.at(shard.rows(tf.size(place.indices), before, group), before)
    return shard.parts(read(here), rows, before)


def _batches(steps: tf.data.Dataset, batch: Callable[[tf.Tensor], Any]) -> tf.data.Dataset:
    made = steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return made.prefetch(tf.data.AUTOTUNE)


def _targets(
    examples: Examples, all_targets: tf.Tensor, indices: tf.Tensor, classes: int | None
) -> tf.Tensor:
    """Targets of a batch: rows of an array, or sequences that the examples read themselves."""
    read = getattr(examples, "read_targets", None)
    targets = tf.gather(all_targets, indices) if read is None else read(indices)
    return targets if classes is None else tf.one_hot(targets, classes)


def _lengths(examples: Examples) -> tf.Tensor | None:
    lengths = getattr(examples, "lengths", None)
    return None if lengths is None else tf.constant(lengths)


def _indices(
    step: tf.Tensor, per_epoch: int, batch_size: int, seed: int, num_examples: int, lengths: tf.Tensor | None
) -> tf.Tensor:
    """Which examples stand in a batch: a function of (seed, step) alone."""
    epoch, place = step // per_epoch, tf.cast(step % per_epoch, tf.int32)
    if lengths is not None:
        return _of_like_length(place, batch_size, seed, epoch, lengths)
    first = place * batch_size
    places = tf.range(first, tf.minimum(first + batch_size, num_examples))
    return _shuffled(places, seed, epoch, num_examples)


def _of_like_length(
    place: tf.Tensor, batch_size: int, seed: int, epoch: tf.Tensor, lengths: tf.Tensor
) -> tf.Tensor:
    """Which examples stand in batch number `place` of this epoch, when like lengths stand together.

    An epoch is shuffled and cut into pools of BUCKET_BATCHES batches; each pool is sorted by length, cut into
    batches, and their order drawn anew. So every example comes once an epoch, and a batch is still a function of
    (seed, step) alone.
    """
    num_examples = int(lengths.shape[0])
    pool = batch_size * BUCKET_BATCHES
    first = place // BUCKET_BATCHES * pool
    size = tf.minimum(pool, num_examples - first)
    members = _shuffled(tf.range(first, first + size), seed, epoch, num_examples)
    ordered = tf.gather(members, tf.argsort(tf.gather(lengths, members), stable=True))
    batches = (size + batch_size - 1) // batch_size
    key = tf.stack([tf.constant(seed, tf.int64), epoch, tf.cast(first, tf.int64) + 1])
    drawn = tf.raw_ops.RandomIndexShuffle(
        index=place % BUCKET_BATCHES, seed=key, max_index=batches - 1, rounds=SHUFFLE_ROUNDS
    )
    return ordered[drawn * batch_size : tf.minimum((drawn + 1) * batch_size, size)]


def _shuffled(places: tf.Tensor, seed: int, epoch: tf.Tensor, num_examples: int) -> tf.Tensor:
    """Which examples stand at `places` in this epoch: a keyed permutation, nothing to store or to skip."""
    key = tf.stack([tf.constant(seed, tf.int64), epoch, tf.constant(0, tf.int64)])
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=key, max_index=num_examples - 1, rounds=SHUFFLE_ROUNDS
    )
