"""The same weights give the same outputs as keras.applications, or as the paper's formulas written out."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from dlcli.architectures.airbench import airbench
from dlcli.architectures.resnet import resnet
from dlcli.architectures.vgg import vgg
from dlcli.architectures.wide_resnet import wide_resnet


def kernels_and_statistics(model: keras.Model) -> tuple[list, list]:
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return convolutions, [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]


def test_resnet50_equals_keras_applications():
    shape = (64, 64, 3)
    inputs = keras.Input(shape)
    ours = keras.Model(inputs, resnet(inputs, depth=50, initializer="zeros"))
    theirs = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape)
    rng = np.random.default_rng(0)
    # Shortcuts stand elsewhere in the list of layers, so layers are paired by shape, in order.
    for mine, other in zip(kernels_and_statistics(ours), kernels_and_statistics(theirs), strict=True):
        assert len(mine) == len(other) == 53
    by_shape: dict = {}
    for layer in kernels_and_statistics(theirs)[0]:
        by_shape.setdefault(layer.kernel.shape, []).append(layer)
    for layer in kernels_and_statistics(ours)[0]:
        layer.kernel.assign(by_shape[layer.kernel.shape].pop(0).kernel)
    assert not any(by_shape.values())
    images = rng.normal(size=(2, *shape)).astype("float32")
    expected = np.asarray(theirs(images, training=False))
    np.testing.assert_allclose(ours(images, training=False), expected, atol=2e-3 * expected.max())


def test_vgg16_equals_keras_applications():
    shape = (32, 32, 3)
    inputs = keras.Input(shape)
    ours = keras.Model(inputs, vgg(inputs, depth=16, normalization="none", initializer="zeros", dropout=0.0))
    theirs = keras.applications.VGG16(include_top=False, weights=None, input_shape=shape)
    ours.set_weights(theirs.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-6)


def with_random_weights(build, **arguments) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model with random kernels and statistics, random images and its features for them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, build(inputs, **arguments))
    rng = np.random.default_rng(0)
    for layer in kernels_and_statistics(model)[1]:
        layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    images = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    return model, images, np.asarray(model(images, training=False))


def convolve(x, layer, strides=1):
    side = layer.kernel.shape[0] // 2
    x = ops.pad(x, [[0, 0], [side, side], [side, side], [0, 0]])
    return ops.conv(x, layer.kernel, strides=strides, padding="valid")


def scale(x, layer):
    gamma, beta, mean, variance = layer.get_weights()
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def test_resnet8_follows_the_paper():
    """relu(x + F(x)) with F = norm(conv(relu(norm(conv(x))))): figure 2, option A."""
    model, images, actual = with_random_weights(resnet, depth=8)
    convolutions, normalizations = (iter(layers) for layers in kernels_and_statistics(model))
    x = ops.relu(scale(convolve(images, next(convolutions)), next(normalizations)))
    for strides, missing in ((1, 0), (2, 16), (2, 32)):
        y = ops.relu(scale(convolve(x, next(convolutions), strides), next(normalizations)))
        y = scale(convolve(y, next(convolutions)), next(normalizations))
        identity = ops.pad(x[:, ::strides, ::strides], [[0, 0], [0, 0], [0, 0], [missing // 2, missing // 2]])
        x = ops.relu(identity + y)
    np.testing.assert_allclose(actual, x, rtol=1e-3, atol=1e-4)


def test_wide_resnet16_follows_the_paper():
    """x + conv(act(conv(act(x)))) with act = relu(norm); conv(act(x)) for x where the shape changes."""
    model, images, actual = with_random_weights(wide_resnet, depth=16, width=2)
    convolutions, normalizations = kernels_and_statistics(model)
    threes = iter(layer for layer in convolutions if layer.kernel.shape[0] == 3)
    ones = iter(layer for layer in convolutions if layer.kernel.shape[0] == 1)
    scales = iter(normalizations)
    x = convolve(images, next(threes))
    for stage in range(3):
        for block in range(2):
            strides = 2 if stage and not block else 1
            y = ops.relu(scale(x, next(scales)))
            identity = x if block else convolve(y, next(ones), strides)
            y = ops.relu(scale(convolve(y, next(threes), strides), next(scales)))
            x = identity + convolve(y, next(threes))
    np.testing.assert_allclose(actual, ops.relu(scale(x, next(scales))), rtol=1e-3, atol=1e-4)


def test_airbench_divides_its_features():
    images = np.random.default_rng(0).normal(size=(2, 25, 25, 3)).astype("float32")
    inputs = keras.Input((25, 25, 3))
    models = [keras.Model(inputs, airbench(inputs, filters=[4, 4, 4], logit_divisor=d)) for d in (1.0, 9.0)]
    models[1].set_weights(models[0].get_weights())
    np.testing.assert_allclose(models[1](images) * 9, models[0](images), rtol=1e-4, atol=1e-6)
