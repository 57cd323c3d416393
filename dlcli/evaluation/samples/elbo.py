"""What a variational autoencoder says of images that it has not seen: a bound on their likelihood, reconstructions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.draws import variational_draws
from dlcli.data.examples import Examples
from dlcli.data.stream import evaluation_stream
from dlcli.evaluation.figure import drawing, hide_axes
from dlcli.evaluation.samples.sampling import as_pixels
from dlcli.training.steps.likelihoods import LIKELIHOODS, divergences, nats_of_images
from dlcli.training.steps.variational import before_tanh, split_moments

BATCH_SIZE = 256
PAIRS_SHOWN = 12
ACTIVE = 0.01
"""Variance of a latent's mean over images from which on it is in use (Burda et al. 2016, arXiv:1509.00519, section
4.3)."""

WHAT_IS_SCORED = {
    "bernoulli": "black and white images, drawn once from each image's gray levels",
    "gaussian": "256 gray levels, bounded by the density of levels with uniform noise added (Theis et al. 2016)",
    "discretized_logistic": "256 gray levels",
}


def evaluate_elbo(
    encoder: keras.Model,
    decoder: keras.Model,
    examples: Examples,
    *,
    likelihood: str,
    scale: float | None,
    plots: Path,
    split: str,
) -> dict[str, Any]:
    """The evidence lower bound of images, with one draw of the latents and of the pixels' noise for each.

    Args:
        encoder: raw images -> (B, 2 Z).
        decoder: the kept model, latents -> images.
        examples: raw images.
        likelihood: of `LIKELIHOODS`.
        scale: of the pixels in gray levels; None for the one that the decoder has learnt.
        plots: where `SPLIT_reconstructions.png` goes.
        split: for the name of the picture.

    Returns:
        Of metrics.json: `negative_elbo`, `reconstruction` and `kl` in nats an image, `bits_per_dim` (an upper bound on
        -log2 p of a pixel and channel), `active_latents`; and in words what was scored.
    """
    nats = _compiled(encoder, decoder, likelihood, scale)
    augment = variational_draws(
        latent_dimension=int(decoder.input.shape[-1]), pixels=LIKELIHOODS[likelihood].pixels
    )
    parts = [
        [tensor.numpy() for tensor in nats(batch)]
        for batch, _ in evaluation_stream(examples, BATCH_SIZE, augment=augment)
    ]
    reconstruction, divergence, means = (
        np.concatenate(part).astype(float) for part in zip(*parts, strict=True)
    )
    plot_reconstructions(encoder, decoder, examples, plots / f"{split}_reconstructions.png")
    bits = (reconstruction + divergence) / (math.log(2) * math.prod(encoder.input.shape[1:]))
    measured = {
        "bits_per_dim": bits,
        "negative_elbo": reconstruction + divergence,
        "reconstruction": reconstruction,
        "kl": divergence,
    }
    return {
        "metrics": {
            **{name: float(values.mean()) for name, values in measured.items()},
            "active_latents": int((means.var(axis=0) > ACTIVE).sum()),
        },
        "intervals": {name: _interval_of_mean(values) for name, values in measured.items()},
        "likelihood": {"of": WHAT_IS_SCORED[likelihood], "latents": means.shape[1], "images": len(means)},
    }


def _compiled(encoder: keras.Model, decoder: keras.Model, likelihood: str, scale: float | None) -> Any:
    """Batch of the stream -> nats of reconstruction (B,), of divergence (B,), means of the latents (B, Z)."""
    drawing_part = before_tanh(decoder)
    names = {layer.name for layer in decoder.layers}
    learnt = decoder.get_layer("pixel_scale").log_scale if "pixel_scale" in names else None
    log_scale = learnt if learnt is not None else math.log(scale or 1.0)

    @tf.function(reduce_retracing=True)
    def nats(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        raw = tf.cast(tf.round((batch["images"] + 1) * 127.5), tf.uint8)
        means, log_variances = split_moments(encoder(raw, training=False))
        latents = means + tf.exp(0.5 * log_variances) * batch["noise"]
        drawn = drawing_part(latents, training=False)
        reconstruction = nats_of_images(likelihood, drawn, batch["levels"], tf.convert_to_tensor(log_scale))
        return reconstruction, tf.reduce_sum(divergences(means, log_variances), axis=-1), means

    return nats


def _interval_of_mean(values: np.ndarray) -> list[float] | list[None]:
    """95 %, by the normal approximation: these are means of many images."""
    if len(values) < 2:
        return [None, None]
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def plot_reconstructions(
    encoder: keras.Model, decoder: keras.Model, examples: Examples, path: Path, count: int = PAIRS_SHOWN
) -> None:
    """Images of the whole split, each above what the means of its latents give back."""
    chosen = np.unique(np.linspace(0, len(examples) - 1, count).astype(np.int32))
    real = keras.ops.convert_to_numpy(examples.read(tf.constant(chosen)))
    means, _ = split_moments(encoder(real, training=False))
    drawn = as_pixels(keras.ops.convert_to_numpy(decoder(means, training=False)))
    with drawing(0.8 * len(chosen), 1.9, path) as figure:
        for column, pair in enumerate(zip(real, drawn, strict=True)):
            for row, image in enumerate(pair):
                axes = figure.add_subplot(2, len(chosen), row * len(chosen) + column + 1)
                axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                hide_axes(axes)
        figure.suptitle("above: the images; below: from their latents", fontsize=9)
