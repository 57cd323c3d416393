"""The same weights give the same outputs as keras.applications."""

from __future__ import annotations

import keras
import numpy as np

from dlcli.architectures.resnet import resnet
from dlcli.architectures.vgg import vgg


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
