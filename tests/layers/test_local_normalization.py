"""Batch normalization of each device's own examples is Keras's layer under another name."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from dlcli.architectures.blocks import normalize
from dlcli.architectures.cnn import cnn
from dlcli.layers.local_normalization import LocalBatchNormalization
from dlcli.training.flops import forward_flops


def network(normalization: str) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, cnn(inputs, filters=[4], normalization=normalization))


def test_it_counts_and_computes_as_that_of_keras() -> None:
    ours, theirs = network("batch_local"), network("batch")
    assert [type(layer) for layer in ours.layers if isinstance(layer, keras.layers.BatchNormalization)] == [
        LocalBatchNormalization
    ]
    assert not any(isinstance(layer, LocalBatchNormalization) for layer in theirs.layers)
    theirs.set_weights(ours.get_weights())
    images = np.random.default_rng(0).normal(2, 3, (5, 8, 8, 3)).astype("float32")
    for training in (True, False):  # the moving averages change with the first
        np.testing.assert_array_equal(ours(images, training=training), theirs(images, training=training))
    assert forward_flops(ours) == forward_flops(theirs)


def test_it_is_saved_as_what_it_is(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, normalize(inputs, "batch_local"))
    model(np.random.default_rng(0).normal(size=(6, 4)), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[1]) is LocalBatchNormalization
    for mine, its in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_frozen_one_stays() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, normalize(inputs, "batch_local"))
    model.trainable = False
    before = model.get_weights()
    model(np.ones((3, 4)), training=True)
    for was, now in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(was, now)
