"""Recipe -> tf.distribute strategy."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import keras
import tensorflow as tf

from dlcli.console import warn
from dlcli.recipe.schema import Recipe


def strategy_scope(recipe: Recipe) -> AbstractContextManager[None]:
    """The scope in which a recipe's model is built and trained: the first GPU if there is one, else the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if recipe.distribution.strategy == "none" or not gpus:
        device = "/CPU:0"
    else:
        device = "/GPU:0"
        if len(gpus) > 1:
            warn(f"{len(gpus)} GPUs are here; this version trains on the first")
    return tf.distribute.OneDeviceStrategy(device).scope()


def synchronize_normalization(networks: Iterable[keras.Model]) -> None:
    """Lets batch normalization see the whole batch where several replicas share it, as one device would."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    for network in networks:
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
