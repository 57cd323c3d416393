"""Layers whose kernels have spectral norm 1."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.layers import SpectralConv2D, SpectralDense, SpectralEmbedding
from dlcli.pretrained.model_file import load_model_file

BATCH = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
LAYERS = {
    "convolution": (lambda: SpectralConv2D(5, 3, padding="same"), BATCH),
    "dense": (lambda: SpectralDense(5), BATCH[:, 0, 0]),
    "embedding": (lambda: SpectralEmbedding(7, 5), np.array([0, 3, 6, 3], "int32")),
}


@pytest.fixture(params=sorted(LAYERS))
def built(request: pytest.FixtureRequest):
    keras.utils.set_random_seed(0)
    make, inputs = LAYERS[request.param]
    layer = make()
    layer(inputs)
    return layer, inputs


def matrix_of(layer: keras.layers.Layer) -> np.ndarray:
    weight = np.asarray(layer.trainable_weights[0])
    return weight.reshape(-1, weight.shape[-1])


def normalized(layer: keras.layers.Layer, training: bool = False) -> np.ndarray:
    weight = layer.trainable_weights[0]
    return np.asarray(layer.normalized(weight, training)).reshape(matrix_of(layer).shape)


def test_the_norm_converges_to_the_largest_singular_value(built):
    layer, inputs = built
    for _ in range(200):
        layer(inputs, training=True)
    expected = matrix_of(layer) / np.linalg.svd(matrix_of(layer), compute_uv=False)[0]
    np.testing.assert_allclose(normalized(layer), expected, rtol=1e-4, atol=1e-5)


def test_one_step_follows_a_weight_that_moves_slowly(built):
    layer, inputs = built
    weight, rng = layer.trainable_weights[0], np.random.default_rng(0)
    for _ in range(100):
        layer(inputs, training=True)
    for _ in range(50):
        weight.assign(weight + 0.01 * rng.normal(size=weight.shape))
        layer(inputs, training=True)
    assert np.linalg.svd(normalized(layer), compute_uv=False)[0] == pytest.approx(1, abs=0.02)


def test_only_training_takes_a_step(built):
    layer, inputs = built
    before = np.asarray(layer.singular_vector)
    first = np.asarray(layer(inputs, training=False))
    np.testing.assert_array_equal(layer.singular_vector, before)
    np.testing.assert_array_equal(layer(inputs), first)
    layer(inputs, training=True)
    assert np.abs(np.asarray(layer.singular_vector) - before).max() > 1e-4


def test_the_output_is_that_of_the_normalized_weight(built):
    layer, inputs = built
    if len(layer.weights) == 3:
        layer.bias.assign(np.arange(5))
    outputs = np.asarray(layer(inputs))
    weight = normalized(layer).reshape(layer.trainable_weights[0].shape)
    if isinstance(layer, SpectralEmbedding):
        expected = weight[inputs]
    elif isinstance(layer, SpectralDense):
        expected = inputs @ weight + np.arange(5)
    else:
        plain = keras.layers.Conv2D(5, 3, padding="same")
        plain.build(inputs.shape)
        plain.set_weights([weight, np.arange(5)])
        expected = plain(inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_gradient_passes_through_the_norm():
    """Of sum(W / norm * G): (G - <G, W / norm> u v^T) / norm, equation 12 of the paper."""
    keras.utils.set_random_seed(0)
    layer = SpectralDense(4)
    layer.build((None, 6))
    for _ in range(300):
        layer.normalized(layer.kernel, True)
    towards = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer.normalized(layer.kernel, False) * towards)
    u, values, v = np.linalg.svd(matrix_of(layer))
    part = np.sum(towards * matrix_of(layer)) / values[0]
    expected = (towards - part * np.outer(u[:, 0], v[0])) / values[0]
    np.testing.assert_allclose(tape.gradient(value, layer.kernel.value), expected, atol=1e-4)


def test_scaling_a_kernel_changes_nothing(built):
    layer, inputs = built
    before = np.asarray(layer(inputs))
    layer.trainable_weights[0].assign(layer.trainable_weights[0] * 100)
    np.testing.assert_allclose(layer(inputs), before, rtol=1e-4, atol=1e-5)


def test_a_saved_model_has_the_vector_too(tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Flatten()(SpectralConv2D(2, 3, use_bias=False)(inputs))
    model = keras.Model(inputs, SpectralDense(3)(x))
    model(BATCH, training=True)
    model.save(tmp_path / "model.keras")
    loaded = load_model_file(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights) == 5
    np.testing.assert_array_equal(loaded(BATCH), model(BATCH))


def test_mixed_precision_estimates_in_float32():
    layer = SpectralDense(5, dtype="mixed_bfloat16")
    outputs = layer(BATCH[:, 0, 0])
    assert outputs.dtype == tf.bfloat16
    for _ in range(200):
        layer(BATCH[:, 0, 0], training=True)
    assert layer.singular_vector.dtype == "float32"
    assert np.linalg.norm(layer.singular_vector) == pytest.approx(1, abs=1e-6)
    kernel = np.asarray(layer.kernel)
    largest = np.linalg.svd(kernel, compute_uv=False)[0]
    np.testing.assert_allclose(normalized(layer), kernel / largest, atol=1e-3)


TWO_DEVICES = """
import json
from dlcli.backend import load_backend
load_backend()
import keras
import numpy as np
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from dlcli.layers import SpectralConv2D, SpectralDense
from dlcli.training.steps.trainer import Trainer

class Mean(Trainer):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.networks["network"](data, training=True) - 1))
        self.minimize("network", loss, tape)
        return self.log(loss=loss)

def trained(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((6, 6, 3))
        x = keras.layers.Flatten()(SpectralConv2D(4, 3)(inputs))
        network = keras.Model(inputs, SpectralDense(2)(x))
        trainer = Mean({"network": network}, {"network": ["network"]}, ["loss"])
        trainer.compile_players({"network": keras.optimizers.SGD(0.1)})
        batch = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
        trainer.fit(tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=5, verbose=0)
    return network

def on_each(variable):
    return [np.asarray(part).tolist() for part in getattr(variable.value, "values", [variable.value])]

one = trained(tf.distribute.OneDeviceStrategy("/CPU:0"))
two = trained(tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"]))
print(json.dumps([[np.asarray(a).tolist(), on_each(b)] for a, b in zip(one.weights, two.weights)]))
"""


def test_two_devices_keep_equal_vectors_and_learn_as_one_does():
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = json.loads(done.stdout.splitlines()[-1])
    assert len(weights) == 6
    for one, parts in weights:
        assert len(parts) == 2
        np.testing.assert_array_equal(*parts)
        np.testing.assert_allclose(parts[0], one, atol=1e-5)
