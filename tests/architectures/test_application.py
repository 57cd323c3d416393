"""keras.applications by name, with each network's own preprocessing."""

from __future__ import annotations

import importlib
import urllib.error

import keras
import numpy as np
import pytest

from dlcli.architectures import application as module
from dlcli.architectures.application import application, find_application, preprocess
from dlcli.errors import DlcliError
from dlcli.recipe.names import keras_names

SMALL = {"model": "mobilenet_v3_small", "weights": "none"}


@pytest.mark.parametrize("model", keras_names("applications"))
def test_pixels_are_preprocessed_as_keras_does(model):
    constructor = find_application(model)
    family = importlib.import_module(constructor.__module__)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    inputs = keras.Input((4, 4, 3))
    mode = module._PREPROCESSING[constructor.__module__.rsplit(".", 1)[-1]]
    outputs = keras.Model(inputs, preprocess(inputs, mode))(pixels / 255)
    np.testing.assert_allclose(outputs, family.preprocess_input(pixels.copy()), atol=2e-4)


@pytest.mark.parametrize(
    "spelling", ["EfficientNetB0", "efficientnet_b0", "efficientnetb0", "efficient-net-b0"]
)
def test_any_spelling(spelling):
    assert find_application(spelling) is keras.applications.EfficientNetB0


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match=r"resnet5000.*resnet50"):
        application(keras.Input((32, 32, 3)), model="resnet5000", weights="none")


def test_the_flat_network_equals_the_application():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    ours = keras.Model(inputs, application(inputs, model="mobilenet", weights="none"))
    theirs = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    theirs.set_weights(ours.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expected = theirs(keras.applications.mobilenet.preprocess_input(pixels.copy()))
    np.testing.assert_allclose(ours(pixels / 255), expected, atol=1e-5)
    assert not any(isinstance(layer, keras.Model) for layer in ours.layers)


def test_caffe_preprocessing_survives_saving(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, preprocess(inputs, "caffe"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).random((1, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


def test_grey_images_are_repeated():
    inputs = keras.Input((32, 32, 1))
    assert application(inputs, **SMALL).shape == (None, 1, 1, 576)
    with pytest.raises(ValueError, match=r"1 or 3 channels. Received: 4"):
        application(keras.Input((32, 32, 4)), **SMALL)


def test_frozen_networks_stay_frozen_when_saved(tmp_path):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(application(inputs, trainable=False, **SMALL)))
    assert model.trainable_weights == []
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").trainable_weights == []


@pytest.mark.parametrize(("model", "smallest"), [("mobilenet", 32), ("xception", 71), ("inception_v3", 75)])
def test_small_images_are_refused(model, smallest):
    with pytest.raises(
        ValueError, match=rf"{smallest}x{smallest} pixels. Received: {smallest - 1}x{smallest + 1}"
    ):
        application(keras.Input((smallest - 1, smallest + 1, 3)), model=model, weights="none")


@pytest.mark.parametrize("model", keras_names("applications"))
def test_our_smallest_sides_are_those_of_keras(model):
    constructor = find_application(model)
    smallest = module._SMALLEST.get(constructor.__module__.rsplit(".", 1)[-1], 32)
    with pytest.raises(ValueError, match=rf"at least {smallest}x{smallest}"):
        constructor(include_top=False, weights=None, input_shape=(smallest - 1, smallest, 3))


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("nasnet_mobile", "nasnet_mobile_no_top.h5"),
    ],
)
def test_without_a_network_the_message_names_the_file(model, file, monkeypatch, tmp_path):
    file_utils = importlib.import_module("keras.src.utils.file_utils")
    asked = []

    def offline(url, target, *_):
        asked.append((url, str(target)))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(DlcliError) as caught:
        application(keras.Input((224, 224, 3)), model=model)
    url, target = asked[0]
    assert f"download {url} and put it here as {tmp_path / 'models' / file};" in str(caught.value)
    assert target.startswith(str(tmp_path / "models" / file))  # where Keras itself would put it


def test_weights_from_a_file(tmp_path):
    theirs = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(32, 32, 3))
    theirs.save_weights(tmp_path / "mine.weights.h5")
    inputs = keras.Input((32, 32, 3))
    features = application(inputs, model="mobilenet_v3_small", weights=tmp_path / "mine.weights.h5")
    ours = keras.Model(inputs, features)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_files_that_are_missing_or_do_not_fit(tmp_path):
    inputs = keras.Input((32, 32, 3))
    with pytest.raises(DlcliError, match=r"missing.weights.h5 is no file"):
        application(inputs, model="mobilenet", weights=tmp_path / "missing.weights.h5")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.weights.h5").write_text("nothing")
    for name, problem in (("other", "does not fit MobileNetV3Small"), ("text", "is damaged or truncated")):
        with pytest.raises(DlcliError, match=rf"{name}.weights.h5 {problem}"):
            application(inputs, model="mobilenet_v3_small", weights=tmp_path / f"{name}.weights.h5")
