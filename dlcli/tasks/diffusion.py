"""Diffusion: noise is taken away step by step until an image is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.draws import diffusion_draws
from dlcli.data.examples import DataInfo
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.recipe.arguments import Annotated, Field, Fraction
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask, Networks
from dlcli.training.steps.denoising import DenoisingTrainer

SamplingSteps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
LABEL_DROPOUT = 0.1
"""Ho and Salimans 2022, section 4.1: 0.1 or 0.2."""


class Diffusion(GenerativeTask):
    """A denoiser of images. Ho et al. 2020, "Denoising Diffusion Probabilistic Models".

    Args:
        prediction: what the network says of a noisy image: its noise (Ho et al. 2020), or its velocity, a mixture of
            noise and image that is as hard at every noise level (Salimans and Ho 2022).
        noise_schedule: `cosine` (Nichol and Dhariwal 2021) or `linear` (Ho et al. 2020).
        conditional: whether the network is told the class of each image, so that one can be asked for.
        label_dropout: share of images shown without their class, so that one network learns both, which guidance
            needs (Ho and Salimans 2022); 0.1 for a conditional one when left out.
        guidance: how far samples go towards their class: away from what the network says without it; 1 for no further
            than the network says with it, 0 for no class at all.
        sampling_steps: from noise to image, by DDIM (Song et al. 2021); fewer are faster and worse.
    """

    name: ClassVar[str] = "diffusion"
    validates = True

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        prediction: Literal["velocity", "noise"] = "velocity",
        noise_schedule: Literal["cosine", "linear"] = "cosine",
        conditional: bool = False,
        label_dropout: Fraction | None = None,
        guidance: Guidance = 1.0,
        sampling_steps: SamplingSteps = 50,
    ) -> None:
        super().__init__(info, conditional)
        self.prediction = prediction
        self.noise_schedule = noise_schedule
        self.label_dropout = LABEL_DROPOUT if label_dropout is None else label_dropout
        self.guidance = guidance
        self.sampling_steps = sampling_steps

    def trainer(self, networks: Networks, recipe: Recipe) -> DenoisingTrainer:
        """One network."""
        return DenoisingTrainer(
            networks["denoiser"], prediction=self.prediction, noise_schedule=self.noise_schedule
        )

    def kept(self, networks: Networks) -> dict[str, keras.Model]:
        """The denoiser: noisy images in [-1, 1] and their noise level in, its prediction out."""
        network = networks["denoiser"]
        last = NoisePrediction(
            self.info.class_names if self.conditional else (),
            self.prediction,
            self.noise_schedule,
            self.sampling_steps,
            self.guidance,
            name="noise_prediction",
        )
        return {"model": keras.Model(network.input, last(network.output), name="predictor")}

    def corrupt(self) -> Augment:
        """Times, noise, and which images go without their label."""
        return diffusion_draws(classes=self.num_conditions, label_dropout=self.label_dropout)

    def draw(self, model: keras.Model, count: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
        """Samples of a kept denoiser by DDIM: uint8 (N, H, W, C)."""
        from dlcli.evaluation.samples.ddim import sample_images

        return sample_images(model, count, seed, labels)

    def preview(self, model: keras.Model, real: Any, seed: int) -> tuple[Any, ...]:
        """Samples; of a conditional model a row for each class, the same noise in all rows."""
        from dlcli.evaluation.samples.ddim import preview

        return preview(model, seed)

    def measure_split(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """How well noise of held-out images is told."""
        from dlcli.evaluation.samples.denoising_loss import evaluate_denoising

        return evaluate_denoising(predictor, examples, self.corrupt())
