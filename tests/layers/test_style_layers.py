"""Layers of the style-based GAN, each against its definition written out."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.layers import (
    Blur,
    ConditionalScale,
    EqualizedConv2D,
    EqualizedDense,
    LearnedConstant,
    MinibatchDeviation,
    ModulatedConv2D,
    NoiseInjection,
)

RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(size=(4, 6, 5, 3)).astype("float32")
LATENTS = RANDOM.normal(size=(4, 7)).astype("float32")


def convolved(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.asarray(tf.nn.conv2d(images, kernel, 1, "SAME"))


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("upsample", [True, False])
def test_a_modulated_convolution_has_a_kernel_for_each_image(demodulate, upsample):
    keras.utils.set_random_seed(0)
    layer = ModulatedConv2D(8, demodulate=demodulate, upsample=upsample)
    outputs = np.asarray(layer(MAPS, LATENTS))
    layer.bias.assign(np.arange(8))
    outputs = np.asarray(layer(MAPS, LATENTS))
    styles = LATENTS @ np.asarray(layer.style_kernel) / math.sqrt(7) + 1
    for image, style, output in zip(MAPS, styles, outputs, strict=True):
        kernel = np.asarray(layer.kernel) / math.sqrt(27) * style[:, None]
        if demodulate:
            kernel /= np.sqrt(np.square(kernel).sum((0, 1, 2)) + 1e-8)
        if upsample:
            transposed = np.swapaxes(kernel, 2, 3)
            expected = tf.nn.conv2d_transpose(image[None], transposed, (1, 12, 10, 8), 2, "SAME")
        else:
            expected = convolved(image[None], kernel)
        np.testing.assert_allclose(output, np.asarray(expected)[0] + np.arange(8), atol=1e-5)


def test_demodulated_outputs_have_unit_variance_whatever_the_style():
    keras.utils.set_random_seed(0)
    layer = ModulatedConv2D(32)
    maps = np.random.default_rng(1).normal(size=(2, 32, 32, 16)).astype("float32")
    latents = np.float32([[0.1] * 7, [50.0] * 7])
    assert np.asarray(layer(maps, latents)).std((1, 2, 3)) == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_an_equalized_layer_scales_unit_weights(multiplier):
    keras.utils.set_random_seed(0)
    dense = EqualizedDense(400, learning_rate_multiplier=multiplier)
    inputs = RANDOM.normal(size=(8, 100)).astype("float32")
    outputs = np.asarray(dense(inputs))
    assert np.asarray(dense.kernel).std() == pytest.approx(1 / multiplier, rel=0.02)
    np.testing.assert_allclose(outputs, inputs @ np.asarray(dense.kernel) * multiplier / 10, atol=1e-4)
    dense.bias.assign(np.ones(400))
    np.testing.assert_allclose(np.asarray(dense(inputs)) - outputs, multiplier, atol=1e-4)
    assert outputs.std() == pytest.approx(1, rel=0.05)


def test_an_equalized_convolution_scales_unit_weights():
    keras.utils.set_random_seed(0)
    layer = EqualizedConv2D(5, 3, padding="same", use_bias=False)
    outputs = np.asarray(layer(MAPS))
    np.testing.assert_allclose(outputs, convolved(MAPS, np.asarray(layer.kernel) / math.sqrt(27)), atol=1e-5)
    assert np.asarray(layer.kernel).std() == pytest.approx(1, rel=0.15)


def noisy(strength: float = 1.0, place: int = 0) -> NoiseInjection:
    keras.utils.set_random_seed(0)
    layer = NoiseInjection(place)
    layer.build(MAPS.shape, LATENTS.shape)
    layer.strength.assign(strength)
    return layer


def test_noise_begins_at_nothing():
    np.testing.assert_array_equal(noisy(0.0)(MAPS, LATENTS, training=True), MAPS)


def test_noise_at_inference_is_the_same_for_every_image():
    noise = np.asarray(noisy()(MAPS, LATENTS, training=False)) - MAPS
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:1, ..., :1], noise.shape), atol=1e-6)
    assert noise.std() > 0.5


def test_noise_in_training_is_each_images_own_and_follows_from_its_latents():
    layer = noisy(2.0)
    noise = np.asarray(layer(MAPS, LATENTS, training=True)) - MAPS
    np.testing.assert_allclose(noise, np.repeat(noise[..., :1], 3, axis=-1), atol=1e-6)  # of all channels
    windows = noise[..., 0].reshape(4, -1)
    assert np.abs(np.corrcoef(windows) - np.eye(4)).max() < 0.7
    again = np.asarray(layer(MAPS[2:3], LATENTS[2:3], training=True)) - MAPS[2:3]
    np.testing.assert_allclose(again, noise[2:3], atol=1e-6)
    other = np.asarray(noisy(2.0, place=3)(MAPS, LATENTS, training=True)) - MAPS
    assert not np.allclose(other, noise)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_noise_follows_the_fine_digits_of_latents_under_mixed_precision_too(precision):
    whole, layer = noisy(), NoiseInjection(dtype=precision)
    layer.build(MAPS.shape, LATENTS.shape)
    layer.set_weights(whole.get_weights())
    maps = np.zeros_like(MAPS)
    noise = layer(tf.cast(maps, layer.compute_dtype), LATENTS, training=True)
    assert noise.dtype == layer.compute_dtype
    np.testing.assert_allclose(
        tf.cast(noise, "float32"), whole(maps, LATENTS, training=True), rtol=0.01, atol=1e-6
    )


def test_noise_is_normal_over_many_images():
    layer = noisy()
    maps = np.zeros((2000, 6, 5, 1), "float32")
    layer = NoiseInjection()
    layer.build(maps.shape, (None, 7))
    layer.strength.assign(1.0)
    latents = np.random.default_rng(2).normal(size=(2000, 7)).astype("float32")
    noise = np.asarray(layer(maps, latents, training=True))
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert len(np.unique(noise[:, 0, 0, 0])) > 1000  # of 65 * 65 windows, 2000 draws


def test_the_spread_of_a_group_is_told_to_its_images():
    outputs = np.asarray(MinibatchDeviation(2)(MAPS))
    np.testing.assert_array_equal(outputs[..., :3], MAPS)
    for group in (slice(0, 2), slice(2, 4)):
        expected = MAPS[group].std(axis=0).mean()
        np.testing.assert_allclose(outputs[group, ..., 3], expected, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_groups_do_not_divide_is_one_group(count):
    graph = tf.function(MinibatchDeviation(2), input_signature=[tf.TensorSpec((None, 6, 5, 3))])
    outputs = np.asarray(graph(MAPS[:count]))
    np.testing.assert_allclose(outputs[..., 3], MAPS[:count].std(axis=0).mean(), atol=1.1e-4)


def test_blur_keeps_what_is_even_and_takes_what_alternates():
    even = np.ones((1, 8, 8, 2), "float32")
    for layer in (Blur(1, (2, 1)), Blur(1, (1, 2)), Blur(2, (1, 1))):
        outputs = np.asarray(layer(even))
        assert outputs.shape == tuple(layer.compute_output_shape(even.shape))
        np.testing.assert_allclose(outputs[:, 2:-2, 2:-2], 1, atol=1e-6)
    checks = np.indices((8, 8)).sum(0)[None, :, :, None].astype("float32") % 2 * 2 - 1
    np.testing.assert_allclose(np.asarray(Blur()(checks))[:, 2:-1, 2:-1], 0, atol=1e-6)


def test_ways_of_resizing_lie_on_each_other():
    """A ramp stays where it was, whichever way its size changes: no path is shifted against the other."""
    ramp = np.broadcast_to(np.arange(16, dtype="float32"), (1, 16, 16))[..., None]
    halved = np.asarray(Blur(2, (1, 1))(ramp))[0, 4, 2:-2, 0]
    np.testing.assert_allclose(halved, np.arange(16).reshape(8, 2).mean(1)[2:-2], atol=1e-5)
    # What a strided convolution sees at its centre, with Keras's padding at the end.
    strided = np.asarray(Blur(1, (2, 1))(ramp))[0, 8, 1::2, 0][2:-1]
    np.testing.assert_allclose(strided, np.arange(16).reshape(8, 2).mean(1)[2:-1], atol=1e-5)
    # What the centre of a transposed convolution draws.
    spread = np.zeros((1, 16, 16, 1), "float32")
    spread[:, 1::2, 1::2] = ramp[:, :8, :8]
    doubled = np.asarray(Blur(1, (1, 2), 4.0)(spread))[0, 8, 3:-4, 0]
    expected = np.asarray(keras.layers.UpSampling2D(interpolation="bilinear")(ramp[:, :8, :8]))[0, 8, 3:-4, 0]
    np.testing.assert_allclose(doubled, expected, atol=1e-5)


def test_the_constant_is_the_same_for_every_example():
    layer = LearnedConstant((2, 3, 4))
    outputs = np.asarray(layer(LATENTS))
    np.testing.assert_array_equal(outputs, np.broadcast_to(np.asarray(layer.constant), (4, 2, 3, 4)))


def test_each_class_has_its_gains_and_biases():
    layer, labels = ConditionalScale(3), np.array([2, 0, 1, 2])
    np.testing.assert_array_equal(layer(MAPS, labels), MAPS)
    gains, biases = RANDOM.normal(size=(2, 3, 3)).astype("float32")
    layer.gamma.assign(gains)
    layer.beta.assign(biases)
    expected = MAPS * gains[labels][:, None, None] + biases[labels][:, None, None]
    np.testing.assert_allclose(layer(MAPS, labels), expected, atol=1e-6)
