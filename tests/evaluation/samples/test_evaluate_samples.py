"""Samples beside real images: a report whose numbers are those of its parts, and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.data.examples import ArrayExamples
from dlcli.errors import DlcliError
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.evaluation.intervals import wilson_interval
from dlcli.evaluation.samples import evaluate_samples as samples
from dlcli.evaluation.samples import nearest
from dlcli.evaluation.samples.comparison import compare, diversity, judged
from dlcli.evaluation.samples.distances import frechet_distance, kernel_distance, overlap
from dlcli.evaluation.samples.evaluate_samples import evaluate_samples
from dlcli.evaluation.samples.image_features import Described, FeatureNetwork
from dlcli.evaluation.samples.nearest import nearest_images
from dlcli.evaluation.tables import print_report
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Metrics
from dlcli.runs import Run
from dlcli.training.train import train

CLASSES = ("dark", "light")


def images(count: int, seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, 2, 2, 1)).astype(np.uint8)


def examples(count: int, seed: int, low: int = 0, high: int = 256) -> ArrayExamples:
    return ArrayExamples(images(count, seed, low, high), np.zeros(count, np.int32))


class Drawing:
    """Stands for a task that draws light images, of class 1, and dark ones, of class 0."""

    name = "gan"

    def __init__(self, train_images: ArrayExamples | None = None, **metrics: Any) -> None:
        self.measures, self.train_images = Metrics(**metrics), train_images
        self.seeds: list[int] = []

    def draw(self, model: Any, count: int, seed: int, labels: np.ndarray | None) -> np.ndarray:
        self.seeds.append(seed)
        found = images(count, seed, 0, 100)
        return found if labels is None else found + (120 * labels[:, None, None, None]).astype(np.uint8)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FeatureNetwork:
    """Features are the pixels; images above 128 on average are surely light, those between are not sure."""
    image = keras.Input((2, 2, 1), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 255, dtype="float32")(keras.layers.Flatten()(image))
    light = keras.ops.sigmoid(40 * (keras.ops.mean(pixels, axis=1, keepdims=True) - 0.5))
    found = FeatureNetwork(
        "runs/x", keras.Model(image, [pixels, keras.ops.concatenate([1 - light, light], axis=1)]), CLASSES
    )
    monkeypatch.setattr(samples, "find_network", lambda source: found)
    return found


@pytest.fixture
def drawing_model() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def conditional(model: keras.Model) -> keras.Model:
    model.layers[-1].class_names = list(CLASSES)
    return model


def test_a_report_holds_every_measure_and_the_floor(
    network: FeatureNetwork, drawing_model: keras.Model, tmp_path: Path
) -> None:
    real, seen = examples(60, 1), examples(90, 2)
    task = Drawing(seen, features="runs/x")
    report = evaluate_samples(task, drawing_model, real, "test", tmp_path / "plots")
    drawn = images(60, samples.SEED, 0, 100).reshape(60, 4) / 255
    rows = real.inputs.reshape(60, 4) / 255
    metrics = report["metrics"]
    assert metrics["frechet_distance"] == pytest.approx(frechet_distance(rows, drawn), rel=1e-4)
    assert metrics["kernel_distance"] == pytest.approx(kernel_distance(rows, drawn)[0], rel=1e-4)
    for name, values in overlap(rows, drawn)._asdict().items():
        assert metrics[name] == pytest.approx(np.mean(values), abs=0.02), name
    assert metrics["diversity"] == pytest.approx(100 / 256, rel=0.15)
    sure = np.abs(drawn.mean(axis=1) - 0.5) > np.log(9) / 40
    assert metrics["confident_share"] == pytest.approx(np.mean(sure))
    assert report["intervals"]["confident_share"] == wilson_interval(int(sure.sum()), 60)
    assert report["class_shares"] == {"dark": 1.0, "light": 0.0}
    assert sum(report["class_shares_real"].values()) == pytest.approx(1)
    assert 0.2 < report["class_shares_real"]["light"] < 0.8
    assert report["floor"]["of"] == "train images"
    assert report["floor"]["frechet_distance"] < metrics["frechet_distance"] / 5
    assert "class_agreement" not in metrics
    for name, (low, high) in report["intervals"].items():
        assert low <= metrics[name] <= high, name
    assert report["features"]["source"] == "runs/x" and "FID" in report["features"]["note"]
    assert (report["split"], report["examples"]) == ("test", 60)
    json.dumps(report, allow_nan=False)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "test_samples.png",
        "test_nearest_train_images.png",
    }


def test_samples_are_drawn_in_parts_with_seeds_of_their_own(
    network: FeatureNetwork, drawing_model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CHUNK", 40)
    task = Drawing(features="runs/x", samples=100)
    report = evaluate_samples(task, conditional(drawing_model), examples(300, 1), "train", tmp_path)
    assert task.seeds == [samples.SEED, samples.SEED + 1, samples.SEED + 2]
    assert report["examples"] == 100
    assert report["class_shares"] == {"dark": 0.5, "light": 0.5}
    assert report["metrics"]["class_agreement"] == 1
    assert report["floor"]["of"] == "two halves of the real images"
    assert "nearest_train_image" not in report


def test_without_features_there_is_diversity_and_a_note(drawing_model: keras.Model, tmp_path: Path) -> None:
    report = evaluate_samples(Drawing(), drawing_model, examples(30, 1), "test", tmp_path)
    assert list(report["metrics"]) == ["diversity"]
    assert "--set metrics.features=" in report["note"]
    few = evaluate_samples(Drawing(features="runs/x"), drawing_model, examples(5, 1), "test", tmp_path)
    assert "5 real images are too few" in few["note"]


def test_intervals_cover_the_distance_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)

    def described(shift: float) -> Described:
        return Described((random.standard_normal((100, 3)) + shift).astype(np.float32), None)

    large = compare(
        Described(random.standard_normal((4000, 3)), None),
        Described(random.standard_normal((4000, 3)) + 2, None),
    )
    names = ("frechet_distance", "kernel_distance")
    hits = dict.fromkeys(names, 0)
    for _ in range(20):
        found = compare(described(0), described(2))
        for name in names:
            low, high = found.intervals[name]
            hits[name] += low <= large.metrics[name] <= high
    assert min(hits.values()) >= 17, hits


def test_a_classifier_of_other_classes_says_nothing_of_agreement(network: FeatureNetwork) -> None:
    found = Described(np.zeros((4, 4)), np.array([[0.95, 0.05], [0.4, 0.6], [0.1, 0.9], [0.99, 0.01]]))
    said = judged(network, found, (np.array([0, 1, 0, 0]), CLASSES))
    assert said.metrics == {"confident_share": 0.5, "class_agreement": 0.75}  # 0.9 is not above 0.9
    assert said.details == {"class_shares": {"dark": 0.5, "light": 0.5}}
    assert "class_agreement" not in judged(network, found, (np.array([0, 1, 0, 0]), ("cat", "dog"))).metrics
    assert judged(network, Described(found.features, None), None).metrics == {}


def test_diversity_is_the_mean_distance_per_pixel() -> None:
    assert diversity(
        np.stack([np.zeros((3, 3, 1)), np.full((3, 3, 1), 255)]).astype(np.uint8)
    ) == pytest.approx(1)
    assert diversity(np.full((5, 3, 3, 1), 7, np.uint8)) == 0


def test_the_nearest_train_image_is_found_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    train_images = examples(250, 3)
    copies = train_images.inputs[[7, 120, 249]].copy()
    copies[1, 0, 0, 0] ^= 3  # not a whole grey level off
    found = nearest_images(copies, train_images)
    np.testing.assert_array_equal(found.images, train_images.inputs[[7, 120, 249]])
    assert found.distances[0] == pytest.approx(0, abs=1e-6)
    change = abs(int(copies[1, 0, 0, 0]) - int(train_images.inputs[120, 0, 0, 0])) / 255
    assert found.distances[1] == pytest.approx(change / 2, rel=1e-6)  # of four pixels one differs
    monkeypatch.setattr(nearest, "AMONG", 20)
    assert nearest_images(copies, train_images).distances.max() > 0.05


def test_copies_of_train_images_are_seen(drawing_model: keras.Model, tmp_path: Path) -> None:
    seen = examples(100, 5)
    task = Drawing(seen)
    task.draw = lambda model, count, seed, labels: seen.inputs[:count]  # type: ignore[method-assign]
    report = evaluate_samples(task, drawing_model, examples(40, 6), "test", tmp_path)
    assert report["nearest_train_image"]["samples"] == pytest.approx(0, abs=1e-6)
    assert report["nearest_train_image"]["real"] > 0.05


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("gan")
    (folder / "recipe.yaml").write_text(
        "task: {name: gan, conditional: true}\ndataset: digits\n"
        "architecture: {name: mlp_gan, latent_dimension: 4}\ntraining: {epochs: 2, batch_size: 256}\n"
    )
    return train(load_recipe(folder / "recipe.yaml"), "gan", folder / "run")


def test_a_run_is_evaluated_anew_with_other_metrics(gan: Run, network: FeatureNetwork) -> None:
    assert list(gan.metrics["metrics"]) == ["diversity"]
    (warning,) = gan.metrics["training"]["warnings"]
    assert (
        warning["name"] == "mode_collapse" and "has not learnt enough" in warning["message"]
    )  # after ten steps
    assert gan.metrics["nearest_train_image"]["real"] > 0
    changes = ["metrics.features=runs/x", "metrics.samples=100"]
    recipe = load_recipe(gan.path / "recipe.yaml", changes)
    report = evaluate_run(gan, recipe, "test")
    assert report["examples"] == 100
    assert report["features"]["images"] == "resized from 8x8 to 2x2 (bilinear)"
    again = evaluate_run(gan, recipe, "test")
    assert again["metrics"] == report["metrics"]
    own = evaluate_run(gan, gan.recipe, "test")
    assert own["metrics"]["diversity"] == pytest.approx(gan.metrics["metrics"]["diversity"], rel=1e-4)


def test_without_held_out_images_samples_are_compared_with_train_images(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(images(1, number).repeat(4, 1).repeat(4, 2)[0, ..., 0]).save(
            tmp_path / f"{number}.png"
        )
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"task: gan\ndataset: {{name: image_folder, path: {tmp_path}, image_size: [8, 8], color_mode: grayscale}}\n"
        "architecture: {name: mlp_gan, latent_dimension: 4}\ntraining: {epochs: 1, batch_size: 4}\n"
    )
    run = train(load_recipe(path), "gan", tmp_path / "run")
    assert (run.metrics["split"], run.metrics["examples"]) == ("train", 12)
    assert run.metrics["metrics"]["diversity"] > 0


def test_a_run_is_compared_with_other_images(gan: Run, tmp_path: Path) -> None:
    for name in "0123456789":
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    text = (
        (gan.path / "recipe.yaml")
        .read_text()
        .replace("name: digits", f"name: image_folder\n  path: {tmp_path}")
    )
    other = tmp_path / "other.yaml"
    other.write_text(text)
    report = evaluate_run(gan, load_recipe(other), "test")
    assert report["examples"] == 20
    assert "evaluate-" in report["pictures"]


def test_a_person_reads_whose_features_they_are(
    network: FeatureNetwork, drawing_model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Drawing(examples(90, 2), features="runs/x")
    report = evaluate_samples(task, drawing_model, examples(60, 1), "test", tmp_path)
    print_report(report, tmp_path, as_json=False)
    shown = capsys.readouterr().out
    assert "features: runs/x (the user's own classifier, before its output layer, 4 numbers)" in shown
    assert "not the FID of papers" in shown
    assert f"{report['metrics']['frechet_distance']:.4f}" in shown
    assert f"{report['floor']['frechet_distance']:.4f}" in shown and "train images" in shown
    assert "100.0%" in shown


def test_metrics_can_be_set_where_they_say_something(gan: Run) -> None:
    from typer.testing import CliRunner

    from dlcli.cli.main import app

    found = CliRunner().invoke(app, ["evaluate", str(gan.path), "--set", "training.epochs=3"])
    assert isinstance(found.exception, DlcliError) and "metrics.*" in str(found.exception)
    found = CliRunner().invoke(app, ["evaluate", str(gan.path), "--set", "metrics.samples=100", "--json"])
    assert found.exit_code == 0, found.output
    assert '"examples": 100' in found.output
