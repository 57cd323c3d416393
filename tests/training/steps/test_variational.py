"""The variational autoencoder's step: a linear model whose likelihood is known, draws, a training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dlcli.data.augmentation import Position
from dlcli.data.draws import variational_draws
from dlcli.errors import DlcliError
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.evaluation.samples.elbo import evaluate_elbo
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, load_run
from dlcli.training.job import prepare, training_batches
from dlcli.training.steps.variational import VariationalTrainer
from dlcli.training.train import train

SMALL = 1e-3
"""Of what the decoder draws: there tanh is a straight line."""


def position(step: int = 0, epoch: int = 0, count: int = 4, seed: int = 0) -> Position:
    return Position.of(seed, tf.constant(step, tf.int64), tf.constant(epoch, tf.int64), tf.range(count))


def fixed(values: np.ndarray) -> keras.initializers.Initializer:
    return lambda shape, dtype=None: tf.constant(values.reshape(shape), dtype)  # type: ignore[no-any-return]


class Linear:
    """Levels x = 128 + W z + scale * noise with W's columns at right angles, so that latents stay independent."""

    scale = 0.2
    directions = np.array([[0.3, 0.1], [0.3, -0.1], [0.0, 0.4]], np.float32)
    """W, levels: 3 pixels, 2 latents."""

    def trainer(self, beta: float = 1.0) -> VariationalTrainer:
        """Its encoder gives the exact posterior, for the levels `x`."""
        # (W'W / s^2 + 1) is diagonal: the posterior's precision.
        precision = (self.directions**2).sum(axis=0) / self.scale**2 + 1
        kernel = self.directions / self.scale**2 / precision  # mean = (x - 128) @ kernel
        images, latents = keras.Input((1, 3, 1), name="images"), keras.Input((2,), name="latents")
        # An image is (x / 127.5) - 1, so x - 128 is 127.5 * image - 0.5.
        flat = keras.layers.Rescaling(127.5, -0.5)(keras.layers.Flatten()(images))
        wide = np.concatenate([kernel, np.zeros((3, 2))], axis=1).astype("float32")
        bias = np.concatenate([np.zeros(2), -np.log(precision)]).astype("float32")
        moments = keras.layers.Dense(4, kernel_initializer=fixed(wide), bias_initializer=fixed(bias))(flat)
        # The mean is (tanh + 1) * 128 levels, so W enters divided by 128: small.
        drawn = keras.layers.Dense(3, use_bias=False, kernel_initializer=fixed(self.directions.T / 128))(
            latents
        )
        drawn = keras.layers.Activation("tanh", name="images")(keras.layers.Reshape((1, 3, 1))(drawn))
        encoder, decoder = keras.Model(images, moments), keras.Model(latents, drawn)
        return VariationalTrainer(
            encoder, decoder, likelihood="gaussian", log_scale=math.log(self.scale), beta=beta
        )

    def batch(self, levels: np.ndarray, weight: float = 1.0) -> dict[str, tf.Tensor]:
        shaped = levels.reshape(-1, 1, 3, 1).astype("float32")
        noise = np.random.default_rng(1).standard_normal((len(levels), 2), np.float32)
        parts = {"images": shaped / 127.5 - 1, "levels": shaped, "noise": noise}
        return {name: tf.constant(part) for name, part in parts.items()} | {
            "kl_weight": tf.fill([len(levels)], weight)
        }


def test_bound_of_a_linear_model_is_its_likelihood():
    model, count = Linear(), 40_000
    levels = np.array([128.3, 127.8, 128.6])
    covariance = model.directions @ model.directions.T + model.scale**2 * np.eye(3)
    expected = -stats.multivariate_normal.logpdf(levels, np.full(3, 128.0), covariance)
    trainer = model.trainer()
    logs = trainer.test_step((model.batch(np.tile(levels, (count, 1))), None))
    assert float(logs["loss"]) == pytest.approx(expected, abs=0.02)
    assert float(logs["loss"]) == pytest.approx(float(logs["reconstruction_loss"] + logs["kl"]), abs=1e-4)


def test_weights_of_the_divergence():
    model = Linear()
    trainer, batch = model.trainer(beta=3.0), model.batch(np.array([[128.3, 127.8, 128.6]]), weight=0.25)
    trainer.compile_players({"autoencoder": keras.optimizers.SGD(1e-9)})
    for step, weight in ((trainer.test_step, 3.0), (trainer.train_step, 0.75)):
        trainer.reset_metrics()
        logs = {name: float(value) for name, value in step((batch, None)).items()}
        assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + weight * logs["kl"], rel=1e-5)


def test_kl_rises_over_the_epochs_of_its_warm_up():
    draw = variational_draws(latent_dimension=3, pixels="levels", warmup_epochs=3)
    images, targets = tf.zeros([4, 2, 2, 1], tf.uint8), tf.zeros([4], tf.int32)
    weights = [draw(images, targets, position(epoch=epoch))[0]["kl_weight"].numpy() for epoch in range(6)]
    np.testing.assert_allclose(weights, np.tile([[0.25], [0.5], [0.75], [1], [1], [1]], 4))


def test_black_and_white_pixels_are_drawn_with_the_levels_as_probabilities():
    images = tf.constant(np.tile(np.array([0, 64, 255], np.uint8), (2000, 1)).reshape(2000, 1, 3, 1))
    draw = variational_draws(latent_dimension=2, pixels="binary")
    batch, _ = draw(images, tf.zeros([2000], tf.int32), position(count=2000))
    assert set(np.unique(batch["levels"])) == {0.0, 255.0}
    np.testing.assert_allclose(
        batch["levels"].numpy().mean(axis=0).ravel() / 255, [0, 64 / 255, 1], atol=0.03
    )
    np.testing.assert_allclose(batch["images"], batch["levels"].numpy() / 127.5 - 1, atol=1e-6)
    again, other = (draw(images, tf.zeros([2000]), position(step, count=2000))[0] for step in (0, 1))
    np.testing.assert_array_equal(again["levels"], batch["levels"])
    np.testing.assert_array_equal(again["noise"], batch["noise"])
    assert (other["levels"].numpy() != batch["levels"].numpy()).any()
    assert abs(np.corrcoef(other["noise"].numpy().ravel(), batch["noise"].numpy().ravel())[0, 1]) < 0.06


def test_dequantized_levels_stay_within_their_level():
    images = tf.constant(np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1))
    batch, _ = variational_draws(latent_dimension=2, pixels="dequantized")(images, tf.zeros([4]), position())
    np.testing.assert_array_equal(np.floor(batch["levels"]), images.numpy())
    assert (batch["levels"].numpy() % 1).std() == pytest.approx(1 / math.sqrt(12), rel=0.1)
    np.testing.assert_allclose(
        batch["images"], images.numpy() / 127.5 - 1, atol=1e-6
    )  # the encoder sees no noise


def recipe(folder: Path, task: str = "", *changes: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
task: {{name: autoencoding{task}}}
dataset: digits
architecture: {{name: vae, latent_dimension: 6, filters: [8, 16], dense: 32}}
training: {{epochs: 5, batch_size: 32}}
"""
    )
    return load_recipe(path, changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("vae")
    return load_run(train(recipe(folder), "vae", folder / "run").path)


def columns(run: Run, *names: str) -> np.ndarray:
    rows = np.genfromtxt(run.path / "history.csv", delimiter=",", names=True)
    return np.stack([rows[name] for name in names])


def test_digits_are_learnt(run: Run):
    loss, validation = columns(run, "loss", "val_loss")
    assert (np.diff(loss) < 0).all()
    assert run.metrics["training"]["monitor"] == "val_loss"
    # 17 levels as often as in the train split, each pixel alone: what a model without latents could know.
    data = prepare(run.recipe).data
    assert data.test is not None
    levels = [part.inputs.reshape(len(part), -1) for part in (data.train, data.test)]
    counts = np.stack([np.bincount(pixel, minlength=256) for pixel in levels[0].T]) + 0.05
    shares = counts / counts.sum(axis=1, keepdims=True)
    alone = -np.log2(np.take_along_axis(shares.T, levels[1], axis=0)).mean()
    scores = run.metrics["metrics"]
    assert scores["bits_per_dim"] < 6  # 256 levels with equal shares: 8
    assert alone < scores["bits_per_dim"]  # it does not know that there are 17 levels
    assert scores["negative_elbo"] == pytest.approx(validation[-1], rel=0.05)


def test_what_a_run_keeps(run: Run):
    assert run.model.input_shape == (None, 6)
    moments = run.part("encoder")(np.zeros((2, 8, 8, 1), np.uint8)).numpy()
    assert moments.shape == (2, 12)
    assert run.model.get_layer("pixel_scale").log_scale.numpy() != pytest.approx(math.log(32), abs=1e-3)
    assert (run.plots / "test_reconstructions.png").is_file()


def test_score_of_the_saved_model_is_that_of_the_report(run: Run, tmp_path: Path):
    test = prepare(run.recipe).data.test
    assert test is not None
    found = evaluate_elbo(
        run.part("encoder"), run.model, test,
        likelihood="discretized_logistic", scale=None, plots=tmp_path, split="test",
    )  # fmt: skip
    report = run.metrics["metrics"]
    for name, value in found["metrics"].items():
        assert value == pytest.approx(report[name], rel=1e-5), name
    nats = found["metrics"]["reconstruction"] + found["metrics"]["kl"]
    assert found["metrics"]["bits_per_dim"] == pytest.approx(nats / 64 / math.log(2))
    low, high = found["intervals"]["bits_per_dim"]
    assert low < found["metrics"]["bits_per_dim"] < high


def test_a_trained_decoder_beats_one_with_other_latents(run: Run):
    test = prepare(run.recipe).data.test
    assert test is not None
    images = test.inputs[:100]
    means = run.part("encoder")(images).numpy()[:, :6]
    own, other = (
        np.square(run.model(part).numpy() - images / 255).mean() for part in (means, means[::-1].copy())
    )
    assert own < 0.8 * other


def gradients(job: Any) -> dict[str, bool]:
    trainer = job.models.network
    batch, _ = next(iter(training_batches(job)))
    before = [weight.numpy() for weight in trainer.trainable_variables]
    trainer.train_step((batch, None))
    moved = zip(trainer.trainable_variables, before, strict=True)
    return {weight.path: bool((weight.numpy() != old).any()) for weight, old in moved}


@pytest.mark.parametrize(
    ("task", "scales"),
    [(", likelihood: bernoulli", 0), (", likelihood: gaussian", 1), (", likelihood: gaussian, scale: 20", 0)],
)
def test_every_weight_learns(task: str, scales: int, tmp_path: Path):
    moved = gradients(prepare(recipe(tmp_path, task)))
    assert all(moved.values()), moved
    assert sum("log_scale" in path for path in moved) == scales


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (", likelihood: bernoulli, scale: 3", "have no scale"),
        (", beta: 0, warmup_epochs: 2", "has weight 0"),
        (", likelihood: poisson", "discretized_logistic"),
    ],
)
def test_settings_that_contradict(task: str, said: str, tmp_path: Path):
    with pytest.raises(DlcliError, match=said):
        recipe(tmp_path, task)


def test_sides_that_cannot_be_halved_are_refused(tmp_path: Path):
    with pytest.raises(DlcliError, match=r"halved 4 times.*8x8"):
        prepare(recipe(tmp_path, "", "architecture.filters=[4, 4, 4, 4]"))


def test_without_its_encoder_a_run_keeps_its_report(run: Run):
    (run.path / "encoder.keras").rename(run.path / "elsewhere")
    try:
        with pytest.raises(DlcliError, match=r"encoder\.keras.* is missing; put a copy back"):
            evaluate_run(run, run.recipe, "test")
    finally:
        (run.path / "elsewhere").rename(run.path / "encoder.keras")
