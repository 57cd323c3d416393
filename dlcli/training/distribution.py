"""Recipe -> tf.distribute strategy."""

from __future__ import annotations

from contextlib import AbstractContextManager

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
