"""The whitening convolution."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from dlcli.layers import PatchWhitening


def smooth_images(count: int = 300) -> np.ndarray:
    """Images whose neighbouring pixels and channels go together."""
    noise = np.random.default_rng(0).normal(size=(count, 10, 11, 3))
    mixed = noise + 0.5 * noise[..., ::-1] + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)
    return mixed.astype("float32")


def test_adapted_outputs_are_white_and_mirrored():
    layer = PatchWhitening(2, epsilon=0.0)
    images = smooth_images()
    layer.adapt(images)
    outputs = np.asarray(layer(images))
    assert outputs.shape == (300, 9, 10, 24) == layer.compute_output_shape(images.shape)
    np.testing.assert_allclose(outputs[..., :12], -outputs[..., 12:], atol=1e-5)
    flat = outputs[..., :12].reshape(-1, 12).astype("float64")
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(12), atol=1e-3)


def test_it_equals_the_definition_on_all_patches_at_once():
    images = smooth_images(520)  # more than two portions
    layer = PatchWhitening()
    layer.adapt(images)
    patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    patches = patches.reshape(-1, 12).astype("float64")
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    expected = (vectors / np.sqrt(values + 5e-4)).reshape(2, 2, 3, 12)
    actual = np.asarray(layer.kernel)[..., :12]
    signs = np.sign((actual * expected).sum((0, 1, 2)))
    np.testing.assert_allclose(actual, expected * signs, atol=1e-3)


def test_directions_without_signal_stay_bounded():
    layer = PatchWhitening()
    layer.adapt(np.zeros((4, 5, 5, 3)))
    assert np.isfinite(layer.kernel).all()
    assert np.abs(layer.kernel).max() <= 1 / np.sqrt(5e-4) + 1e-3


def test_only_the_bias_is_trained():
    layer = PatchWhitening(3)
    layer.build((None, 8, 8, 1))
    assert [weight.name for weight in layer.trainable_weights] == ["bias"]
    assert [weight.name for weight in layer.non_trainable_weights] == ["kernel"]
    assert layer.adapts_to_inputs is True


def test_plain_keras_loads_it_after_importing_the_layers(tmp_path):
    images = smooth_images(8)
    model = keras.Sequential([keras.Input(images.shape[1:]), PatchWhitening(2)])
    model.layers[0].adapt(images)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    program = (
        "import sys, numpy, keras, dlcli.layers\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras')\n"
        "numpy.save(sys.argv[1] + '/outputs.npy', model(numpy.load(sys.argv[1] + '/images.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), model(images), atol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"at least 1. Received: 0"):
        PatchWhitening(0)
    with pytest.raises(ValueError, match=r"Received: shape \(2, 3\)"):
        PatchWhitening().adapt(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least 4 pixels"):
        PatchWhitening(4).adapt(np.zeros((2, 3, 8, 1)))
    with pytest.raises(ValueError, match=r"\(B, H, W, C\)"):
        PatchWhitening().build((None, 3))
