"""The training step of a GAN: by hand, interrupted, and on two devices."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.errors import TrainingInterruptedError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run
from dlcli.training.callbacks import History
from dlcli.training.job import prepare, training_batches
from dlcli.training.steps.adversarial import AdversarialTrainer
from dlcli.training.steps.objectives import OBJECTIVES
from dlcli.training.train import resume, train

pytestmark = pytest.mark.usefixtures("no_pictures")

RATE = 0.1


def recipe(folder: Path, task: str = "", *changes: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
task: {{name: gan{task}}}
dataset: digits
architecture: {{name: mlp_gan, latent_dimension: 4, hidden: [8], discriminator_hidden: [8]}}
training: {{epochs: 3, batch_size: 64, steps_per_epoch: 4}}
"""
    )
    return load_recipe(path, changes)


def linear(latents: float, judge: float, **options: Any) -> AdversarialTrainer:
    """Images of one pixel: drawn as `latents * z`, judged as `judge * x`; plain gradient descent."""

    def dense(weight: float) -> keras.layers.Layer:
        return keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(weight))

    z, x = keras.Input((1,)), keras.Input((1, 1, 1))
    generator = keras.Model(z, keras.layers.Reshape((1, 1, 1))(dense(latents)(z)))
    discriminator = keras.Model(x, dense(judge)(keras.layers.Flatten()(x)))
    trainer = AdversarialTrainer(generator, discriminator, **options)
    trainer.compile_players({player: keras.optimizers.SGD(RATE) for player in trainer.players})
    return trainer


def weights(trainer: AdversarialTrainer) -> tuple[float, float]:
    return tuple(float(trainer.variables_of(player)[0].numpy().item()) for player in trainer.players)  # type: ignore[return-value]


def batch(images: list[list[float]], latents: list[list[float]], **more: Any) -> tuple[dict[str, Any], Any]:
    """Rows are examples, columns the discriminator's turns."""
    parts = {"images": np.array(images, "float32")[..., None, None, None]}
    parts["latents"] = np.array(latents, "float32")[..., None]
    parts |= {name: np.array(value, "float32") for name, value in more.items()}
    return {name: tf.constant(part) for name, part in parts.items()}, tf.zeros(len(images))


def test_losses_have_the_values_of_their_papers() -> None:
    real, fake = np.array([[2.0], [0.5]], "float32"), np.array([[-1.0], [3.0]], "float32")

    def log_sigmoid(value: np.ndarray) -> np.ndarray:
        return -np.log1p(np.exp(-value))

    expected = {
        "standard": (-log_sigmoid(real).mean() - log_sigmoid(-fake).mean(), -log_sigmoid(fake).mean()),
        "least_squares": ((1 + 0.25) / 4 + (1 + 9) / 4, (4 + 4) / 4),
        "hinge": (0.5 / 2 + (0 + 4) / 2, -1.0),
        "wasserstein": (1 - 1.25, -1.0),
    }
    for name, (discriminator, generator) in expected.items():
        found = OBJECTIVES[name]
        assert float(found.discriminator(real, fake, 0.0)) == pytest.approx(discriminator, abs=1e-6), name
        assert float(found.generator(fake)) == pytest.approx(generator, abs=1e-6), name
    smooth = float(OBJECTIVES["standard"].discriminator(real, fake, 0.1))
    by_hand = -(0.9 * log_sigmoid(real) + 0.1 * log_sigmoid(-real)).mean() - log_sigmoid(-fake).mean()
    assert smooth == pytest.approx(by_hand, abs=1e-6)
    assert float(OBJECTIVES["least_squares"].discriminator(real, fake, 0.5)) == pytest.approx(
        (2.25 + 0) / 4 + 2.5
    )


def test_a_step_is_the_algorithm() -> None:
    """Wasserstein, two turns: each of the critic on its own images, the generator's on the last, against the new critic."""
    trainer = linear(0.5, 0.2, objective="wasserstein", critic_steps=2)
    images, latents = [[1.0, 2.0], [3.0, 4.0]], [[1.0, -1.0], [2.0, 5.0]]
    logs = trainer.train_step(batch(images, latents))
    judge = 0.2
    for turn in range(2):
        judge -= RATE * (
            0.5 * np.mean([row[turn] for row in latents]) - np.mean([row[turn] for row in images])
        )
    z = np.mean([-1.0, 5.0])
    assert weights(trainer) == pytest.approx((0.5 + RATE * judge * z, judge), abs=1e-6)
    assert float(logs["generator_loss"]) == pytest.approx(-judge * 0.5 * z, abs=1e-6)
    iterations = [int(trainer.optimizer_of(player).iterations) for player in ("generator", "discriminator")]
    assert iterations == [1, 2]


def test_penalties_are_on_the_slope() -> None:
    """A linear critic has one slope everywhere: its weight."""
    mixed = batch([[1.0], [2.0]], [[1.0], [2.0]], mix=[[0.3], [0.6]])
    logs = linear(1.0, 3.0, objective="wasserstein_gp", gradient_penalty=10.0).train_step(mixed)
    assert float(logs["gradient_penalty"]) == pytest.approx((3 - 1) ** 2, abs=1e-5)
    with_penalty = linear(1.0, 3.0, objective="wasserstein", r1=2.0)
    logs = with_penalty.train_step(mixed)
    assert float(logs["r1"]) == pytest.approx(9, abs=1e-5)
    # Real and drawn images are alike, so that the penalty alone moves the critic: d(r1 / 2 * w^2) = r1 * w.
    assert weights(with_penalty)[1] == pytest.approx(3 - RATE * 2.0 * 3.0, abs=1e-5)


def test_penalties_of_weights_reach_their_own_network() -> None:
    trainer = linear(1.0, 1.0, objective="wasserstein")
    kernel = trainer.variables_of("generator")[0]
    kernel.regularizer = keras.regularizers.L2(0.5)
    trainer.train_step(
        batch([[1.0]], [[1.0]])
    )  # nothing else moves: the images are alike, and G's loss is -w * z
    assert weights(trainer) == pytest.approx((1.0 + RATE * (1.0 - 2 * 0.5 * 1.0), 1.0), abs=1e-6)


def test_wasserstein_bounds_the_critic(tmp_path: Path) -> None:
    made = recipe(tmp_path, ", objective: wasserstein, critic_steps: 2, weight_clip: 0.003")
    job = prepare(made)
    trainer = job.models.network
    trainer.fit(training_batches(job), steps_per_epoch=2, verbose=0, shuffle=False)
    largest = max(np.abs(weight.numpy()).max() for weight in trainer.variables_of("discriminator"))
    assert largest == pytest.approx(0.003)
    assert max(np.abs(weight.numpy()).max() for weight in trainer.variables_of("generator")) > 0.1


def test_each_network_has_its_optimizer_and_schedule(tmp_path: Path) -> None:
    made = recipe(
        tmp_path, ", critic_steps: 2", "optimizer.generator={name: sgd, learning_rate: 0.5}",
        "optimizer.discriminator={name: rmsprop, learning_rate: 1e-3}",
        "schedule={generator: constant, discriminator: {name: polynomial_decay, end_learning_rate: 0.0}}",
    )  # fmt: skip
    run = train(made, "gan", tmp_path / "run")
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    assert {float(row["generator_learning_rate"]) for row in rows} == {0.5}
    # 24 updates of the discriminator in 12 steps: its schedule counts its own.
    found = [float(row["discriminator_learning_rate"]) for row in rows]
    assert found == pytest.approx([1e-3 * 2 / 3, 1e-3 / 3, 0], abs=1e-8)
    assert (run.path / "discriminator.keras").is_file()


def test_averages_are_of_the_generator_alone(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, "", "regularization.ema=0.5", "training.epochs=1"), "gan", tmp_path / "run")
    [*_, newest] = sorted(run.checkpoints.iterdir())
    arrays = dict(np.load(newest / "state.npz"))
    live = [weight for weight in run.model.get_weights() if weight.ndim == 2]
    kept = [array for name, array in arrays.items() if name.startswith("trainable") and array.ndim == 2]
    judges = [weight for weight in run.part("discriminator").get_weights() if weight.ndim == 2]
    assert len(kept) == len(live) + len(judges)
    for weight, saved in zip([*live, *judges], kept, strict=True):
        np.testing.assert_array_equal(weight, saved)
    without = train(recipe(tmp_path, "", "training.epochs=1"), "gan", tmp_path / "plain")
    plain = [weight for weight in without.model.get_weights() if weight.ndim == 2]
    assert not np.allclose(live[0], plain[0], atol=1e-6), "what is kept is the average"
    for weight, other in zip(judges, without.part("discriminator").get_weights()[::2], strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize("task", ["", ", objective: wasserstein_gp, critic_steps: 2, conditional: true"])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tmp_path, task, "regularization.ema=0.9", "architecture.dropout=0.3")
    whole = train(made, "gan", tmp_path / "whole")
    original = History.on_train_batch_end

    def interrupted(self: History, batch: int, logs: Any = None) -> None:
        original(self, batch, logs)
        if batch == 2 and len(self.rows) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(History, "on_train_batch_end", interrupted)
    with pytest.raises(TrainingInterruptedError):
        train(made, "gan", tmp_path / "parted")
    monkeypatch.setattr(History, "on_train_batch_end", original)
    parted = resume(Run(tmp_path / "parted"))
    for name in ("model", "discriminator"):
        pairs = zip(whole.part(name).get_weights(), parted.part(name).get_weights(), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def test_defaults_follow_the_objective_and_are_written_out(tmp_path: Path) -> None:
    found = recipe(tmp_path, ", objective: wasserstein_gp").model_dump(mode="json")
    assert found["task"]["critic_steps"] == 5
    assert found["task"]["gradient_penalty"] == 10
    assert (found["optimizer"]["name"], found["optimizer"]["learning_rate"]) == ("adam", 1e-4)
    assert found["dataset"]["validation_split"] == 0
    clipped = recipe(tmp_path, ", objective: wasserstein").model_dump(mode="json")
    assert (clipped["task"]["weight_clip"], clipped["optimizer"]["name"]) == (0.01, "rmsprop")
    assert recipe(tmp_path, ", objective: wasserstein, critic_steps: 3").task.arguments["critic_steps"] == 3


TWO_DEVICES = """
import json, sys
from dlcli.backend import load_backend
load_backend()
import keras
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
# Rewriting the graphs takes longer than their few steps.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
from dlcli.recipe.load import load_recipe
from dlcli.training.fit import build, fit
from dlcli.training.job import prepare, training_batches
from dlcli.training.steps.image_buffer import ImageBuffer

class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rows = []
    def on_train_batch_end(self, batch, logs=None):
        self.rows.append({name: float(value) for name, value in logs.items()})

def losses(strategy, path):
    with strategy.scope():
        job, logs = prepare(load_recipe(path)), Logs()
        build(job.models.network, training_batches(job))
        fit(
            job.models.network, training_batches(job), first_epoch=0, first_step=0, epochs=1, steps_per_epoch=4,
            validation=None, callbacks=[logs],
        )
    return logs.rows

def seen(strategy):
    # What a buffer of six images gives back for batches of four, which the devices share.
    with strategy.scope():
        buffer = ImageBuffer(6, (1, 1, 1))
    devices, given = strategy.num_replicas_in_sync, []
    for step in range(6):
        images = 100.0 * step + tf.reshape(tf.range(4.0), [4, 1, 1, 1])
        draws = tf.random.stateless_uniform([4, 2], [0, step])
        def exchange():
            here = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            rows = slice(4 // devices * here, 4 // devices * (here + 1))
            return buffer.exchange(tf.identity(images[rows]), tf.identity(draws[rows]))
        parts = strategy.experimental_local_results(tf.function(lambda: strategy.run(exchange))())
        given.append(tf.concat(parts, 0).numpy().ravel().tolist())
    return given

one = tf.distribute.OneDeviceStrategy("/CPU:0")
two = tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])
assert seen(one) == seen(two), (seen(one), seen(two))
assert seen(one) != [[100.0 * step + image for image in range(4)] for step in range(6)]
print(json.dumps([[losses(one, path), losses(two, path)] for path in sys.argv[1:]]))
"""


def test_two_devices_give_the_losses_of_one(tmp_path: Path) -> None:
    """With batch normalization, labels, two turns, and once with both penalties (keras#20164 is an error there)."""
    paths = []
    for number, (task, architecture) in enumerate(
        [
            ("critic_steps: 2, conditional: true", ""),
            (
                "objective: hinge, r1: 1.0, gradient_penalty: 1.0",
                ", spectral_normalization: true, discriminator_normalization: none",
            ),
        ]
    ):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(
            f"""
task: {{name: gan, {task}}}
dataset: digits
architecture: {{name: dcgan, filters: 4, latent_dimension: 8{architecture}}}
training: {{batch_size: 32}}
"""
        )
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two in json.loads(done.stdout.splitlines()[-1]):
        assert len(one) == len(two) == 4
        for first, second in zip(one, two, strict=True):
            assert first.keys() == second.keys() >= {"generator_loss", "discriminator_loss"}
            for name in first:
                assert math.isclose(first[name], second[name], rel_tol=1e-4, abs_tol=1e-4), name
