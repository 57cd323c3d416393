"""Pooling over real tokens: mean, maximum and attention."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.layers import AttentionPooling, MaskedPooling

VALUES = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
MASK = np.array([[True, True, True, False], [True, False, False, False], [False] * 4])


def layers() -> list[keras.layers.Layer]:
    keras.utils.set_random_seed(0)
    return [MaskedPooling("mean"), MaskedPooling("max"), AttentionPooling(), AttentionPooling(5)]


@pytest.mark.parametrize("index", range(4))
def test_what_stands_in_the_padding_does_not_matter(index):
    layer = layers()[index]
    expected = np.asarray(layer(VALUES, mask=MASK))
    loud = np.where(MASK[..., None], VALUES, 1e4)
    np.testing.assert_array_equal(layer(loud, mask=MASK), expected)
    np.testing.assert_allclose(layer(VALUES[:1, :3])[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(expected[1], VALUES[1, 0], atol=1e-6)
    np.testing.assert_array_equal(expected[2], 0)


@pytest.mark.parametrize("index", range(4))
def test_gradients_are_finite_and_stop_at_the_padding(index):
    layer = layers()[index]
    values = tf.constant(VALUES)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(layer(values, mask=MASK) ** 2)
    gradient = tape.gradient(total, values).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[~MASK] == 0).all()
    assert gradient[0, :3].any()


def test_large_scores_do_not_overflow():
    layer = AttentionPooling()
    layer(VALUES)
    layer.set_weights([np.eye(2), np.zeros(2), np.full((2, 1), 1e5)])
    best = np.tanh(VALUES[0, :3]).sum(-1).argmax()
    np.testing.assert_allclose(layer(VALUES, mask=MASK)[0], VALUES[0, best], atol=1e-6)


def test_long_texts_in_half_precision():
    texts = np.full((1, 5001, 1), 0.01, "float16")
    outputs = MaskedPooling("mean", dtype="float16")(texts, mask=np.arange(5001)[None] < 5000)
    np.testing.assert_allclose(outputs, 0.01, rtol=0.01)


def test_they_can_be_saved():
    for layer in layers():
        copy = type(layer).from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()
    assert AttentionPooling(5).get_config()["width"] == 5
    with pytest.raises(ValueError, match="Received: 'sum'"):
        MaskedPooling("sum")
