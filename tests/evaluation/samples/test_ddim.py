"""Sampling with a denoiser whose distribution is known, and with one that has learnt digits."""

from __future__ import annotations

import json
import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dlcli.data.load import load_data
from dlcli.errors import DlcliError
from dlcli.evaluation.samples.ddim import preview, sample_images, step_levels
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run, load_run
from dlcli.training.build import build_task
from dlcli.training.steps.noise_schedules import NOISE_SCHEDULES
from dlcli.training.train import train

SPREAD = 0.2


class KnownGaussian(keras.layers.Layer):
    """Says what is best to say when pixels are normal with `SPREAD` around a mean of their class."""

    def __init__(self, means: list[float], prediction: str) -> None:
        super().__init__()
        self.means, self.prediction = means, prediction

    def call(self, inputs: list[Any]) -> Any:
        noisy, log_snr, labels = inputs
        signal, strength = (
            ops.reshape(ops.sqrt(ops.sigmoid(part)), (-1, 1, 1, 1)) for part in (log_snr, -log_snr)
        )
        mean = ops.reshape(ops.take(ops.convert_to_tensor(self.means), labels), (-1, 1, 1, 1))
        gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + strength**2)
        clean = mean + gain * (noisy - signal * mean)  # the posterior mean
        noise = (noisy - signal * clean) / strength
        return noise if self.prediction == "noise" else signal * noise - strength * clean


def known(
    means: tuple[float, ...] = (0.1,),
    *,
    none: float = 0.0,
    prediction: str = "velocity",
    schedule: str = "cosine",
    steps: int = 200,
    guidance: float = 1.0,
) -> keras.Model:
    """A conditional denoiser of 2x2 images; `none` is the mean of those without a label."""
    inputs = {
        "images": keras.Input((2, 2, 1), name="images"),
        "log_snr": keras.Input((), name="log_snr"),
        "labels": keras.Input((), dtype="int32", name="labels"),
    }
    said = KnownGaussian([*means, none], prediction)(
        [inputs[name] for name in ("images", "log_snr", "labels")]
    )
    names = tuple(str(index) for index in range(len(means)))
    return keras.Model(inputs, NoisePrediction(names, prediction, schedule, steps, guidance)(said))


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8 -> [-1, 1]."""
    return images.astype(float) / 127.5 - 1


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
@pytest.mark.parametrize("schedule", list(NOISE_SCHEDULES))
def test_samples_of_a_gaussian_are_that_gaussian(prediction: str, schedule: str):
    noise = np.random.default_rng(3).standard_normal((100, 2, 2, 1), np.float32)
    model = known(prediction=prediction, schedule=schedule)
    drawn = pixels(sample_images(model, 100, 0, noise=noise))
    # Without any randomness on the way, noise is carried to where it has the same rank.
    np.testing.assert_allclose(drawn, 0.1 + SPREAD * noise, atol=0.035)
    assert drawn.mean() == pytest.approx(0.1 + SPREAD * noise.mean(), abs=0.005)
    assert drawn.std() == pytest.approx(SPREAD * noise.std(), rel=0.05)


def test_more_steps_are_closer():
    noise = np.random.default_rng(3).standard_normal((100, 2, 2, 1), np.float32)
    errors = [
        np.abs(pixels(sample_images(known(steps=steps), 100, 0, noise=noise)) - 0.1 - SPREAD * noise).mean()
        for steps in (2, 8, 64)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("guidance", "factor"), [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)])
def test_guidance_moves_on_from_what_is_said_without_a_label(guidance: float, factor: float):
    # What these Gaussians say is linear in their mean: from 0 by way of 0.2 to `factor` times as far.
    model = known((-0.2, 0.2), guidance=guidance, steps=50)
    half = np.random.default_rng(3).standard_normal((20, 2, 2, 1), np.float32)
    noise, labels = np.concatenate([half, half, -half, -half]), np.tile(np.repeat(np.int32([0, 1]), 20), 2)
    drawn = pixels(sample_images(model, 80, 0, labels, noise))
    for label, mean in ((0, -0.2), (1, 0.2)):
        assert drawn[labels == label].mean() == pytest.approx(factor * mean, abs=0.02)


def test_steps_go_from_noise_to_image():
    levels = step_levels("cosine", 4)
    np.testing.assert_allclose(levels[[0, 2, 4]], [-15, 0, 15], rtol=1e-3, atol=1e-4)
    assert (np.diff(levels) > 0).all()


def test_samples_depend_on_seed_and_place_alone():
    model = known((-0.2, 0.2), steps=3)
    drawn = sample_images(model, 150, 5)
    np.testing.assert_array_equal(sample_images(model, 70, 5), drawn[:70])
    assert (sample_images(model, 70, 6) != drawn[:70]).any()
    np.testing.assert_array_equal(sample_images(model, 150, 5, np.arange(150) % 2), drawn)  # classes in turn


def test_preview_has_a_row_for_each_class():
    grid = preview(known((-0.5, 0.0, 0.5), steps=20), 0)
    assert grid.images.shape == (24, 2, 2, 1)
    assert grid.row_names == ("0", "1", "2")
    rows = pixels(grid.images).reshape(3, 8, 4)
    np.testing.assert_allclose(np.diff(rows, axis=0), 0.5, atol=0.06)  # the same noise in each


def test_other_models_are_refused():
    inputs = keras.Input((4,), name="latents")
    with pytest.raises(DlcliError, match="takes no noise away"):
        sample_images(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 1, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("diffusion")
    path = folder / "recipe.yaml"
    path.write_text(
        """
task: {name: diffusion, conditional: true, guidance: 1.5, sampling_steps: 2}
dataset: digits
architecture: {name: diffusion_unet, filters: 8, multipliers: [2], num_blocks: 1, attention_size: 0}
optimizer: {name: adam, learning_rate: 2e-3}
training: {epochs: 2, batch_size: 64}
metrics: {samples: 100}
"""
    )
    return load_run(train(load_recipe(path), "diffusion", folder / "run").path)


def test_digits_are_learnt(run: Run):
    rows = np.genfromtxt(run.path / "history.csv", delimiter=",", names=True)
    assert (np.diff(rows["val_loss"]) < 0).all()
    assert rows["val_loss"][-1] < 0.75  # of a network that says nothing: about 1
    metrics = run.metrics["metrics"]
    assert metrics["denoising_loss"] == pytest.approx(rows["val_loss"][-1], rel=0.1)
    low, high = run.metrics["intervals"]["denoising_loss"]
    assert low < metrics["denoising_loss"] < high


def test_saved_model_knows_how_it_is_used(run: Run):
    last = run.model.layers[-1]
    assert isinstance(last, NoisePrediction)
    assert (last.prediction, last.noise_schedule, last.sampling_steps, last.guidance) == (
        "velocity",
        "cosine",
        2,
        1.5,
    )
    assert run.classes == tuple("0123456789")


def test_task_draws_with_the_saved_model(run: Run):
    data = load_data(run.recipe)
    task = build_task(run.recipe, data.info, data.train.targets)
    drawn = task.draw(run.model, 12, 4)  # type: ignore[attr-defined]
    assert drawn.shape == (12, 8, 8, 1)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(sample_images(run.model, 5, 4), drawn[:5])


def test_pictures_of_each_epoch(run: Run):
    assert [path.name for path in sorted((run.path / "samples").glob("*.png"))] == [
        f"epoch_{epoch:04d}.png" for epoch in (1, 2)
    ]
    json.dumps(run.metrics, allow_nan=False)
    assert math.isfinite(run.metrics["metrics"]["denoising_loss"])
