"""The network that trains and the model that is saved: two views of the same weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.data.examples import Data
from dlcli.data.load import load_data
from dlcli.errors import DataError, DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.training.build import Models, adapt_layers, build_models, check_targets, network_examples
from dlcli.training.job import prepare


def built(name: str, *changes: str) -> tuple[Models, Data]:
    keras.utils.set_random_seed(0)
    recipe = load_recipe(name, list(changes))
    data = load_data(recipe)
    return build_models(recipe, data), data


def test_a_table_predictor_takes_the_raw_columns() -> None:
    models, data = built("iris_mlp")
    columns = {name: values[:6] for name, values in data.train.inputs.items()}
    rows = network_examples(data.train.subset(np.arange(6)), models.task, data, batch_size=4).inputs
    assert rows.shape == (6, 4)
    expected = keras.ops.softmax(models.network(rows))
    np.testing.assert_allclose(models.predictor(columns), expected, rtol=1e-5, atol=1e-6)


def test_the_saved_model_holds_nothing_of_the_training(tmp_path: Path) -> None:
    """Neither loss nor metrics nor schedule: plain Keras and dlcli's layers read it."""
    for name, changes in (
        ("iris_mlp", ["task.metrics=[f1_score]"]),
        ("digits_cnn", ["architecture=perceptron"]),
    ):
        job = prepare(load_recipe(name, changes))
        job.models.predictor.save(tmp_path / "model.keras")
        with zipfile.ZipFile(tmp_path / "model.keras") as archive:
            config = archive.read("config.json").decode()
        for word in ("Metric", 'optimizer"', "schedule", "learning_rate", "Crossentropy"):
            assert word not in config, f"{name}: {word}"


def test_a_regression_predictor_answers_in_the_units_of_the_target() -> None:
    models, data = built("diabetes_mlp")
    assert models.predictor.layers[-1].class_names == ["progression"] or models.predictor.layers[
        -1
    ].class_names == ("progression",)
    outputs = np.asarray(models.predictor(data.train.inputs))
    targets = data.train.targets
    assert abs(outputs.mean() - targets.mean()) < 2 * targets.std(), (
        "an untrained network guesses near the mean"
    )
    encoded = network_examples(data.train, models.task, data).targets
    assert abs(encoded.mean()) < 1e-4 and abs(encoded.std() - 1) < 1e-3


def test_an_image_predictor_takes_uint8_and_shares_the_networks_weights() -> None:
    models, data = built("digits_cnn", "architecture={name: mlp, hidden: [8]}")
    assert models.predictor.input.dtype == "uint8"
    assert models.predictor.input.shape == (None, 8, 8, 1)
    images = data.train.inputs[:5]
    before = np.asarray(models.predictor(images))
    np.testing.assert_allclose(before, keras.ops.softmax(models.network(images)), rtol=1e-5, atol=1e-6)
    kernel = models.network.trainable_weights[-2]
    kernel.assign(kernel + 1.0 * np.arange(10))
    assert not np.allclose(before, models.predictor(images))


def test_the_original_examples_keep_their_targets() -> None:
    models, data = built("digits_cnn", "architecture=perceptron")
    encoded = network_examples(data.train, models.task, data)
    assert encoded is not data.train
    np.testing.assert_array_equal(data.train.targets, encoded.targets)


def test_layers_that_learn_from_data_see_the_preprocessed_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    models, data = built("digits_cnn", "architecture=perceptron")
    layer, seen = models.network.layers[-1], []
    monkeypatch.setattr(layer, "adapts_to_inputs", True, raising=False)
    monkeypatch.setattr(layer, "adapt", seen.append, raising=False)
    adapt_layers(models.network, data.train, data, seed=0)
    assert seen[0].shape == (len(data.train), 8, 8, 1)
    assert abs(seen[0].mean()) < 0.01, "standardized, not raw pixels"


def test_an_architecture_that_does_not_fit_says_so() -> None:
    with pytest.raises(DlcliError, match="architecture alexnet: "):
        built("digits_cnn", "architecture=alexnet")


def test_one_class_cannot_be_learnt() -> None:
    _, data = built("iris_mlp")
    one = data.train.subset(np.flatnonzero(data.train.targets == 0))
    with pytest.raises(DataError, match="holds one class"):
        check_targets(Data(one, None, None, data.info, data.preprocessing))
    check_targets(data)
