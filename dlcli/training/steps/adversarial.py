"""The training step of a GAN: discriminator and generator take turns within one `train_step`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from dlcli.training.steps.objectives import OBJECTIVES
from dlcli.training.steps.trainer import Trainer


class AdversarialTrainer(Trainer):
    """Generator against discriminator (Goodfellow et al. 2014, algorithm 1).

    A step makes `critic_steps` updates of the discriminator, each on real and drawn images of its own, and one of the
    generator on the images that the last of them saw: one pass through the generator serves both.

    Args:
        generator: latents (B, Z)[, labels (B,)] -> images (B, H, W, C).
        discriminator: images[, labels] -> logits.
        objective: of `OBJECTIVES`.
        critic_steps: updates of the discriminator for each one of the generator.
        gradient_penalty: weight of (|gradient| - 1)^2 between real and drawn images (Gulrajani et al. 2017,
            equation 3).
        r1: weight of the squared gradient at real images, halved (Mescheder et al. 2018, equation 9).
        label_smoothing: of real images.
        augmentation: what both real and drawn images go through, differentiably; None for nothing.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        objective: str = "standard",
        critic_steps: int = 1,
        gradient_penalty: float = 0.0,
        r1: float = 0.0,
        label_smoothing: float = 0.0,
        augmentation: Any = None,
    ) -> None:
        penalties = [*(["gradient_penalty"] if gradient_penalty else []), *(["r1"] if r1 else [])]
        super().__init__(
            {"generator": generator, "discriminator": discriminator},
            {"generator": ["generator"], "discriminator": ["discriminator"]},
            ["generator_loss", "discriminator_loss", "real_score", "fake_score", *penalties],
            {"discriminator": critic_steps},
        )
        self.objective = OBJECTIVES[objective]
        self.critic_steps = critic_steps
        self.gradient_penalty = gradient_penalty
        self.r1 = r1
        self.label_smoothing = label_smoothing
        self.augmentation = augmentation

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step.

        The batch has `images` (B, K, H, W, C), `latents` (B, K, Z) and, where they are used, `labels` (B, K), `mix`
        (B, K), `augmentation` (B, K, 2, M): K is `critic_steps`.
        """
        batch, _ = data
        turns = [{name: part[:, turn] for name, part in batch.items()} for turn in range(self.critic_steps)]
        for turn in turns[:-1]:
            self._discriminate(turn, self._draw(turn))
        last = turns[-1]
        with tf.GradientTape() as tape:
            fake = self._draw(last)
            with tape.stop_recording():
                logs = self._discriminate(last, fake)
            fake_logits = self._judge(fake, last, 1)
            loss = self.objective.generator(fake_logits)
            penalized = loss + self.penalties("generator")
        self.minimize("generator", penalized, tape)
        return self.log(generator_loss=loss, **logs)

    def _draw(self, turn: dict[str, Any]) -> Any:
        inputs: dict[str, Any] = {name: turn[name] for name in ("latents", "labels") if name in turn}
        return self.networks["generator"](_alone(inputs), training=True)

    def _judge(self, images: Any, turn: dict[str, Any], which: int) -> Any:
        """Logits of images; `which` is 0 for real ones, 1 for drawn ones, which are augmented on their own."""
        if self.augmentation is not None:
            images = self.augmentation(images, turn["augmentation"][:, which])
        inputs = {"images": images} | ({"labels": turn["labels"]} if "labels" in turn else {})
        return self.networks["discriminator"](_alone(inputs), training=True)

    def _discriminate(self, turn: dict[str, Any], fake: Any) -> dict[str, Any]:
        """One update of the discriminator."""
        fake, real = tf.stop_gradient(fake), turn["images"]
        with tf.GradientTape() as tape:
            logs = {}
            if self.r1:
                with tf.GradientTape() as inner:
                    inner.watch(real)
                    real_logits = self._judge(real, turn, 0)
                slopes = inner.gradient(real_logits, real)
                logs["r1"] = tf.reduce_mean(tf.reduce_sum(tf.square(slopes), axis=[1, 2, 3]))
            else:
                real_logits = self._judge(real, turn, 0)
            fake_logits = self._judge(fake, turn, 1)
            loss = self.objective.discriminator(real_logits, fake_logits, self.label_smoothing)
            whole = loss + self.penalties("discriminator")
            if self.r1:
                whole += self.r1 / 2 * logs["r1"]
            if self.gradient_penalty:
                logs["gradient_penalty"] = self._slope_between(real, fake, turn)
                whole += self.gradient_penalty * logs["gradient_penalty"]
        self.minimize("discriminator", whole, tape)
        scores = {"real_score": tf.reduce_mean(real_logits), "fake_score": tf.reduce_mean(fake_logits)}
        return {"discriminator_loss": loss, **scores, **logs}

    def _slope_between(self, real: Any, fake: Any, turn: dict[str, Any]) -> Any:
        mix = turn["mix"][:, None, None, None]
        between = mix * real + (1 - mix) * fake
        with tf.GradientTape() as inner:
            inner.watch(between)
            logits = self._judge(between, turn, 1)
        slopes = inner.gradient(logits, between)
        # The square root has no derivative at 0, where a gradient may well be.
        norms = tf.sqrt(tf.reduce_sum(tf.square(slopes), axis=[1, 2, 3]) + 1e-12)
        return tf.reduce_mean(tf.square(norms - 1))


def _alone(inputs: Mapping[str, Any]) -> Any:
    """A network with one input takes it bare."""
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))
