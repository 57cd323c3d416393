"""Autoencoding: images into few numbers and back, so that new numbers draw new images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.draws import variational_draws
from dlcli.data.examples import DataInfo
from dlcli.errors import DlcliError
from dlcli.layers.pixel_scale import PixelScale
from dlcli.recipe.arguments import Annotated, Count, Field, Weight
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask, Networks, image_model, raw_images
from dlcli.training.steps.likelihoods import LIKELIHOODS
from dlcli.training.steps.variational import VariationalTrainer

Scale = Annotated[float, Field(gt=0, le=1000)]


class Autoencoding(GenerativeTask):
    """A variational autoencoder's loss. Kingma and Welling 2014, "Auto-Encoding Variational Bayes".

    Args:
        likelihood: of a pixel given the latents. `bernoulli`: black or white; gray levels are the probabilities that
            white is drawn with in each step, so that the score is of black and white images. `gaussian`: of levels
            with uniform noise added. `discretized_logistic`: of the 256 levels themselves.
        scale: standard deviation (gaussian) or scale (discretized_logistic) of all pixels, in gray levels of 0 to
            255; learnt when left out.
        beta: weight of the KL divergence (Higgins et al. 2017); with another than 1 the loss is no bound on the
            likelihood, and evaluation reports the bound all the same.
        warmup_epochs: passes over the data in which that weight rises to beta, so that the latents are used.
    """

    name: ClassVar[str] = "autoencoding"
    validates = True
    evaluated_with: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        likelihood: Literal["bernoulli", "gaussian", "discretized_logistic"] = "discretized_logistic",
        scale: Scale | None = None,
        beta: Weight = 1.0,
        warmup_epochs: Count = 0,
    ) -> None:
        super().__init__(info)
        self.likelihood = likelihood
        self.scale = scale
        self.beta = beta
        self.warmup_epochs = warmup_epochs
        self._latent_dimension = 0
        self._decoder: keras.Model | None = None

    def trainer(self, networks: Networks, recipe: Recipe) -> VariationalTrainer:
        """Encoder and decoder with one loss; a scale that is learnt is a weight of the decoder."""
        encoder, decoder = networks["encoder"], networks["decoder"]
        self._latent_dimension = int(decoder.input.shape[-1])
        log_scale: Any = math.log(self.scale) if self.scale is not None else 0.0
        if LIKELIHOODS[self.likelihood].has_scale and self.scale is None:
            images = PixelScale(name="pixel_scale")(decoder.output)
            decoder = keras.Model(decoder.input, images, name="decoder")
            log_scale = decoder.get_layer("pixel_scale").log_scale
        self._decoder = decoder
        return VariationalTrainer(
            encoder, decoder, likelihood=self.likelihood, log_scale=log_scale, beta=self.beta
        )

    def kept(self, networks: Networks) -> dict[str, keras.Model]:
        """The decoder draws; the encoder gives the means and log variances of raw images."""
        raw, pixels = raw_images(self.info.input_shape)
        encoder = keras.Model(raw, networks["encoder"](pixels), name="encoder")
        return {"model": image_model(self._decoder or networks["decoder"]), "encoder": encoder}

    def corrupt(self) -> Augment:
        """Noise of the latents, and of the pixels where the likelihood wants it."""
        return variational_draws(
            latent_dimension=self._latent_dimension,
            pixels=LIKELIHOODS[self.likelihood].pixels,
            warmup_epochs=self.warmup_epochs,
        )

    def measure_split(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """The bound on the likelihood of images, and their reconstructions."""
        from dlcli.evaluation.samples.elbo import evaluate_elbo

        encoder = self.parts.get("encoder")
        if encoder is None:  # a report without the bound would take the place of one with it
            raise DlcliError(
                "encoder.keras, which codes the images, is missing; put a copy back, or train anew"
            )
        return evaluate_elbo(
            encoder,
            predictor,
            examples,
            likelihood=self.likelihood,
            scale=self.scale,
            plots=plots,
            split=split,
        )
