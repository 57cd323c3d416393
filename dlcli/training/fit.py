"""Keras's `fit`, which can begin inside an epoch, on one device or several: the one loop of every training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from dlcli.training.agreement import Agreement
from dlcli.training.keras_fixes import distributed_step
from dlcli.training.replica_state import with_replica_state


def fit(
    network: keras.Model,
    batches: tf.data.Dataset,
    *,
    first_epoch: int,
    first_step: int,
    epochs: int,
    steps_per_epoch: int,
    validation: tf.data.Dataset | None,
    callbacks: Sequence[keras.callbacks.Callback],
    agreement: Agreement | None = None,
) -> None:
    """Trains a compiled network with its own `train_step`, and drives the callbacks as Keras does.

    `keras.Model.fit` begins with a whole epoch. Otherwise this is what it does, but for two things: a callback sees the
    number of the step in its epoch, also of an epoch that is gone on with; and averaged weights stay as the
    callback that swaps them leaves them.

    Args:
        network: compiled and through `build`; `train_step` is Keras's or its own.
        batches: endless, from the first step to be done on; for several devices each element is a tuple with a batch
            for each device of this process.
        first_epoch: epochs that are done.
        first_step: steps of the next one that are done, 0 to `steps_per_epoch`.
        epochs: where training ends.
        steps_per_epoch: a multiple of the network's `steps_per_execution`.
        validation: passed over after each epoch.
        callbacks: in the order in which they are called; one may set `network.stop_training` at an epoch's end.
        agreement: of the workers; None for a process alone.
    """
    all_callbacks = keras.callbacks.CallbackList(
        callbacks, model=network, epochs=epochs, steps=steps_per_epoch, verbose=0
    )
    agreement = agreement or Agreement()
    train_step = _train_function(network, agreement)
    test_step = None if validation is None else _test_function(network, agreement)
    iterator = _iterator(network, batches)
    network.stop_training = False
    all_callbacks.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in range(first_epoch, epochs):
        network.reset_metrics()
        all_callbacks.on_epoch_begin(epoch)  # the checkpoint's puts the metrics of a part of an epoch back
        for step in range(
            first_step if epoch == first_epoch else 0, steps_per_epoch, network.steps_per_execution
        ):
            all_callbacks.on_train_batch_begin(step)
            logs = train_step(iterator)
            all_callbacks.on_train_batch_end(step + network.steps_per_execution - 1, logs)
        logs = dict(network.get_metrics_result())
        if validation is not None and test_step is not None:
            validated = _validate(network, test_step, validation, all_callbacks)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        all_callbacks.on_epoch_end(epoch, logs)
        if network.stop_training:
            break
    all_callbacks.on_train_end(logs)


Step = Callable[[Any], dict[str, Any]]
"""Takes one batch of an iterator, or `steps_per_execution` of them, and gives the metrics so far."""


def _train_function(network: keras.Model, agreement: Agreement) -> Step:
    if network.distribute_strategy.num_replicas_in_sync > 1:
        return distributed_step(network, with_replica_state(network, network.train_step), agreement)
    network.make_train_function()
    made: Step = network.train_function
    return made


def _test_function(network: keras.Model, agreement: Agreement) -> Step:
    if network.distribute_strategy.num_replicas_in_sync > 1:
        return distributed_step(network, network.test_step, agreement)
    network.make_test_function()
    made: Step = network.test_function
    return made


def _validate(
    network: keras.Model,
    test_step: Step,
    validation: tf.data.Dataset,
    callbacks: keras.callbacks.CallbackList,
) -> dict[str, Any]:
    """Metrics of one pass; a callback may set `network.stop_evaluating`."""
    network.stop_evaluating = False
    callbacks.on_test_begin()
    network.reset_metrics()
    iterator = _iterator(network, validation)
    for step in range(0, int(validation.cardinality()), network.steps_per_execution):
        callbacks.on_test_batch_begin(step)
        logs = test_step(iterator)
        callbacks.on_test_batch_end(step + network.steps_per_execution - 1, logs)
        if network.stop_evaluating:
            break
    found = dict(network.get_metrics_result())
    callbacks.on_test_end(found)
    return found


def _iterator(network: keras.Model, batches: tf.data.Dataset) -> Any:
    """Batches for the network's devices.

    Only a TPU's are distributed by the strategy: the iterators that it makes share threads with what they wait for, and
    now and then stood still for seconds on two cores.
    """
    strategy = network.distribute_strategy
    if isinstance(strategy, tf.distribute.TPUStrategy):
        one_by_one = batches.flat_map(_one_by_one)
        return iter(strategy.distribute_datasets_from_function(lambda _: one_by_one))
    return iter(batches)


def _one_by_one(*parts: Any) -> tf.data.Dataset:
    """The batches of all devices, one after another."""
    first, *others = (tf.data.Dataset.from_tensors(part) for part in parts)
    for other in others:
        first = first.concatenate(other)
    return first


def build(network: keras.Model, batches: tf.data.Dataset) -> None:
    """Makes all variables of metrics and optimizer, which Keras otherwise does when the first step begins."""
    strategy = network.distribute_strategy
    batch = next(iter(batches))
    if strategy.num_replicas_in_sync > 1:
        batch = next(part for part in batch if len(tree.flatten(part)[0]))  # of a device that gets something
    with strategy.scope():
        network._symbolic_build(data_batch=batch)
