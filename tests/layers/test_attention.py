"""Attention: parity with Keras's layer, rotary positions, the cache."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.layers.attention import Attention, rotate

WIDTH, HEADS = 12, 3
X = np.random.default_rng(0).normal(size=(2, 5, WIDTH)).astype("float32")
MEMORY = np.random.default_rng(1).normal(size=(2, 7, WIDTH)).astype("float32")
MASK = np.arange(7) < np.array([[7], [4]])


def keras_twin(ours: Attention) -> keras.layers.MultiHeadAttention:
    """Keras's layer with the same weights."""
    theirs = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
    theirs.build(X.shape, MEMORY.shape)
    theirs.set_weights(
        [w.reshape(t.shape) for w, t in zip(ours.get_weights(), theirs.get_weights(), strict=True)]
    )
    return theirs


def built(**options) -> Attention:
    layer = Attention(WIDTH, HEADS, **options)
    layer.build(X.shape)
    layer.set_weights([np.random.default_rng(2).normal(0, 0.5, w.shape) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_it_computes_what_keras_does(dropout):
    """In training, a dropout that drops nothing takes the way with explicit weights."""
    layer = built(dropout=dropout)
    theirs = keras_twin(layer)
    masked = layer(X, MEMORY, key_mask=MASK, training=True)
    expected = theirs(X, MEMORY, attention_mask=MASK[:, None, :])
    np.testing.assert_allclose(masked, expected, atol=1e-5)
    causal = built(causal=True, dropout=dropout)
    np.testing.assert_allclose(
        causal(X, training=True), keras_twin(causal)(X, X, use_causal_mask=True), atol=1e-5
    )


def test_dropout_works_in_training_alone():
    layer = built(dropout=0.5)
    assert np.abs(layer(X, training=True) - layer(X, training=True)).max() > 0.01
    np.testing.assert_array_equal(layer(X, training=False), built()(X))


def test_a_rotation_by_hand():
    x = np.zeros((1, 2, 1, 4), "float32")
    x[..., 0], x[..., 1] = 1, 1  # of the pairs (0, 2), which turns by 1 a position, and (1, 3), by 0.01
    np.testing.assert_allclose(
        rotate(x, 3)[0, 1, 0], [np.cos(4), np.cos(0.04), np.sin(4), np.sin(0.04)], atol=1e-6
    )
    np.testing.assert_array_equal(rotate(x)[0, 0], x[0, 0])


def test_rotated_products_depend_on_the_distance_alone():
    query, key = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype("float32")

    def product(at: int, other: int) -> float:
        return float(np.sum(rotate(query, at) * rotate(key, other)))

    assert product(2, 7) == pytest.approx(product(40, 45), abs=1e-5)
    assert abs(product(2, 7) - product(2, 8)) > 1e-3


def test_rotary_attention_does_not_know_where_a_text_begins():
    layer = built(rotary=True, causal=True)
    cache = layer.empty_cache(2, 40)
    shifted = {
        name: np.full(array.shape, 9.0, "float32") for name, array in cache.items()
    }  # must not be seen
    first, _ = layer.step(X, shifted, 0)
    np.testing.assert_allclose(first, layer(X), atol=1e-5)
    assert np.abs(layer(X) - built(causal=True)(X)).max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "num_heads": 3}, "num_heads=3, width=10"),
        ({"width": 9, "num_heads": 3, "rotary": True}, "heads of 3"),
    ],
)
def test_heads_must_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Attention(**options)
