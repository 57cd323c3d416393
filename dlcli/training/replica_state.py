"""What each of several devices keeps for itself, in layers: the state of random draws, and local moving averages.

Keras gives each replica its own copy of such variables and never compares them, while a checkpoint and a saved model
hold the first one's alone. Here all copies are equal again after each step: so a run can be gone on with, also on
another number of devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from dlcli.layers.local_normalization import LocalBatchNormalization

Step = Callable[[Any], Mapping[str, Any]]
"""A batch, or a replica's part of one -> logs."""


def with_replica_state(network: keras.Model, step: Step) -> Step:
    """A network's `train_step` for several devices, each with draws of its own, after which their layers are alike.

    Args:
        network: whose layers have the state.
        step: called in replica context with a part of the batch, by rows; also with an empty one.
    """
    draws, averages = seed_states(network), local_averages(network)

    def stepped(data: Any) -> Mapping[str, Any]:
        with own_draws(draws):
            logs = step(data)
        agree(averages, tf.shape(tree.flatten(data)[0])[0])
        return logs

    return stepped


def seed_states(network: keras.Model) -> list[keras.Variable]:
    """The states of the seed generators of all random layers."""
    return [variable for variable in network.variables if variable.name == "seed_generator_state"]


def local_averages(network: keras.Model) -> list[keras.Variable]:
    """The moving averages of each device's own batch normalization, without those of frozen layers."""
    return [
        average
        for layer in network._flatten_layers()
        if isinstance(layer, LocalBatchNormalization) and layer.trainable
        for average in (layer.moving_mean, layer.moving_variance)
    ]


@contextmanager
def own_draws(states: Sequence[keras.Variable]) -> Iterator[None]:
    """Within it, in replica context, random layers draw for this replica alone; with one replica nothing changes.

    The copies of a `SeedGenerator`'s state [seed, number of draws] are equal, so that Keras drops the same units on
    every replica. Here the draws of a step follow from the seed, the steps that are done, and the replica. Afterwards
    the copies are equal again, also where replicas drew unequally often: of a short batch one has fewer parts.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        yield
        return
    fold_in = tf.random.experimental.stateless_fold_in  # its second number is what is folded in, as it is
    replica = context.replica_id_in_sync_group
    begun = [state.value * 1 for state in states]  # copies, since the variables change
    for state, value in zip(states, begun, strict=True):
        state.assign(fold_in(fold_in(value, tf.cast(replica, value.dtype)), tf.zeros([], value.dtype)))
    yield
    for state, value in zip(states, begun, strict=True):
        state.assign(value + tf.constant([0, 1], value.dtype))


def agree(averages: Sequence[keras.Variable], examples: tf.Tensor) -> None:
    """Sets moving averages to their mean over all replicas, in replica context.

    Args:
        averages: of as many examples as each replica had; an empty part made them NaN, and counts nothing.
        examples: of this replica in this step.
    """
    context = tf.distribute.get_replica_context()
    if not averages or context is None or context.num_replicas_in_sync == 1:
        return
    # One vector, so that workers exchange all at once.
    here = tf.concat([tf.reshape(average.value, [-1]) for average in averages], 0)
    count = tf.cast(examples, here.dtype)
    counted = tf.where(examples > 0, here * count, tf.zeros_like(here))
    everywhere = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([counted, [count]], 0))
    sizes = [average.shape.num_elements() for average in averages]
    values = tf.split(everywhere[:-1] / everywhere[-1], sizes)
    for average, value in zip(averages, values, strict=True):
        average.assign(tf.reshape(value, average.shape))
