"""The training step of CycleGAN: two generators there and back, two discriminators. Zhu et al. 2017."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from dlcli.training.steps.image_buffer import ImageBuffer
from dlcli.training.steps.objectives import OBJECTIVES
from dlcli.training.steps.trainer import Trainer

GENERATOR_SCALE = {"least_squares": 2.0, "standard": 1.0}
DISCRIMINATOR_SCALE = {"least_squares": 1.0, "standard": 0.5}
"""The discriminator's loss is halved, the generator's is not (Isola et al. 2017, section 3.3; Zhu et al. 2017,
section 4 and appendix 7.1); `OBJECTIVES` halves both of least_squares and none of standard."""


class CycleTrainer(Trainer):
    """Equations 1 to 3 of the paper, and the identity loss of its section 5.2.

    Args:
        networks: `a_to_b`, `b_to_a`: images -> images; `discriminator_a`, `discriminator_b`: images -> logits.
        objective: `least_squares` or `standard`.
        cycle_weight: of the mean absolute difference between an image and what comes back of it.
        identity_weight: of the mean absolute difference between an image and what the generator of its own kind makes
            of it; 0 saves two passes.
        buffer: images that each discriminator keeps; 0 shows it the newest ones alone.
    """

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        *,
        objective: str = "least_squares",
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        buffer: int = 50,
    ) -> None:
        identity = ["identity_loss"] if identity_weight else []
        super().__init__(
            networks,
            {"generator": ["a_to_b", "b_to_a"], "discriminator": ["discriminator_a", "discriminator_b"]},
            ["generator_loss", "discriminator_loss", "cycle_loss", *identity],
        )
        self.objective = OBJECTIVES[objective]
        self.scales = (GENERATOR_SCALE[objective], DISCRIMINATOR_SCALE[objective])
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        shape = tuple(networks["a_to_b"].output.shape[1:])
        self.buffers = [ImageBuffer(buffer, shape, name=f"buffer_{side}") for side in "ab"] if buffer else []

    def count_params(self) -> int:
        """Of the networks; the buffers are none."""
        return sum(network.count_params() for network in self.networks.values())

    def train_step(self, data: Any) -> dict[str, Any]:
        """`a` and `b` (B, H, W, C) in [-1, 1] and, with buffers, `buffer` (B, 2, 2): draws for A and for B."""
        batch, _ = data
        a, b = batch["a"], batch["b"]
        logs = {}
        with tf.GradientTape() as tape:
            fake_b, same_b = self._draw_both("a_to_b", a, b)
            fake_a, same_a = self._draw_both("b_to_a", b, a)
            cycle = _distance(self._draw("b_to_a", fake_b), a) + _distance(self._draw("a_to_b", fake_a), b)
            fooled = self.objective.generator(self._judge("b", fake_b)) + self.objective.generator(
                self._judge("a", fake_a)
            )
            adversarial = self.scales[0] * fooled
            loss = adversarial + self.cycle_weight * cycle + self.penalties("generator")
            if self.identity_weight:
                identity = _distance(same_b, b) + _distance(same_a, a)
                loss += self.identity_weight * identity
                logs["identity_loss"] = identity / 2
        self.minimize("generator", loss, tape)
        logs["discriminator_loss"] = self._discriminate(
            [("a", a, self._shown(0, fake_a, batch)), ("b", b, self._shown(1, fake_b, batch))]
        )
        return self.log(generator_loss=adversarial / 2, cycle_loss=cycle / 2, **logs)

    def _draw(self, role: str, images: Any) -> Any:
        return self.networks[role](images, training=True)

    def _draw_both(self, role: str, images: Any, own: Any) -> tuple[Any, Any]:
        """What becomes of images, and of those that are of the kind already; None of these without identity loss.

        One pass through the network serves both: its normalization looks at each image alone.
        """
        if not self.identity_weight:
            return self._draw(role, images), None
        return _halves(self._draw(role, ops.concatenate([images, own])))

    def _judge(self, side: str, images: Any) -> Any:
        return self.networks[f"discriminator_{side}"](images, training=True)

    def _shown(self, side: int, fake: Any, batch: dict[str, Any]) -> Any:
        fake = tf.stop_gradient(fake)
        return self.buffers[side].exchange(fake, batch["buffer"][:, side]) if self.buffers else fake

    def _discriminate(self, sides: list[tuple[str, Any, Any]]) -> Any:
        """One update of both discriminators; their mean loss."""
        with tf.GradientTape() as tape:
            losses = []
            for side, real, fake in sides:
                real_logits, fake_logits = _halves(self._judge(side, ops.concatenate([real, fake])))
                losses.append(self.objective.discriminator(real_logits, fake_logits, 0.0))
            loss = self.scales[1] * (losses[0] + losses[1])
            whole = loss + self.penalties("discriminator")
        self.minimize("discriminator", whole, tape)
        return loss / 2


def _halves(batch: Any) -> tuple[Any, Any]:
    count = ops.shape(batch)[0] // 2
    return batch[:count], batch[count:]


def _distance(first: Any, second: Any) -> Any:
    return ops.mean(ops.abs(first - second))
