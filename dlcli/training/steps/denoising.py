"""The training step of a diffusion model: take noise away that was added."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from dlcli.training.empty_parts import on_rows
from dlcli.training.steps.noise_schedules import NOISE_SCHEDULES, signal_and_noise, target_of
from dlcli.training.steps.trainer import Trainer


class DenoisingTrainer(Trainer):
    """Mean squared error of what a denoiser says of noisy images. Ho et al. 2020, equation 14.

    Args:
        denoiser: {images, log_snr[, labels]} -> (B, H, W, C).
        prediction: `velocity` or `noise`.
        noise_schedule: of `NOISE_SCHEDULES`.
    """

    def __init__(
        self, denoiser: keras.Model, *, prediction: str = "velocity", noise_schedule: str = "cosine"
    ) -> None:
        super().__init__({"denoiser": denoiser}, {"denoiser": ["denoiser"]}, ["loss"])
        self.prediction = prediction
        self.log_snr_at = NOISE_SCHEDULES[noise_schedule]

    def train_step(self, data: Any) -> dict[str, Any]:
        """`images` and `noise` (B, H, W, C), `times` (B,) in [0, 1), and `labels` (B,) of a conditional one."""
        with tf.GradientTape() as tape:
            errors = self.errors(data[0], training=True)
            whole = tf.reduce_mean(errors) + self.penalties("denoiser")
        self.minimize("denoiser", whole, tape)
        return self.log(loss=errors)

    def test_step(self, data: Any) -> dict[str, Any]:
        """As in training; the same times and noise in each epoch."""
        return self.log(loss=on_rows(partial(self.errors, training=False), data[0]))

    def errors(self, batch: dict[str, Any], *, training: bool) -> Any:
        """Mean squared error of each image of a batch, (B,)."""
        images, noise = batch["images"], batch["noise"]
        log_snr = self.log_snr_at(batch["times"])
        signal, strength = (part[:, None, None, None] for part in signal_and_noise(log_snr))
        inputs = {"images": signal * images + strength * noise, "log_snr": log_snr}
        if "labels" in batch:
            inputs["labels"] = batch["labels"]
        predicted = tf.cast(self.networks["denoiser"](inputs, training=training), tf.float32)
        target = target_of(self.prediction, images, noise, signal, strength)
        return tf.reduce_mean(tf.square(predicted - target), axis=[1, 2, 3])
