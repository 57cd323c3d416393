"""A pretrained model as a recipe's architecture: other sizes and channels, names, weights, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from dlcli.architectures.pretrained import pretrained
from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape).astype("uint8")


def network(shape: tuple[int | None, ...], source: str, **arguments: Any) -> keras.Model:
    inputs = keras.Input(shape, dtype="uint8", name="image")
    return keras.Model(inputs, pretrained(inputs, source=source, **arguments))


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A nested, fully convolutional body with its own scaling, and names that tasks use as well."""
    keras.utils.set_random_seed(0)
    body_inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, padding="same", name="logits")(body_inputs)
    x = L.Activation("relu")(L.BatchNormalization(name="norm")(x))
    body = keras.Model(body_inputs, L.MaxPooling2D(name="pooling")(x), name="body")
    inputs = keras.Input((16, 16, 3))
    x = body(L.Rescaling(1 / 255, name="scaling")(inputs), training=False)
    x = L.Conv2D(6, 3, name="pooling")(x)
    x = L.GlobalAveragePooling2D(name="average")(keras.ops.relu(x))
    model = keras.Model(inputs, L.Dense(3, name="logits")(x))
    body.get_layer("norm").set_weights([RANDOM.uniform(0.5, 2, 4) for _ in range(4)])
    model.save(tmp_path / "source.keras")
    return str(tmp_path / "source.keras")


def test_features_are_those_of_the_source(source):
    images = pixels(2, 16, 16, 3)
    original = keras.saving.load_model(source)
    expected = keras.Model(original.inputs[0], original.get_layer("average").output)(images.astype("float32"))
    np.testing.assert_allclose(network((16, 16, 3), source)(images), expected, rtol=1e-6)


def test_another_size_gives_what_the_source_would_give_there(source):
    images = pixels(2, 24, 20, 3)
    model = network((24, 20, 3), source)
    assert model.get_layer("source_pooling").output.shape == (None, 10, 8, 6)
    assert model.get_layer("body").get_layer("norm").output.shape == (None, 24, 20, 4)
    layers = dict(named_layers(model))
    x = images.astype("float32") / 255
    for name in ("body/logits", "body/norm"):
        x = layers[name](x)
    x = L.MaxPooling2D()(keras.ops.relu(x))
    x = keras.ops.relu(layers["source_pooling"](x))
    np.testing.assert_allclose(model(images), keras.ops.mean(x, axis=(1, 2)), rtol=1e-5)


def test_an_open_size_is_taken(source):
    model = network((None, None, 3), source)
    assert model(pixels(1, 9, 11, 3)).shape == (1, 6)


def test_gray_images_are_repeated(source):
    gray = pixels(2, 16, 16, 1)
    np.testing.assert_allclose(
        network((16, 16, 1), source)(gray), network((16, 16, 3), source)(np.repeat(gray, 3, -1)), rtol=1e-6
    )


def test_colours_become_gray_without_rounding(tmp_path):
    one = keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(2.0), L.Flatten(), L.Dense(2)])
    one.save(tmp_path / "gray.keras")
    images = pixels(2, 8, 8, 3)
    model = network((8, 8, 3), str(tmp_path / "gray.keras"))
    expected = 2 * images.astype("float32") @ np.array([0.2989, 0.587, 0.114], "float32")
    np.testing.assert_allclose(model(images), expected.reshape(2, -1), rtol=1e-3)
    assert not np.allclose(model(images), np.round(model(images)))
    model.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "network.keras")(images), model(images))


def test_other_channels_are_refused_with_both(source):
    with pytest.raises(DlcliError, match="images of 3 channels, and these are 16x16x4"):
        network((16, 16, 4), source)


def test_a_size_that_a_layer_refuses_is_told_with_both_shapes(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.Conv2D(4, 3, name="first"),
            L.Flatten(),
            L.Dense(5, name="hidden"),
            L.Dense(2),
        ]
    )
    model.save(tmp_path / "flat.keras")
    with pytest.raises(DlcliError) as caught:
        network((12, 12, 3), str(tmp_path / "flat.keras"))
    message = str(caught.value)
    assert "16x16x3, and these are 12x12x3" in message
    assert "layer hidden" in message
    assert "(784, 5)" in message
    assert "(400, 5)" in message
    # Before that layer any size will do.
    assert network((12, 12, 3), str(tmp_path / "flat.keras"), layer="first").output.shape[1:3] == (10, 10)


def test_images_too_small_for_a_convolution_are_told(tmp_path):
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), L.Conv2D(4, 7, name="large"), L.GlobalAveragePooling2D(), L.Dense(2)]
    )
    model.save(tmp_path / "large.keras")
    with pytest.raises(DlcliError, match="layer large does not take 5x5x3"):
        network((5, 5, 3), str(tmp_path / "large.keras"))


def test_names_stay_unless_tasks_use_them(source):
    names = [name for name, _ in named_layers(network((16, 16, 3), source))]
    assert "body/norm" in names
    assert "body/logits" in names  # inside a model of its own it is in nobody's way
    assert "source_pooling" in names
    assert "pooling" not in names


def test_saved_and_loaded_with_a_head(source, tmp_path):
    body = network((20, 20, 1), source)
    features = body.output
    model = keras.Model(body.input, L.Dense(2, name="logits")(features))
    model.save(tmp_path / "network.keras")
    images = pixels(2, 20, 20, 1)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "network.keras")(images), model(images))


def test_dropout_beside_one_of_the_source(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), L.Flatten(), L.Dropout(0.1, name="dropout"), L.Dense(2)]
    )
    model.save(tmp_path / "dropped.keras")
    keras.backend.clear_session()  # Keras numbers from the beginning, as in a new process
    names = [
        name for name, _ in named_layers(network((8, 8, 3), str(tmp_path / "dropped.keras"), dropout=0.5))
    ]
    assert names[-2:] == ["dropout", "features_dropout"]


def test_two_networks_share_no_weights(source):
    first, second = network((16, 16, 3), source), network((16, 16, 3), source)
    kernel = dict(named_layers(first))["source_pooling"].kernel
    kernel.assign(kernel * 0)
    assert np.abs(second(pixels(1, 16, 16, 3))).max() > 0


def test_layers_follow_the_recipes_precision(source):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network((16, 16, 3), source)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("source_pooling").compute_dtype == "bfloat16"
    assert model.get_layer("source_pooling").kernel.dtype == "float32"


def test_statistics_of_a_normalization_come_along(tmp_path):
    normalization = L.Normalization(name="statistics")
    normalization.adapt(pixels(50, 8, 8, 3).astype("float32"))
    model = keras.Sequential([keras.Input((8, 8, 3)), normalization, L.Flatten(), L.Dense(2)])
    model.save(tmp_path / "normalized.keras")
    images = pixels(2, 8, 8, 3)
    np.testing.assert_allclose(
        network((8, 8, 3), str(tmp_path / "normalized.keras"))(images),
        np.reshape(normalization(images.astype("float32")), (2, -1)),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_tables_are_for_frozen_features(tmp_path):
    from dlcli.pretrained.backbone import Backbone
    from dlcli.pretrained.copies import connect

    columns = {name: keras.Input((1,), name=name) for name in ("a", "b")}
    model = keras.Model(columns, L.Concatenate()(list(columns.values())))
    with pytest.raises(DlcliError, match="frozen_features"):
        connect(Backbone(model, "layer", "runs/table", ""), keras.Input((2,)))
