"""Steps a second of `dlcli train` on GANs against training loops as keras.io's examples write them.

Their forms are those of "DCGAN to generate face images" (one batch of drawn and real images joined for the
discriminator, and another drawn for the generator) and "WGAN-GP" (three updates of the critic on one real batch).
Networks, batch, data and optimizers are the same; both alternate within one process, and the figure is the median of
the ratios. Run: make bench
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.architectures.dcgan import dcgan
from dlcli.data.examples import ArrayExamples, DataInfo, Source
from dlcli.data.images import image_preprocessing
from dlcli.recipe.load import load_recipe
from dlcli.training import job as training

BATCH, LATENTS, STEPS, ROUNDS = 64, 128, 40, 9
SHAPE = (28, 28, 1)


class Dcgan(keras.Model):
    """As the example: two optimizers, one loss function, labels with noise."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
        self.built = True

    def compile(self, d_optimizer: Any, g_optimizer: Any) -> None:
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.d_metric, self.g_metric = keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.d_metric, self.g_metric]

    def train_step(self, real: tf.Tensor) -> dict[str, Any]:
        count = tf.shape(real)[0]
        drawn = self.generator(tf.random.normal((count, LATENTS)), training=True)
        images = tf.concat([drawn, real], axis=0)
        labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], axis=0)
        labels += 0.05 * tf.random.uniform(tf.shape(labels))
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(images, training=True))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            again = self.generator(tf.random.normal((count, LATENTS)), training=True)
            g_loss = self.loss_fn(tf.zeros((count, 1)), self.discriminator(again, training=True))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        self.d_metric.update_state(d_loss)
        self.g_metric.update_state(g_loss)
        return {"d_loss": self.d_metric.result(), "g_loss": self.g_metric.result()}


class WganGp(Dcgan):
    """As the example: `d_steps` updates on the same real images, with the gradient penalty."""

    d_steps = 3

    def train_step(self, real: tf.Tensor) -> dict[str, Any]:
        count = tf.shape(real)[0]
        for _ in range(self.d_steps):
            with tf.GradientTape() as tape:
                drawn = self.generator(tf.random.normal((count, LATENTS)), training=True)
                fake, truth = (
                    self.discriminator(drawn, training=True),
                    self.discriminator(real, training=True),
                )
                d_loss = tf.reduce_mean(fake) - tf.reduce_mean(truth) + 10 * self._penalty(real, drawn, count)
            weights = self.discriminator.trainable_weights
            self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            drawn = self.generator(tf.random.normal((count, LATENTS)), training=True)
            g_loss = -tf.reduce_mean(self.discriminator(drawn, training=True))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}

    def _penalty(self, real: tf.Tensor, drawn: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        between = real + tf.random.uniform((count, 1, 1, 1)) * (drawn - real)
        with tf.GradientTape() as tape:
            tape.watch(between)
            logits = self.discriminator(between, training=True)
        slopes = tape.gradient(logits, [between])[0]
        return tf.reduce_mean((tf.sqrt(tf.reduce_sum(tf.square(slopes), axis=[1, 2, 3])) - 1.0) ** 2)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def by_hand(kind: type[Dcgan], options: dict[str, Any]) -> Callable[[], None]:
    networks = dcgan(keras.Input(SHAPE), 0, latent_dimension=LATENTS, filters=32, **options)
    model = kind(networks["generator"], networks["discriminator"])
    model.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), keras.optimizers.Adam(2e-4, beta_1=0.5))
    images = (pixels(BATCH * STEPS).astype("float32") - 127.5) / 127.5
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(1024).batch(BATCH, drop_remainder=True)
    return lambda: model.fit(data, epochs=1, shuffle=False, verbose=0)


def by_dlcli(task: str, options: dict[str, Any], folder: Path, turns: int) -> Callable[[], None]:
    recipe = load_recipe(
        "mnist_dcgan",
        [
            f"task={task}", f"architecture={{name: dcgan, filters: 32, latent_dimension: {LATENTS}}}",
            *(f"architecture.{name}={value}" for name, value in options.items()),
            f"training={{batch_size: {BATCH}}}", "regularization={}", "metrics={}",
            "optimizer={name: adam, learning_rate: 2e-4, beta_1: 0.5}",
        ],
    )  # fmt: skip
    examples = ArrayExamples(pixels(BATCH * STEPS * turns), np.zeros(BATCH * STEPS * turns, "int32"))
    info = DataInfo("image", SHAPE, "classes", tuple("0123456789"))
    source = Source(examples, info, lambda train: image_preprocessing(train, SHAPE, "rescale"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlcli.data.load.load_source", lambda dataset: source)
        job = training.prepare(recipe)
    batches = training.training_batches(job)
    return lambda: job.models.network.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("kind", "task", "options", "turns"),
    [
        (Dcgan, "{name: gan}", {}, 1),
        (
            WganGp,
            "{name: gan, objective: wasserstein_gp, critic_steps: 3}",
            {"discriminator_normalization": "none"},
            3,
        ),
    ],
    ids=["dcgan", "wgan_gp"],
)
def test_steps_a_second(
    kind: type[Dcgan], task: str, options: dict[str, Any], turns: int, tmp_path: Path
) -> None:
    contenders = {"keras.io": by_hand(kind, options), "dlcli": by_dlcli(task, options, tmp_path, turns)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for fit in contenders.values():
        fit()  # traces
    for _ in range(ROUNDS):
        for name, fit in contenders.items():
            start = time.perf_counter()
            fit()
            seconds[name].append(time.perf_counter() - start)
    ratio = statistics.median(
        theirs / ours for theirs, ours in zip(seconds["keras.io"], seconds["dlcli"], strict=True)
    )
    rates = ", ".join(f"{name} {STEPS / statistics.median(times):.1f}" for name, times in seconds.items())
    print(f"\n{kind.__name__}: steps/s {rates}; dlcli / keras.io {ratio:.2f}")
    assert ratio >= 0.95
