"""The options that several architectures share, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.architectures.airbench import airbench
from dlcli.architectures.alexnet import alexnet, local_response_normalize
from dlcli.architectures.blocks import initializer_name, normalize
from dlcli.architectures.cnn import cnn
from dlcli.architectures.lenet5 import lenet5
from dlcli.architectures.mlp import mlp, perceptron
from dlcli.architectures.resnet import resnet
from dlcli.architectures.vgg import vgg
from dlcli.architectures.wide_resnet import wide_resnet
from dlcli.recipe.names import keras_names

MAP, VECTOR = (8, 8, 3), (6,)


def layers_of(features: keras.KerasTensor, inputs: keras.KerasTensor) -> list[keras.layers.Layer]:
    return keras.Model(inputs, features).layers


@pytest.mark.parametrize("activation", keras_names("activations"))
def test_every_activation_of_keras_works(activation):
    inputs = keras.Input(VECTOR)
    features = mlp(inputs, hidden=[8], activation=activation)
    used = [
        layer.activation
        for layer in layers_of(features, inputs)
        if isinstance(layer, keras.layers.Activation)
    ]
    assert [function.__name__ for function in used] == [activation]


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("random", "RandomNormal"),
        ("glorot", "GlorotUniform"),
        ("xavier", "GlorotUniform"),
        ("he", "HeNormal"),
        ("kaiming", "HeNormal"),
        ("HeUniform", "HeUniform"),
        ("he_uniform", "HeUniform"),
    ],
)
def test_initializers_by_any_name(spelling, expected):
    assert initializer_name(spelling) == expected
    inputs = keras.Input(MAP)
    for build in (cnn, mlp, resnet, wide_resnet):
        small = {"resnet": {"depth": 8}, "wide_resnet": {"depth": 10, "width": 1}}.get(build.__name__, {})
        layers = layers_of(build(inputs, initializer=spelling, **small), inputs)
        drawn = [layer.kernel_initializer for layer in layers if hasattr(layer, "kernel_initializer")]
        assert {type(initializer).__name__ for initializer in drawn} == {expected}, build.__name__


def test_unknown_names_say_what_is_allowed():
    inputs = keras.Input(MAP)
    with pytest.raises(ValueError, match=r"rellu.*leaky_relu"):
        cnn(inputs, activation="rellu")
    with pytest.raises(ValueError, match=r"hee.*he_normal"):
        cnn(inputs, initializer="hee")
    with pytest.raises(ValueError, match=r"batch_local, layer, instance, group or none. Received: 'btach'"):
        cnn(inputs, normalization="btach")


AXES = {"batch": (0, 1, 2), "batch_local": (0, 1, 2), "layer": (1, 2, 3), "instance": (1, 2)}


@pytest.mark.parametrize("kind", AXES)
def test_normalization_is_over_the_axes_of_its_name(kind):
    values = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 6)).astype("float32")
    inputs = keras.Input(values.shape[1:])
    outputs = keras.Model(inputs, normalize(inputs, kind))(values, training=True)
    axes = AXES[kind]
    expected = (values - values.mean(axes, keepdims=True)) / np.sqrt(values.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "groups"), [(128, 32), (64, 16), (6, 1), (8, 2), (3, 1), (96, 24), (7, 1)]
)
def test_group_normalization_leaves_four_channels_in_a_group(channels, groups):
    inputs = keras.Input((4, 4, channels))
    layer = layers_of(normalize(inputs, "group"), inputs)[1]
    assert layer.groups == groups


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_vectors_can_be_normalized_too(kind):
    values = np.random.default_rng(0).normal(3, 2, (16, 8)).astype("float32")
    inputs = keras.Input((8,))
    outputs = np.asarray(keras.Model(inputs, normalize(inputs, kind))(values, training=True))
    mean = {"batch": outputs.mean(0), "layer": outputs.mean(1), "group": outputs.reshape(16, 2, 4).mean(2)}[
        kind
    ]
    np.testing.assert_allclose(mean, 0, atol=1e-5)


def test_instance_normalization_of_vectors_is_refused():
    with pytest.raises(ValueError, match="instance normalization"):
        mlp(keras.Input(VECTOR), normalization="instance")


@pytest.mark.parametrize("kind", ["batch", "layer", "instance", "group"])
@pytest.mark.parametrize("build", [cnn, vgg, alexnet, resnet, wide_resnet])
def test_no_bias_before_a_normalization(build, kind):
    inputs = keras.Input((32, 32, 3))
    small = {"vgg": {"depth": 11}, "resnet": {"depth": 8}, "wide_resnet": {"depth": 10, "width": 1}}
    cheap = {**small.get(build.__name__, {}), "initializer": "zeros"}
    layers = layers_of(build(inputs, normalization=kind, **cheap), inputs)
    assert not any(layer.use_bias for layer in layers if isinstance(layer, keras.layers.Conv2D))
    wanted = keras.layers.BatchNormalization if kind == "batch" else keras.layers.GroupNormalization
    assert any(isinstance(layer, wanted) for layer in layers)


@pytest.mark.parametrize(
    ("build", "shape", "arguments"),
    [
        (perceptron, VECTOR, {}),
        (mlp, VECTOR, {"hidden": [8, 4]}),
        (cnn, MAP, {"dense": [8]}),
        (lenet5, (32, 32, 1), {}),
        (vgg, (32, 32, 3), {"depth": 11, "initializer": "zeros"}),
        (resnet, MAP, {"depth": 8}),
        (wide_resnet, MAP, {"depth": 10, "width": 1}),
        (airbench, (32, 32, 3), {"filters": [4, 4, 4]}),
    ],
)
def test_dropout_is_used(build, shape, arguments):
    inputs = keras.Input(shape)

    def rates(dropout: float) -> list[float]:
        found = layers_of(build(inputs, dropout=dropout, **arguments), inputs)
        return [
            layer.rate
            for layer in found
            if isinstance(layer, keras.layers.Dropout | keras.layers.SpatialDropout2D)
        ]

    assert set(rates(0.3)) == {0.3}
    assert rates(0.0) == []


@pytest.mark.parametrize(
    ("build", "arguments", "smallest"),
    [
        (cnn, {"filters": [4, 4, 4]}, 4),
        (cnn, {"filters": [4, 4, 4], "padding": "valid"}, 18),
        (lenet5, {}, 28),
        (alexnet, {"size": "small", "initializer": "zeros"}, 29),
        (alexnet, {"size": "large", "initializer": "zeros"}, 63),
        (vgg, {"depth": 11, "initializer": "zeros"}, 32),
        (resnet, {"depth": 8}, 4),
        (resnet, {"depth": 18, "initializer": "zeros"}, 32),
        (resnet, {"depth": 18, "stem": "small", "initializer": "zeros"}, 8),
        (wide_resnet, {"depth": 10, "width": 1}, 4),
        (airbench, {"filters": [4, 4, 4]}, 25),
        (airbench, {"filters": [4, 4], "patch_size": 3}, 14),
    ],
)
def test_small_images_are_refused_with_the_smallest_size_that_works(build, arguments, smallest):
    assert build(keras.Input((smallest, smallest + 3, 3)), **arguments).shape[-1] > 0
    message = rf"at least {smallest}x{smallest} pixels. Received: {smallest + 3}x{smallest - 1} "
    with pytest.raises(ValueError, match=message):
        build(keras.Input((smallest + 3, smallest - 1, 3)), **arguments)


@pytest.mark.parametrize("build", [cnn, lenet5, alexnet, vgg, resnet, wide_resnet, airbench])
def test_convolutions_refuse_vectors(build):
    with pytest.raises(ValueError, match=r"\(B, H, W, C\). Received: shape \(None, 6\)"):
        build(keras.Input(VECTOR))


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (resnet, {"depth": 21}, r"\[8, 14, 20.*Received: 21"),
        (vgg, {"depth": 12}, r"\[11, 13, 16, 19\]. Received: 12"),
        (wide_resnet, {"depth": 20}, r"6n \+ 4.*Received: 20"),
        (cnn, {"filters": []}, "at least one block"),
        (airbench, {"filters": []}, "at least one group"),
    ],
)
def test_impossible_arguments(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(keras.Input((32, 32, 3)), **arguments)


def test_cnn_pools_between_blocks_only():
    inputs = keras.Input((32, 32, 3))
    kinds = [type(layer).__name__ for layer in layers_of(cnn(inputs, filters=[4, 4]), inputs)]
    block = ["Conv2D", "BatchNormalization", "Activation"]
    assert kinds == ["InputLayer", *block, "MaxPooling2D", *block]


def test_lenet5_sees_mnist_padded_to_32():
    image = np.random.default_rng(0).random((1, 28, 28, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    small_inputs, large_inputs = keras.Input((28, 28, 1)), keras.Input((32, 32, 1))
    small = keras.Model(small_inputs, lenet5(small_inputs, pooling="max"))
    large = keras.Model(large_inputs, lenet5(large_inputs, pooling="max"))
    large.set_weights(small.get_weights())
    padded = np.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)])
    np.testing.assert_allclose(small(image), large(padded), atol=1e-6)


def test_local_response_normalization_of_the_paper():
    values = np.random.default_rng(0).normal(0, 30, (2, 3, 3, 7)).astype("float32")
    inputs = keras.Input((3, 3, 7))
    outputs = keras.Model(inputs, local_response_normalize(inputs))(values)
    expected = np.empty_like(values)
    for i in range(7):
        total = (values[..., max(0, i - 2) : i + 3] ** 2).sum(-1)
        expected[..., i] = values[..., i] / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_resnet_pads_the_shortcut_with_every_second_pixel():
    """With all residuals zero a stage's first block gives relu(x[:, ::2, ::2]) between channels of zeros."""
    inputs = keras.Input(MAP)
    model = keras.Model(inputs, resnet(inputs, depth=8, initializer="zeros"))
    stem = model.layers[1]
    kernel = np.zeros(stem.kernel.shape, "float32")
    kernel[1, 1, :, :3] = np.eye(3)
    stem.kernel.assign(kernel)
    image = np.random.default_rng(0).random((1, *MAP)).astype("float32")
    features = np.asarray(model(image, training=False))
    scale = np.sqrt(1 / (1 + 1e-5))  # of the stem's normalization; the residuals add zeros
    expected = np.zeros((1, 2, 2, 64))
    expected[..., 24:27] = image[:, ::4, ::4] * scale  # 8 channels in front, then 16
    np.testing.assert_allclose(features, expected, atol=1e-6)
