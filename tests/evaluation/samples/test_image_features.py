"""Whose features images are compared in: a classifier run's, or Inception's; images of other shapes are converted."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.examples import ArrayExamples
from dlcli.errors import DlcliError
from dlcli.evaluation.samples import image_features
from dlcli.evaluation.samples.image_features import find_network, images_at, some_images
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.runs import Run
from dlcli.training.job import prepare

SHAPE = (8, 8, 1)


def classifier(folder: Path, architecture: str, dataset: str = "digits") -> Run:
    path = folder / "recipe.yaml"
    path.write_text(f"task: image_classification\ndataset: {dataset}\narchitecture: {architecture}\n")
    run = Run(folder / "run")
    run.path.mkdir()
    recipe = load_recipe(path)
    (run.path / "recipe.yaml").write_text(dump_recipe(recipe))
    prepare(recipe).models.predictor.save(run.model_path)  # its features are as good untrained
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return classifier(tmp_path_factory.mktemp("classifier"), "{name: cnn, filters: [4, 6], dense: [12]}")


def pictures(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def test_features_are_what_the_output_layer_reads(run: Run) -> None:
    network = find_network(str(run.path))
    images = pictures(130, *SHAPE)
    found = network.describe([images[:30], images[30:]])
    assert network.class_names == run.classes == tuple("0123456789")
    assert found.features.shape == (130, 12)
    kernel, bias = run.model.get_layer("logits").get_weights()
    logits = found.features @ kernel + bias
    assert found.probabilities is not None
    np.testing.assert_allclose(keras.ops.softmax(logits), found.probabilities, atol=1e-5)
    np.testing.assert_allclose(run.model.predict(images, verbose=0), found.probabilities, atol=1e-5)


def test_a_run_is_read_once_and_anew_when_it_changes(run: Run) -> None:
    first = find_network(str(run.path))
    assert find_network(str(run.path)) is first
    run.model_path.touch()
    assert find_network(str(run.path)) is not first


def test_images_of_another_shape_are_converted_and_it_is_said(run: Run) -> None:
    network = find_network(str(run.path))
    assert network.changes(SHAPE) is None
    said = network.changes((16, 24, 3))
    assert said == "made grey and resized from 16x24 to 8x8 (bilinear)"
    flat = np.broadcast_to(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None, None], (10, 16, 24, 3))
    same = np.broadcast_to(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None, None], (10, *SHAPE))
    np.testing.assert_allclose(
        network.describe([flat]).features, network.describe([same]).features, atol=1e-5
    )


def test_smaller_images_are_smoothed_not_thinned_out(run: Run) -> None:
    columns = np.where(np.arange(16) % 2, 0, 255).astype(
        np.uint8
    )  # without smoothing one colour would be left
    stripes = tf.constant(np.broadcast_to(columns[None, None, :, None], (1, 16, 16, 1)))
    converted = np.asarray(image_features._converted(stripes, 8, 8, 1))
    assert converted[:, 1:-1, 1:-1].min() > 100 and converted[:, 1:-1, 1:-1].max() < 156
    assert image_features._converted(stripes, 16, 16, 3).shape == (1, 16, 16, 3)


def test_maps_become_vectors(tmp_path: Path) -> None:
    run = classifier(tmp_path, "{name: cnn, filters: [4], dense: []}")
    assert find_network(str(run.path)).describe([pictures(3, *SHAPE)]).features.ndim == 2


def test_what_gives_no_features_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(
        DlcliError, match=r"metrics.features .*nowhere: no such run folder; allowed: a run of task"
    ):
        find_network(str(tmp_path / "nowhere"))
    other = tmp_path / "gan"
    other.mkdir()
    text = (run.path / "recipe.yaml").read_text().replace("name: image_classification", "name: regression")
    (other / "recipe.yaml").write_text(text.replace("  loss: null\n", "").replace("  metrics: []\n", ""))
    with pytest.raises(
        DlcliError, match="a run of task regression; allowed: a run of task image_classification"
    ):
        find_network(str(other))
    (other / "recipe.yaml").write_text((run.path / "recipe.yaml").read_text())
    with pytest.raises(DlcliError, match=r"holds no model.keras"):
        find_network(str(other))


def test_inception_weights_that_cannot_be_had_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure on https://example.org/inception.h5: None -- no network")

    monkeypatch.setattr("keras.applications.InceptionV3", no_network)
    image_features._inception.cache_clear()
    with pytest.raises(
        DlcliError, match=r"(?s)metrics.features imagenet: .*put it here as .*name a run of task"
    ) as error:
        find_network("imagenet")
    assert "weights: none" not in str(error.value)


def test_inception_reads_what_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def small(pixels: keras.KerasTensor, *, model: str, weights: str, trainable: bool) -> keras.KerasTensor:
        seen.update(model=model, weights=weights)
        return keras.layers.AveragePooling2D(299)(pixels)

    monkeypatch.setattr(image_features, "application", small)
    image_features._inception.cache_clear()
    network = find_network("ImageNet")
    image_features._inception.cache_clear()
    assert network.is_imagenet and seen == {"model": "inception_v3", "weights": "imagenet"}
    assert (
        network.changes((28, 28, 1))
        == "given three equal channels and resized from 28x28 to 299x299 (bilinear)"
    )
    found = network.describe([np.full((2, 28, 28, 1), 51, np.uint8)])
    assert found.probabilities is None
    np.testing.assert_allclose(found.features, np.full((2, 3), 0.2), atol=1e-3)


def test_some_images_are_drawn_from_all_of_them() -> None:
    examples = ArrayExamples(pictures(250, 4, 4, 1), np.zeros(250, np.int32))
    chosen = some_images(examples, 120, seed=1)
    assert len(set(chosen.tolist())) == 120 and chosen.max() > 200
    assert (chosen == some_images(examples, 120, seed=1)).all() and (
        chosen != some_images(examples, 120, 2)
    ).any()
    assert some_images(examples, 999).tolist() == list(range(250))
    batches = list(images_at(examples, chosen))
    assert [len(batch) for batch in batches] == [100, 20]
    np.testing.assert_array_equal(np.concatenate(batches), examples.inputs[chosen])
