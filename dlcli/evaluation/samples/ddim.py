"""Samples of a diffusion model in few steps, the same ones for the same seed.

Song et al. 2021, "Denoising Diffusion Implicit Models", arXiv:2010.02502, equation 12 with sigma 0: nothing is random
but the noise that a sample begins as.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.console import note
from dlcli.errors import DlcliError
from dlcli.evaluation.samples.grid import Grid
from dlcli.evaluation.samples.sampling import (
    MOST_CLASS_ROWS,
    PREVIEW_COLUMNS,
    PREVIEW_ROWS,
    as_pixels,
    class_names,
    labels_in_turn,
)
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.training.steps.noise_schedules import NOISE_SCHEDULES, clean_images, signal_and_noise

BATCH_SIZE = 100
SECONDS_BETWEEN_LINES = 10.0
"""Of progress."""


def sample_images(
    model: keras.Model,
    count: int,
    seed: int,
    labels: np.ndarray | None = None,
    noise: np.ndarray | None = None,
) -> np.ndarray:
    """Draws with a kept denoiser, as many steps and as much guidance as it was saved with.

    Args:
        model: {images, log_snr[, labels]} -> prediction, with a `NoisePrediction` as its last layer.
        count: N.
        seed: of the noise; the samples of a smaller count are the first of these.
        labels: class indices (N,); of a conditional model they go in turn when left out.
        noise: float32 (N, H, W, C), in the place of random noise.

    Returns:
        uint8 (N, H, W, C).

    Raises:
        DlcliError: the model is no denoiser.
    """
    settings = settings_of(model)
    labels = labels_in_turn(model, count) if labels is None else labels
    if noise is None:
        shape = (count, *model.output_shape[1:])
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
    drawn, shown = [], time.monotonic()
    for first in range(0, count, BATCH_SIZE):
        # In lines, not live: who asks for samples may have a live display of its own.
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            note(f"drawing: {first:,} of {count:,} images, {settings.sampling_steps} steps each")
            shown = time.monotonic()
        part = slice(first, first + BATCH_SIZE)
        chosen = None if labels is None else tf.constant(labels[part], tf.int32)
        images = _denoised(model, settings, tf.constant(noise[part]), chosen)
        drawn.append(as_pixels((images.numpy() + 1) / 2))
    return np.concatenate(drawn)


def preview(model: keras.Model, seed: int) -> Grid:
    """The same draws each time: of a conditional model a row for each class, the same noise in all rows."""
    names = class_names(model)[:MOST_CLASS_ROWS]
    if not names:
        return Grid(sample_images(model, PREVIEW_COLUMNS * PREVIEW_ROWS, seed), PREVIEW_COLUMNS)
    shape = (PREVIEW_COLUMNS, *model.output_shape[1:])
    noise = np.tile(np.random.default_rng(seed).standard_normal(shape, np.float32), (len(names), 1, 1, 1))
    labels = np.repeat(np.arange(len(names), dtype=np.int32), PREVIEW_COLUMNS)
    return Grid(sample_images(model, len(labels), seed, labels, noise), PREVIEW_COLUMNS, names)


def settings_of(model: keras.Model) -> NoisePrediction:
    """The last layer of a denoiser, which knows what the network says and how it is used.

    Raises:
        DlcliError: the model is no denoiser.
    """
    last = model.layers[-1]
    if not isinstance(last, NoisePrediction):
        raise DlcliError("this model takes no noise away, so no images can be drawn with it step by step")
    return last


def step_levels(noise_schedule: str, steps: int) -> np.ndarray:
    """log(signal^2 / noise^2) before the first step and after each one, float32 (steps + 1,), rising.

    Steps are even in time, from 1 to 0.
    """
    return keras.ops.convert_to_numpy(
        NOISE_SCHEDULES[noise_schedule](np.linspace(1, 0, steps + 1, dtype=np.float32))
    )


def _denoised(
    model: keras.Model, settings: NoisePrediction, noise: tf.Tensor, labels: tf.Tensor | None
) -> tf.Tensor:
    """Noise -> images in [-1, 1], all of one batch."""
    step, images = _compiled_step(model, settings), noise
    levels = step_levels(settings.noise_schedule, settings.sampling_steps)
    for now, after in pairwise(levels):
        images, clean = step(images, tf.constant(now), tf.constant(after), labels)
    # The last step leads to a noise that nobody sees; what it took away that noise from is the image.
    return clean


def _compiled_step(
    model: keras.Model, settings: NoisePrediction
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """One step, traced once for each size of batch and kept with the model."""
    found: Any = getattr(model, "_dlcli_step", None)
    if found is None:
        predict = _guided(model, settings)

        def step(
            images: tf.Tensor, now: tf.Tensor, after: tf.Tensor, labels: tf.Tensor | None
        ) -> tuple[tf.Tensor, tf.Tensor]:
            predicted = predict(images, now, labels)
            (signal, strength), (next_signal, next_strength) = signal_and_noise(now), signal_and_noise(after)
            clean = clean_images(settings.prediction, images, predicted, signal, strength)
            # Guidance and few steps lead out of the range of images, where the network has never been.
            clean = tf.clip_by_value(clean, -1, 1)
            noise = (images - signal * clean) / strength
            return next_signal * clean + next_strength * noise, clean

        found = model._dlcli_step = tf.function(step, reduce_retracing=True)
    return found


def _guided(model: keras.Model, settings: NoisePrediction) -> Callable[..., tf.Tensor]:
    """(images, log_snr, labels) -> what the network says, moved on from what it says without labels.

    Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6, where `guidance` is their w + 1.
    """
    none, guidance = len(settings.class_names), settings.guidance

    def predict(images: tf.Tensor, log_snr: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        count = tf.shape(images)[0]
        if labels is None:
            return model({"images": images, "log_snr": tf.fill([count], log_snr)}, training=False)
        if guidance == 0:
            labels = tf.fill([count], none)
        if guidance in (0, 1):
            return model(
                {"images": images, "log_snr": tf.fill([count], log_snr), "labels": labels}, training=False
            )
        both: dict[str, Any] = {
            "images": tf.concat([images, images], 0),
            "log_snr": tf.fill([2 * count], log_snr),
            "labels": tf.concat([labels, tf.fill([count], none)], 0),
        }
        with_label, without = tf.split(model(both, training=False), 2)
        return without + guidance * (with_label - without)

    return predict
