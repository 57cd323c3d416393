from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.data.images import channel_statistics, image_preprocessing


@pytest.fixture
def pictures() -> np.ndarray:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (700, 4, 5, 3))  # more than one chunk
    pixels[..., 1] //= 4
    return pixels.astype(np.uint8)


def examples_of(pixels: np.ndarray) -> ArrayExamples:
    return ArrayExamples(pixels, np.zeros(len(pixels), np.int32))


def test_statistics_are_exact(pictures):
    mean, variance = channel_statistics(examples_of(pictures), 3)
    wide = pictures.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, wide.var(axis=(0, 1, 2)), rtol=1e-12)


def test_standardize_gives_zero_mean_and_unit_spread_by_channel(pictures):
    model = image_preprocessing(examples_of(pictures), (4, 5, 3), "standardize")
    result = np.asarray(model(pictures), np.float64)
    np.testing.assert_allclose(result.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_standardize_learns_from_the_given_examples_only(pictures):
    train = examples_of(pictures).subset(np.arange(10))
    model = image_preprocessing(train, (4, 5, 3), "standardize")
    np.testing.assert_allclose(np.asarray(model(pictures[:10])).mean(axis=(0, 1, 2)), 0, atol=1e-5)


def test_standardize_survives_a_constant_channel():
    pixels = np.full((3, 2, 2, 1), 7, np.uint8)
    model = image_preprocessing(examples_of(pixels), (2, 2, 1), "standardize")
    assert np.asarray(model(pixels)).max() == 0
    assert np.asarray(model(pixels + 10)).max() == pytest.approx(10)


@pytest.mark.parametrize(("normalization", "white"), [("rescale", 1.0), ("none", 255.0)])
def test_fixed_scalings(normalization, white):
    pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    model = image_preprocessing(examples_of(pixels), (1, 1, 1), normalization)
    result = np.asarray(model(pixels))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.ravel(), [0, white])


def test_input_is_named_and_scaling_survives_saving(pictures, tmp_path):
    model = image_preprocessing(examples_of(pictures), (4, 5, 3), "standardize")
    assert model.inputs[0].name == "image"
    assert model.inputs[0].dtype == "uint8"
    model.save(tmp_path / "scaling.keras")
    again = keras.saving.load_model(tmp_path / "scaling.keras")
    np.testing.assert_array_equal(np.asarray(again(pictures[:4])), np.asarray(model(pictures[:4])))


def test_unknown_scaling_says_what_was_received(pictures):
    with pytest.raises(ValueError, match="Received: 'zscore'"):
        image_preprocessing(examples_of(pictures), (4, 5, 3), "zscore")
