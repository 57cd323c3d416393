"""One block of a Transformer: masks, memory, normalization, the cache."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.layers import TransformerBlock

WIDTH = 8
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, WIDTH)).astype("float32")


def block(**options) -> TransformerBlock:
    keras.utils.set_random_seed(0)
    return TransformerBlock(WIDTH, 2, 16, **options)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("rotary", [False, True])
def test_steps_give_what_the_whole_text_gives(norm, rotary):
    layer = block(causal=True, norm=norm, rotary=rotary, dropout=0.3)
    whole = layer(X, training=False)
    step = tf.function(layer.step, reduce_retracing=True)
    cache, outputs = layer.empty_cache(2, 9), []
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 6)):
        output, cache = step(tf.constant(X[:, start:end]), cache, tf.constant(start))
        outputs.append(output)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, atol=1e-5)


def test_a_causal_block_sees_nothing_later():
    layer = block(causal=True)
    changed = X.copy()
    changed[:, 4:] = changed[:, 4:][..., ::-1]
    np.testing.assert_array_equal(layer(X)[:, :4], layer(changed)[:, :4])
    assert np.abs(layer(X)[:, 4] - layer(changed)[:, 4]).max() > 0.01
    both_ways = block()
    assert np.abs(both_ways(X)[:, 0] - both_ways(changed)[:, 0]).max() > 1e-3


def test_padding_is_not_seen():
    layer = block()
    mask = np.arange(6) < np.array([[6], [4]])
    changed = X.copy()
    changed[1, 4:] += 5
    one, other = (layer(x, mask=tf.constant(mask)) for x in (X, changed))
    np.testing.assert_allclose(one[1, :4], other[1, :4], atol=1e-6)
    np.testing.assert_allclose(one[1, :4], layer(X[1:, :4])[0], atol=1e-5)
    np.testing.assert_array_equal(one._keras_mask, mask)


@pytest.mark.parametrize("given", [True, False])
def test_padding_of_the_memory_is_not_seen(given):
    """Its mask is given, or attached to it."""
    layer = block(causal=True, cross_attention=True)
    memory = RANDOM.normal(size=(2, 5, 10)).astype("float32")
    mask = tf.constant(np.arange(5) < np.array([[5], [2]]))

    def run(values: np.ndarray) -> tf.Tensor:
        tensor = tf.constant(values)
        if given:
            return layer(X, tensor, memory_mask=mask)
        tensor._keras_mask = mask
        return layer(X, tensor)

    changed = memory.copy()
    changed[1, 2:] += 5
    np.testing.assert_allclose(run(memory), run(changed), atol=1e-6)
    changed[1, 1] += 5
    assert np.abs(run(memory)[1] - run(changed)[1]).max() > 0.01


def test_a_text_of_padding_alone_is_finite_in_half_precision():
    layer = block(dtype="mixed_float16")
    assert np.isfinite(layer(X, mask=tf.zeros((2, 6), tf.bool))).all()


def test_where_the_normalization_stands():
    outputs = np.asarray(block(norm="post")(3 * X + 2))
    np.testing.assert_allclose(outputs.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(-1), 1, atol=1e-3)
    # Before each part, what the parts add is all that changes: nothing, while their last matrices are 0.
    np.testing.assert_array_equal(block(norm="pre", residual_initializer="zeros")(X), X)
    assert np.abs(block(norm="pre")(X) - X).max() > 0.1


@pytest.mark.parametrize("use_bias", [True, False])
def test_weights(use_bias):
    matrices = 4 * WIDTH**2 + 2 * WIDTH * 16
    biases = 4 * WIDTH + 16 + WIDTH + 2 * WIDTH
    layer = block(use_bias=use_bias)
    layer.build((None, None, WIDTH))
    assert layer.count_params() == matrices + 2 * WIDTH + use_bias * biases


def test_the_config_holds_every_argument():
    layer = block(
        dropout=0.2, norm="post", activation="relu", causal=True, cross_attention=True, rotary=True, use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.5), residual_initializer="zeros",
    )  # fmt: skip
    twin = TransformerBlock.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    shapes = ((None, None, WIDTH), (None, None, 10))
    for each in (layer, twin):
        each.build(*shapes)
    assert [w.path.split("/")[1:] for w in twin.weights] == [w.path.split("/")[1:] for w in layer.weights]
    assert not np.any(twin.output_projection.kernel)
    assert not np.any(twin.memory_attention.output_projection.kernel)
    assert 0.4 < np.std(twin.hidden.kernel) < 0.6


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="Received: 'before'"):
        block(norm="before")
    with pytest.raises(ValueError, match="causal=True beside"):
        block(cross_attention=True)
    with pytest.raises(ValueError, match="Expected memory with cross_attention"):
        block()(X, X)
    with pytest.raises(ValueError, match="tokens of 8 features"):
        block()(X[..., :4])
    with pytest.raises(ValueError, match="Expected a causal block"):
        block().empty_cache(1, 4)
