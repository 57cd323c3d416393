"""Batch normalization of each device's own examples."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("dlcli")
class LocalBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization (Ioffe & Szegedy 2015, algorithm 1) over each device's part of a batch, never over all.

    On one device it is `keras.layers.BatchNormalization`. On several, dlcli synchronizes that one, so that training is
    that of one device, and leaves this one alone: nothing waits for other devices in the forward pass, statistics are
    those of fewer examples, and the moving averages are the mean of the devices' own.
    """
