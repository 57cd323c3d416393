"""Distances after each epoch, and which of them decides which epoch is best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.errors import DlcliError, TrainingFailedError
from dlcli.evaluation.samples.distances import frechet_distance, squared_discrepancy
from dlcli.evaluation.samples.image_features import FeatureNetwork
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Metrics, Recipe
from dlcli.training import sample_metrics
from dlcli.training.sample_metrics import MeasureSamples, monitored


def pixels_as_features() -> FeatureNetwork:
    image = keras.Input((2, 2, 1), dtype="uint8")
    return FeatureNetwork("runs/x", keras.Model(image, [keras.layers.Flatten(dtype="float32")(image)]))


def images(count: int, level: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(level, level + 50, (count, 2, 2, 1)).astype(np.uint8)


class Drawing:
    """Stands for a task."""

    name = "gan"

    def draw(self, model: Any, count: int, seed: int) -> np.ndarray:
        return images(count, int(model.get_weights()[0].sum()), seed)


def model_of(level: float) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)]
    )
    model.set_weights([np.full((1, 1), level, np.float32)])
    return model


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = pixels_as_features()

    def find(source: str) -> FeatureNetwork:
        if source != "runs/x":
            raise DlcliError(f"no such run: {source}")
        return network

    monkeypatch.setattr(sample_metrics, "find_network", find)


def test_an_epoch_has_the_distances_of_its_samples() -> None:
    real = ArrayExamples(images(80, 100, 9), np.zeros(80, np.int32))
    metrics = Metrics(features="runs/x", samples_each_epoch=500)
    model = model_of(120)
    measure = MeasureSamples(Drawing(), model, real, metrics, seed=4)
    logs: dict[str, float] = {"loss": 1.0}
    measure.on_epoch_end(0, logs)
    # As many samples as there are real images.
    features = [each.reshape(80, 4).astype(float) for each in (real.inputs, images(80, 120, 4))]
    assert logs["frechet_distance"] == pytest.approx(frechet_distance(*features))
    assert logs["kernel_distance"] == pytest.approx(squared_discrepancy(*features))
    again: dict[str, float] = {}
    measure.on_epoch_end(1, again)
    assert again.items() <= logs.items()  # the same weights, the same latents
    model.set_weights([np.full((1, 1), 100.0, np.float32)])
    nearer: dict[str, float] = {}
    measure.on_epoch_end(2, nearer)
    assert all(nearer[name] < logs[name] for name in nearer)


def test_fewer_samples_are_drawn_when_asked_for() -> None:
    real = ArrayExamples(images(80, 100, 9), np.zeros(80, np.int32))
    logs: dict[str, float] = {}
    measure = MeasureSamples(
        Drawing(), model_of(120), real, Metrics(features="runs/x", samples_each_epoch=30), 4
    )
    measure.on_epoch_end(0, logs)
    chosen = sample_metrics.some_images(real, 30, 4)
    features = [each.reshape(30, 4).astype(float) for each in (real.inputs[chosen], images(30, 120, 4))]
    assert logs["frechet_distance"] == pytest.approx(frechet_distance(*features))


@pytest.mark.parametrize("metrics", [Metrics(), Metrics(features="runs/x", samples_each_epoch=0)])
def test_nothing_is_measured_unasked(metrics: Metrics) -> None:
    real = ArrayExamples(images(20, 100, 9), np.zeros(20, np.int32))
    logs: dict[str, float] = {}
    MeasureSamples(Drawing(), model_of(1), real, metrics, 0).on_epoch_end(0, logs)
    assert logs == {}


def test_a_generator_that_is_nan_ends_the_training() -> None:
    real = ArrayExamples(images(20, 100, 9), np.zeros(20, np.int32))
    measure = MeasureSamples(Drawing(), model_of(np.nan), real, Metrics(features="runs/x"), 0)
    with pytest.raises(
        TrainingFailedError, match=r"kernel of the generator became NaN or infinite in epoch 3"
    ):
        measure.on_epoch_end(2, {})


def recipe(folder: Path, *changes: str, architecture: str = "mlp_gan", task: str = "gan") -> Recipe:
    path = folder / "recipe.yaml"
    dataset = f"{{name: unpaired_images, path: {folder}}}" if task == "image_translation" else "digits"
    path.write_text(f"task: {task}\ndataset: {dataset}\narchitecture: {architecture}\n")
    return load_recipe(path, list(changes))


MEASURED = "metrics.features=runs/x"


@pytest.mark.parametrize(
    ("changes", "validates", "expected"),
    [
        ([], False, None),
        ([], True, "val_loss"),
        ([MEASURED], False, "kernel_distance"),
        ([MEASURED], True, "kernel_distance"),
        ([MEASURED, "metrics.samples_each_epoch=0"], False, None),
        ([MEASURED, "metrics.samples_each_epoch=0"], True, "val_loss"),
        ([MEASURED, "training.monitor=frechet_distance"], False, "frechet_distance"),
        ([MEASURED, "training.monitor=val_loss"], True, "val_loss"),
        (["training.monitor=loss"], True, "val_loss"),
        ([MEASURED, "regularization.early_stopping={patience: 2}"], False, "kernel_distance"),
    ],
)
def test_what_decides_which_epoch_is_best(
    tmp_path: Path, changes: list[str], validates: bool, expected: str | None
) -> None:
    assert monitored(recipe(tmp_path, *changes), validates) == (expected, "min")


@pytest.mark.parametrize(
    ("changes", "validates", "message"),
    [
        (
            ["training.monitor=generator_loss"],
            False,
            "training.monitor generator_loss: nothing is measured .*name the fea",
        ),
        (
            ["training.monitor=kernel_distance"],
            True,
            "training.monitor kernel_distance: not measured .*allowed: val_loss",
        ),
        ([MEASURED, "training.monitor=val_loss"], False, "allowed: kernel_distance, frechet_distance"),
        (["regularization.early_stopping={patience: 2}"], False, "early_stopping: nothing is measured"),
        (["metrics.features=runs/y"], False, "no such run: runs/y"),
        ([MEASURED, "metrics.samples_each_epoch=1"], False, "takes two images or more"),
    ],
)
def test_what_is_not_measured_cannot_decide(
    tmp_path: Path, changes: list[str], validates: bool, message: str
) -> None:
    with pytest.raises(DlcliError, match=message):
        monitored(recipe(tmp_path, *changes), validates)


def test_translation_keeps_the_last_epoch(tmp_path: Path) -> None:
    changed = recipe(tmp_path, MEASURED, architecture="cycle_gan", task="image_translation")
    assert monitored(changed, False) == (None, "min")
    changed = recipe(
        tmp_path, "training.monitor=cycle_loss", architecture="cycle_gan", task="image_translation"
    )
    with pytest.raises(DlcliError, match="image_translation measures nothing after each epoch"):
        monitored(changed, False)
