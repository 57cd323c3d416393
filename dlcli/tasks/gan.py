"""Adversarial learning: a generator draws images that a discriminator takes for real ones."""

from __future__ import annotations

from typing import ClassVar, Literal

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.draws import adversarial_draws
from dlcli.data.examples import DataInfo
from dlcli.recipe.arguments import Annotated, Field, Positive, Sequence, Weight
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask, Networks, image_model, judging_model
from dlcli.training.steps.adversarial import AdversarialTrainer

CriticSteps = Annotated[int, Field(ge=1, le=100)]
Policy = Literal["color", "translation", "cutout"]


class Gan(GenerativeTask):
    """Two networks against each other. Goodfellow et al. 2014, "Generative Adversarial Nets".

    Optimizers and the defaults of some arguments depend on the objective; `dlcli.recipe.generative` holds them.

    Args:
        objective: `standard` (non-saturating), `least_squares`, `hinge`, `wasserstein` (with clipped weights) or
            `wasserstein_gp` (with the gradient penalty).
        critic_steps: updates of the discriminator for each one of the generator; 5 for wasserstein and
            wasserstein_gp, else 1.
        gradient_penalty: weight of the penalty on the discriminator's slope between real and drawn images; 10 for
            wasserstein_gp.
        r1: weight of the penalty on the discriminator's slope at real images (Mescheder et al. 2018).
        weight_clip: largest absolute weight of the critic; wasserstein alone, 0.01.
        conditional: whether the networks are told the class of each image, so that one can be asked for.
        differentiable_augmentation: what real and drawn images go through before the discriminator, for small data
            (Zhao et al. 2020): color, translation, cutout.
    """

    name: ClassVar[str] = "gan"

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        objective: Literal[
            "standard", "least_squares", "hinge", "wasserstein", "wasserstein_gp"
        ] = "standard",
        critic_steps: CriticSteps = 1,
        gradient_penalty: Weight = 0.0,
        r1: Weight = 0.0,
        weight_clip: Positive | None = None,
        conditional: bool = False,
        differentiable_augmentation: Sequence[Policy] = (),
    ) -> None:
        super().__init__(info, conditional)
        self.objective = objective
        self.batches_per_step = critic_steps
        self.gradient_penalty = gradient_penalty
        self.r1 = r1
        self.weight_clip = weight_clip
        self.policy = tuple(differentiable_augmentation)
        self._latent_dimension = 0

    def trainer(self, networks: Networks, recipe: Recipe) -> AdversarialTrainer:
        """Both networks in one step."""
        from dlcli.training.steps.differentiable_augmentation import build_differentiable

        inputs = networks["generator"].input
        latents = inputs["latents"] if isinstance(inputs, dict) else inputs
        self._latent_dimension = int(latents.shape[-1])
        if self.weight_clip is not None:
            for weight in networks["discriminator"].trainable_variables:
                weight.constraint = Clip(self.weight_clip)
        return AdversarialTrainer(
            networks["generator"],
            networks["discriminator"],
            objective=self.objective,
            critic_steps=self.batches_per_step,
            gradient_penalty=self.gradient_penalty,
            r1=self.r1,
            label_smoothing=recipe.regularization.label_smoothing,
            augmentation=build_differentiable(self.policy) if self.policy else None,
        )

    def kept(self, networks: Networks) -> dict[str, keras.Model]:
        """The generator draws; the discriminator is kept for who wants its opinion."""
        names = self.info.class_names if self.conditional else ()
        return {
            "model": image_model(networks["generator"], names),
            "discriminator": judging_model(networks["discriminator"], self.info.input_shape),
        }

    def corrupt(self) -> Augment:
        """Latents, and whatever else a step draws."""
        from dlcli.training.steps.differentiable_augmentation import DRAWS

        return adversarial_draws(
            latent_dimension=self._latent_dimension,
            turns=self.batches_per_step,
            labels=self.conditional,
            mix=self.gradient_penalty > 0,
            augmentation=DRAWS if self.policy else 0,
        )


class Clip(keras.constraints.Constraint):
    """Weights within [-limit, limit]: how "Wasserstein GAN" (Arjovsky et al. 2017, algorithm 1) bounds the critic.

    Args:
        limit: largest absolute value.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, weight: keras.KerasTensor) -> keras.KerasTensor:
        """The weight, clipped."""
        return keras.ops.clip(weight, -self.limit, self.limit)
