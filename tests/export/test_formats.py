"""Keras archives, SavedModels and weights say the same as the model."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.export import keras_archive, saved_model, weights
from dlcli.export.format import Options


@pytest.mark.parametrize(
    "chosen", [keras_archive.FORMAT, saved_model.FORMAT, weights.FORMAT], ids=lambda each: each.name
)
@pytest.mark.parametrize("name", ["image", "table", "text"])
def test_every_format_says_what_the_model_says(made, artefact, name, chosen, tmp_path):
    _, expected = made(name)
    outputs = artefact(chosen, expected, tmp_path / "it")
    assert np.ptp(expected.outputs, axis=0).max() > 1e-3  # examples differ
    np.testing.assert_allclose(outputs, expected.outputs, atol=1e-6)


def test_a_plain_model_needs_no_layers_beside_it(made, artefact, tmp_path):
    artefact(keras_archive.FORMAT, made("image")[1], tmp_path / "image")
    assert not (tmp_path / "image" / "layers.py").exists()
    archived = keras.models.load_model(tmp_path / "image" / "model.keras", custom_objects={})
    assert {type(layer).__module__.split(".")[0] for layer in archived.layers} == {"keras"}
    artefact(keras_archive.FORMAT, made("text")[1], tmp_path / "text")
    assert "class TransformerBlock" in (tmp_path / "text" / "layers.py").read_text()


def test_weights_have_readable_names_and_float16_takes_half_of_the_space(made, artefact, tmp_path):
    from safetensors.numpy import load_file

    _, expected = made("text")
    artefact(weights.FORMAT, expected, tmp_path / "whole")
    half = artefact(weights.FORMAT, expected, tmp_path / "half", Options(quantize="float16"))
    arrays = load_file(tmp_path / "whole" / "model.safetensors")
    assert "block_1/attention/query/kernel" in arrays
    assert arrays.keys() == set(json.loads((tmp_path / "whole" / "config.json").read_text())["weights"])
    size, smaller = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert smaller < 0.7 * size
    assert 0 < np.abs(half - expected.outputs).max() < 1e-2


def test_int8_of_keras_comes_back_from_the_disk(made, artefact, tmp_path):
    _, expected = made("value")  # of its own: quantizing changes the model in place
    outputs = artefact(keras_archive.FORMAT, expected, tmp_path / "it", Options(quantize="int8"))
    assert 0 < np.abs(outputs - expected.outputs).max() < 0.1 * np.ptp(expected.outputs)
    notes = json.loads((tmp_path / "it" / "manifest.json").read_text())["notes"]
    assert "100%" in notes[0]


def test_int8_of_a_transformer_is_refused_by_keras(made, artefact, tmp_path):
    _, expected = made("text")
    with pytest.raises(DlcliError, match="litert"):
        artefact(keras_archive.FORMAT, expected, tmp_path / "it", Options(quantize="int8"))


def test_a_fixed_batch_of_a_saved_model(made, artefact, tmp_path):
    import tensorflow as tf

    _, expected = made("image")
    outputs = artefact(saved_model.FORMAT, expected, tmp_path / "it", Options(batch_size=4))
    np.testing.assert_allclose(outputs, expected.outputs, atol=1e-6)
    signature = tf.saved_model.load(tmp_path / "it" / "saved_model").signatures["serving_default"]
    assert [tensor.shape[0] for tensor in signature.structured_input_signature[1].values()] == [4]
