"""The denoiser's step: noise levels, what is learnt of them, draws, a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.augmentation import Position
from dlcli.data.draws import diffusion_draws
from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.training.job import prepare
from dlcli.training.steps.denoising import DenoisingTrainer
from dlcli.training.steps.noise_schedules import (
    NOISE_SCHEDULES,
    clean_images,
    signal_and_noise,
    target_of,
)

SETTINGS = [(prediction, schedule) for prediction in ("velocity", "noise") for schedule in NOISE_SCHEDULES]


def position(step: int, count: int, seed: int = 0) -> Position:
    return Position.of(seed, tf.constant(step, tf.int64), tf.constant(0, tf.int64), tf.range(count))


def test_cosine_schedule():
    times = np.linspace(0, 1, 101, dtype=np.float32)
    signal, noise = (part.numpy() for part in signal_and_noise(NOISE_SCHEDULES["cosine"](times)))
    # Of the formula, but for the ends, which are moved by 3.5e-4.
    np.testing.assert_allclose(signal, np.cos(np.pi * times / 2), atol=6e-4)
    np.testing.assert_allclose(noise, np.sin(np.pi * times / 2), atol=6e-4)
    np.testing.assert_allclose(
        NOISE_SCHEDULES["cosine"](times[[0, 50, -1]]), [15, 0, -15], rtol=1e-3, atol=1e-4
    )


def test_linear_schedule_is_the_papers_thousand_steps():
    betas = np.linspace(1e-4, 0.02, 1000)
    product = np.cumprod(1 - betas)  # signal^2 after each step
    steps = np.array([99, 249, 499, 749])
    times = ((steps + 1) / 1000).astype(np.float32)
    signal, _ = signal_and_noise(NOISE_SCHEDULES["linear"](times))
    np.testing.assert_allclose(np.square(signal.numpy()), product[steps], rtol=0.04)


@pytest.mark.parametrize("schedule", NOISE_SCHEDULES)
def test_noise_rises_and_the_variance_stays(schedule: str):
    log_snr = NOISE_SCHEDULES[schedule](np.linspace(0, 1, 300, dtype=np.float32))
    signal, noise = (part.numpy() for part in signal_and_noise(log_snr))
    assert (np.diff(log_snr) < 0).all()
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-5)
    assert signal[0] > 0.9999
    assert noise[-1] > 0.9999


@pytest.mark.parametrize(("prediction", "schedule"), SETTINGS)
def test_a_right_prediction_means_the_image(prediction: str, schedule: str):
    rng = np.random.default_rng(0)
    images, noise = rng.uniform(-1, 1, (2, 50, 1)).astype("float32")
    log_snr = NOISE_SCHEDULES[schedule](np.linspace(0.01, 0.9, 50, dtype=np.float32)[:, None])
    signal, strength = signal_and_noise(log_snr)
    target = target_of(prediction, images, noise, signal, strength)
    noisy = signal * images + strength * noise
    np.testing.assert_allclose(clean_images(prediction, noisy, target, signal, strength), images, atol=2e-4)


def silent(shape: tuple[int, ...]) -> keras.Model:
    """Says zero whatever it sees, until it learns one number."""
    images, log_snr = keras.Input(shape, name="images"), keras.Input((), name="log_snr")
    said = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(images)
    return keras.Model({"images": images, "log_snr": log_snr}, said)


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
def test_loss_by_hand(prediction: str):
    rng = np.random.default_rng(0)
    images, noise = rng.normal(size=(2, 6, 3, 3, 1)).astype("float32")
    times = np.linspace(0.1, 0.9, 6, dtype=np.float32)
    signal, strength = np.cos(np.pi * times / 2), np.sin(np.pi * times / 2)
    batch = {"images": tf.constant(images), "noise": tf.constant(noise), "times": tf.constant(times)}
    trainer = DenoisingTrainer(silent((3, 3, 1)), prediction=prediction)
    trainer.compile_players({"denoiser": keras.optimizers.SGD(0.1)})
    along = (slice(None), None, None, None)
    noisy = signal[along] * images + strength[along] * noise
    target = noise if prediction == "noise" else signal[along] * noise - strength[along] * images
    assert float(trainer.test_step((batch, None))["loss"]) == pytest.approx(
        np.square(target).mean(), rel=2e-3
    )
    trainer.train_step((batch, None))
    learnt = float(trainer.trainable_variables[0].numpy().squeeze())
    assert learnt == pytest.approx(0.1 * 2 * (target * noisy).mean(), rel=5e-3)


def test_times_are_spread_evenly_from_a_random_start():
    draw = diffusion_draws()
    images, targets = tf.zeros([8, 2, 2, 1], tf.uint8), tf.zeros([8], tf.int32)
    batches = [draw(images, targets, position(step, 8))[0] for step in range(50)]
    times = np.stack([batch["times"].numpy() for batch in batches])
    assert times.min() >= 0
    assert times.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(times, axis=1), axis=1), 1 / 8, atol=1e-5)
    assert np.unique(times.min(axis=1)).size == 50
    noise = np.stack([batch["noise"].numpy().ravel() for batch in batches])
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.std() == pytest.approx(1, abs=0.1)
    again, _ = draw(images, targets, position(7, 8))
    for name, part in again.items():
        np.testing.assert_array_equal(part, batches[7][name])


def test_labels_are_left_out_now_and_then():
    draw = diffusion_draws(classes=4, label_dropout=0.3)
    targets = tf.constant(np.arange(4000) % 4, tf.int32)
    labels = draw(tf.zeros([4000, 1, 1, 1], tf.uint8), targets, position(0, 4000))[0]["labels"].numpy()
    shown = labels < 4
    assert 1 - shown.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(labels[shown], targets.numpy()[shown])
    assert set(labels[~shown]) == {4}


def recipe(folder: Path, task: str = "", *changes: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
task: {{name: diffusion, sampling_steps: 4{task}}}
dataset: digits
architecture: {{name: diffusion_unet, filters: 8, multipliers: [1, 2], num_blocks: 1, attention_size: 4}}
training: {{epochs: 3, batch_size: 64}}
"""
    )
    return load_recipe(path, changes)


def test_each_image_size_fits_its_patches(tmp_path: Path):
    with pytest.raises(DlcliError, match=r"Expected sides that 16 divides.*8x8"):
        prepare(recipe(tmp_path, "", "architecture.patch_size=4", "architecture.multipliers=[1, 1, 1]"))


def test_squares_of_pixels_go_back_to_their_place():
    from dlcli.architectures.diffusion_unet import _pixels, _squares

    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")
    inputs = keras.Input((8, 12, 3))
    squares = _squares(inputs, 4)
    model = keras.Model(inputs, [squares, _pixels(squares, 4, (8, 12, 3))])
    shuffled, back = model(images)
    assert shuffled.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(shuffled[1, 1, 2].numpy().reshape(4, 4, 3), images[1, 4:8, 8:12])
    np.testing.assert_array_equal(back, images)


def test_network_is_told_the_noise_level_and_the_class(tmp_path: Path):
    job = prepare(recipe(tmp_path, ", conditional: true"))
    model = job.models.predictor
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # its last layers begin as good as zero
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))

    def said(log_snr: float, label: int) -> np.ndarray:
        image = np.ones((1, 8, 8, 1), np.float32)
        inputs: dict[str, Any] = {"images": image, "log_snr": np.array([log_snr], np.float32)}
        return model(inputs | {"labels": np.array([label])}).numpy()

    base = said(1.0, 3)
    for other in (said(-1.0, 3), said(1.0, 4), said(1.0, 10)):
        assert np.abs(other - base).max() > 1e-3


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (", guidance: 2", "task.conditional to true"),
        (", label_dropout: 0.2", "task.conditional to true"),
        (", conditional: true, label_dropout: 0, guidance: 2", "raise task.label_dropout"),
        (", conditional: true, label_dropout: 1", "task.label_dropout"),
        (", prediction: image", "velocity"),
    ],
)
def test_settings_that_contradict(task: str, said: str, tmp_path: Path):
    with pytest.raises(DlcliError, match=said):
        recipe(tmp_path, task)
