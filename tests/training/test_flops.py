"""Operations of layers that TensorFlow's profiler counts once or not at all, against counts by hand."""

from __future__ import annotations

import keras
import pytest

from dlcli.training.flops import forward_flops

LENGTH, WIDTH, UNITS = 50, 8, 16


def network(layer):
    ids = keras.Input((None,), dtype="int32")
    return keras.Model(ids, layer(keras.layers.Embedding(10, WIDTH)(ids)))


def attention():
    layer = keras.layers.MultiHeadAttention(2, 4)
    return lambda x: layer(x, x)


@pytest.mark.parametrize(
    ("layer", "multiply_adds"),
    [
        (lambda: keras.layers.Dense(3), LENGTH * WIDTH * 3),
        (lambda: keras.layers.LSTM(UNITS), LENGTH * 4 * UNITS * (WIDTH + UNITS)),
        (
            lambda: keras.layers.Bidirectional(keras.layers.GRU(UNITS)),
            2 * LENGTH * 3 * UNITS * (WIDTH + UNITS),
        ),
        (
            attention,
            4 * LENGTH * WIDTH * WIDTH + 2 * LENGTH * LENGTH * WIDTH,
        ),
    ],
    ids=["dense", "lstm", "bidirectional", "attention"],
)
def test_matrix_products_are_nearly_all(layer, multiply_adds):
    counted = forward_flops(network(layer()), LENGTH)
    # Biases, activations and the softmax come on top: with heads of four numbers, a third.
    assert 2 * multiply_adds <= counted < 2.7 * multiply_adds


def test_several_inputs_and_twice_the_length():
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}
    embedding = keras.layers.Embedding(10, WIDTH)
    parts = [
        keras.layers.Dense(units, use_bias=False)(embedding(each))
        for each, units in zip(inputs.values(), (2, 3), strict=True)
    ]
    model = keras.Model(inputs, keras.layers.Concatenate()(parts))
    assert forward_flops(model, LENGTH) == pytest.approx(2 * LENGTH * WIDTH * 5, rel=0.06)
    assert forward_flops(model, 2 * LENGTH) == pytest.approx(4 * LENGTH * WIDTH * 5, rel=0.06)
