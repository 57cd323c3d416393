"""The training step of pix2pix: the drawn image is judged beside its source, and compared with the right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dlcli.training.steps.cycle import DISCRIMINATOR_SCALE, GENERATOR_SCALE
from dlcli.training.steps.objectives import OBJECTIVES
from dlcli.training.steps.trainer import Trainer


class PairedTrainer(Trainer):
    """Isola et al. 2017, equations 1 and 4: a conditional GAN and the mean absolute difference.

    Args:
        networks: `generator`: images -> images; `discriminator`: {source, images} -> logits.
        objective: `standard` or `least_squares`.
        reconstruction_weight: of the difference; 0 leaves the GAN alone.
    """

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        *,
        objective: str = "standard",
        reconstruction_weight: float = 100.0,
    ) -> None:
        super().__init__(
            networks,
            {"generator": ["generator"], "discriminator": ["discriminator"]},
            ["generator_loss", "discriminator_loss", "reconstruction_loss"],
        )
        self.objective = OBJECTIVES[objective]
        self.scales = (GENERATOR_SCALE[objective], DISCRIMINATOR_SCALE[objective])
        self.reconstruction_weight = reconstruction_weight

    def train_step(self, data: Any) -> dict[str, Any]:
        """`source` and `target` (B, H, W, C) in [-1, 1]."""
        batch, _ = data
        source, target = batch["source"], batch["target"]
        with tf.GradientTape() as tape:
            fake = self.networks["generator"](source, training=True)
            with tape.stop_recording():
                discriminator_loss = self._discriminate(source, target, tf.stop_gradient(fake))
            adversarial = self.scales[0] * self.objective.generator(self._judge(source, fake))
            reconstruction = ops.mean(ops.abs(fake - target))
            loss = adversarial + self.reconstruction_weight * reconstruction + self.penalties("generator")
        self.minimize("generator", loss, tape)
        return self.log(
            generator_loss=adversarial,
            discriminator_loss=discriminator_loss,
            reconstruction_loss=reconstruction,
        )

    def _judge(self, source: Any, images: Any) -> Any:
        return self.networks["discriminator"]({"source": source, "images": images}, training=True)

    def _discriminate(self, source: Any, target: Any, fake: Any) -> Any:
        """One update of the discriminator."""
        with tf.GradientTape() as tape:
            real_logits, fake_logits = self._judge(source, target), self._judge(source, fake)
            loss = self.scales[1] * self.objective.discriminator(real_logits, fake_logits, 0.0)
            whole = loss + self.penalties("discriminator")
        self.minimize("discriminator", whole, tape)
        return loss
