"""Keras's `fit`, which can begin inside an epoch: the one loop of every training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


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
) -> None:
    """Trains a compiled network with its own `train_step`, and drives the callbacks as Keras does.

    `keras.Model.fit` begins with a whole epoch. Otherwise this is what it does, but for two things: a callback sees the
    number of the step in its epoch, also of an epoch that is gone on with; and averaged weights stay as the
    callback that swaps them leaves them.

    Args:
        network: compiled and through `build`; `train_step` is Keras's or its own.
        batches: endless, from the first step to be done on.
        first_epoch: epochs that are done.
        first_step: steps of the next one that are done, 0 to `steps_per_epoch`.
        epochs: where training ends.
        steps_per_epoch: a multiple of the network's `steps_per_execution`.
        validation: passed over after each epoch.
        callbacks: in the order in which they are called; one may set `network.stop_training` at an epoch's end.
    """
    all_callbacks = keras.callbacks.CallbackList(
        callbacks, model=network, epochs=epochs, steps=steps_per_epoch, verbose=0
    )
    iterator = _iterator(network, batches)
    network.stop_training = False
    network.make_train_function()
    all_callbacks.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in range(first_epoch, epochs):
        network.reset_metrics()
        all_callbacks.on_epoch_begin(epoch)  # the checkpoint's puts the metrics of a part of an epoch back
        for step in range(
            first_step if epoch == first_epoch else 0, steps_per_epoch, network.steps_per_execution
        ):
            all_callbacks.on_train_batch_begin(step)
            logs = network.train_function(iterator)
            all_callbacks.on_train_batch_end(step + network.steps_per_execution - 1, logs)
        logs = dict(network.get_metrics_result())
        if validation is not None:
            validated = _validate(network, validation, all_callbacks)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        all_callbacks.on_epoch_end(epoch, logs)
        if network.stop_training:
            break
    all_callbacks.on_train_end(logs)


def _validate(
    network: keras.Model, validation: tf.data.Dataset, callbacks: keras.callbacks.CallbackList
) -> dict[str, Any]:
    """Metrics of one pass, by the network's `test_step`; a callback may set `network.stop_evaluating`."""
    network.make_test_function()
    network.stop_evaluating = False
    callbacks.on_test_begin()
    network.reset_metrics()
    iterator = _iterator(network, validation)
    for step in range(0, int(validation.cardinality()), network.steps_per_execution):
        callbacks.on_test_batch_begin(step)
        logs = network.test_function(iterator)
        callbacks.on_test_batch_end(step + network.steps_per_execution - 1, logs)
        if network.stop_evaluating:
            break
    found = dict(network.get_metrics_result())
    callbacks.on_test_end(found)
    return found


def _iterator(network: keras.Model, batches: tf.data.Dataset) -> Any:
    """Batches for the network's devices.

    For one device nothing is distributed: the iterators that a strategy makes share threads with what they wait for,
    and now and then stood still for seconds on two cores.
    """
    strategy = network.distribute_strategy
    distributed = strategy.num_replicas_in_sync > 1
    return iter(strategy.experimental_distribute_dataset(batches) if distributed else batches)


def build(network: keras.Model, batches: tf.data.Dataset) -> None:
    """Makes all variables of metrics and optimizer, which Keras otherwise does when the first step begins."""
    with network.distribute_strategy.scope():
        network._symbolic_build(data_batch=next(iter(batches)))
