"""How well a denoiser tells noise from image in images that it has not seen."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Augment
from dlcli.data.examples import Examples
from dlcli.data.stream import evaluation_stream
from dlcli.evaluation.samples.ddim import settings_of
from dlcli.training.steps.denoising import DenoisingTrainer

BATCH_SIZE = 256
MOST_IMAGES = 10_000
"""More of them make no difference that could be seen."""


def evaluate_denoising(model: keras.Model, examples: Examples, augment: Augment) -> dict[str, Any]:
    """The training's loss, of a kept denoiser, with noise and times drawn once for each image.

    Args:
        model: with a `NoisePrediction` as its last layer.
        examples: raw images.
        augment: of the stream, `diffusion_draws`.

    Returns:
        `denoising_loss` and its 95 % interval, for metrics.json.
    """
    settings = settings_of(model)
    trainer = DenoisingTrainer(model, prediction=settings.prediction, noise_schedule=settings.noise_schedule)
    errors_of = tf.function(lambda batch: trainer.errors(batch, training=False), reduce_retracing=True)
    if len(examples) > MOST_IMAGES:
        examples = examples.subset(np.linspace(0, len(examples) - 1, MOST_IMAGES).astype(np.int64))
    stream = evaluation_stream(examples, BATCH_SIZE, augment=augment)
    errors = np.concatenate([errors_of(batch).numpy() for batch, _ in stream]).astype(float)
    mean, spread = float(errors.mean()), float(errors.std(ddof=1)) if len(errors) > 1 else math.nan
    half = 1.96 * spread / math.sqrt(len(errors))
    interval = [None, None] if math.isnan(half) else [mean - half, mean + half]
    return {"metrics": {"denoising_loss": mean}, "intervals": {"denoising_loss": interval}}
