"""The training step of a variational autoencoder."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from dlcli.training.empty_parts import on_rows
from dlcli.training.steps.likelihoods import divergences, nats_of_images
from dlcli.training.steps.trainer import Trainer

LARGEST_LOG_VARIANCE = 20.0
"""An untrained encoder of large images may ask for more, and its exponential would be infinite."""


class VariationalTrainer(Trainer):
    """Encoder and decoder lower the negative ELBO together. Kingma and Welling 2014, equation 10.

    Args:
        encoder: images -> (B, 2 Z), means and log variances.
        decoder: latents -> images; the layer `images` is its tanh.
        likelihood: of `LIKELIHOODS`.
        log_scale: logarithm of the pixels' scale in gray levels: a number, or the weight that is learnt.
        beta: weight of the KL divergence (Higgins et al. 2017).
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        likelihood: str = "bernoulli",
        log_scale: Any = 0.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__(
            {"encoder": encoder, "decoder": decoder},
            {"autoencoder": ["encoder", "decoder"]},
            ["loss", "reconstruction_loss", "kl"],
        )
        self.likelihood = likelihood
        self.log_scale = log_scale
        self.beta = beta
        self._before_tanh = before_tanh(decoder)

    def train_step(self, data: Any) -> dict[str, Any]:
        """`images` (B, H, W, C), `levels` (B, H, W, C), `noise` (B, Z), `kl_weight` (B,)."""
        batch, _ = data
        with tf.GradientTape() as tape:
            reconstruction, divergence = self._nats(batch, training=True)
            loss = tf.reduce_mean(reconstruction + self.beta * batch["kl_weight"] * divergence)
            whole = loss + self.penalties("autoencoder")
        self.minimize("autoencoder", whole, tape)
        return self.log(loss=loss, reconstruction_loss=reconstruction, kl=divergence)

    def test_step(self, data: Any) -> dict[str, Any]:
        """As in training, with the KL at its whole weight from the first epoch on: epochs can be compared."""
        reconstruction, divergence = on_rows(partial(self._nats, training=False), data[0])
        # One value for each image, so that a short last batch does not count as a whole one.
        return self.log(
            loss=reconstruction + self.beta * divergence, reconstruction_loss=reconstruction, kl=divergence
        )

    def _nats(self, batch: dict[str, Any], *, training: bool) -> tuple[Any, Any]:
        """Nats of reconstruction and of divergence, each (B,)."""
        means, log_variances = split_moments(self.networks["encoder"](batch["images"], training=training))
        latents = means + tf.exp(0.5 * log_variances) * batch["noise"]
        drawn = self._before_tanh(latents, training=training)
        log_scale = tf.convert_to_tensor(self.log_scale)
        reconstruction = nats_of_images(self.likelihood, drawn, batch["levels"], log_scale)
        return reconstruction, tf.reduce_sum(divergences(means, log_variances), axis=-1)


def split_moments(moments: Any) -> tuple[Any, Any]:
    """(B, 2 Z) -> means and log variances, each (B, Z)."""
    means, log_variances = keras.ops.split(moments, 2, axis=-1)
    return means, keras.ops.clip(log_variances, -LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)


def before_tanh(decoder: keras.Model) -> keras.Model:
    """The decoder up to its last activation, where a wrong and certain pixel still has a gradient."""
    return keras.Model(decoder.input, decoder.get_layer("images").input, name="before_tanh")
