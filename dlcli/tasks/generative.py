"""What the tasks that draw images have in common: named networks, a `Trainer` around them, samples of the result.

An architecture of `dlcli.architectures.GENERATIVE` is `build(inputs, num_classes, *, ...) -> {role: network}`:

    images      float32 (B, H, W, C) in [-1, 1], as `inputs` is
    num_classes 0 for networks that know no labels

    task                roles (input names -> output)
    gan                 generator: latents (B, Z)[, labels (B,)] -> images
                        discriminator: images[, labels] -> logits (B, 1)
    image_translation   cycle_gan: a_to_b, b_to_a: images -> images
                        discriminator_a, discriminator_b: images -> logits (B, h, w, 1)
                        pix2pix: generator: images -> images; discriminator: {source, images} -> (B, h, w, 1)
    autoencoding        encoder: images -> (B, 2 Z), means and log variances; decoder: latents (B, Z) -> images
    diffusion           denoiser: {images, log_snr (B,)[, labels]} -> (B, H, W, C)

A network with one input takes a tensor, with several a dict by these names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from dlcli.data.examples import Examples
from dlcli.errors import DataError
from dlcli.layers.generated_images import GeneratedImages
from dlcli.recipe.schema import Metrics, Recipe
from dlcli.tasks.task import Task
from dlcli.training.steps.trainer import Trainer

Networks = Mapping[str, keras.Model]
"""Role -> network."""


class GenerativeTask(Task):
    """Learns to draw images.

    Args:
        info: of the data: images.
        conditional: whether the networks are told the class of each image.
    """

    validates = False
    head = ()
    whole_batches = True
    evaluated_with: ClassVar[tuple[str, ...]] = ()
    """Names of the parts that evaluation needs beside the model."""

    def __init__(self, info: Any, conditional: bool = False) -> None:
        super().__init__(info)
        if conditional and (info.target != "classes" or len(info.class_names) < 2):
            raise DataError(
                "task.conditional needs images of two or more classes, one for each image; this data set has "
                f"{len(info.class_names)}: use class folders, or leave it out"
            )
        self.conditional = conditional
        self.measures = Metrics()
        self.parts: dict[str, keras.Model] = {}
        self.train_images: Examples | None = None
        """What its networks learn from, to compare samples with; None where nobody gave it."""

    @property
    def num_conditions(self) -> int:
        """Classes that the networks are told of; 0 for none."""
        return len(self.info.class_names) if self.conditional else 0

    @abstractmethod
    def trainer(self, networks: Networks, recipe: Recipe) -> Trainer:
        """The model that `fit` trains; it reads what `corrupt` makes of each batch."""

    @abstractmethod
    def kept(self, networks: Networks) -> dict[str, keras.Model]:
        """File name -> what a run keeps: `model`, which draws, and what evaluation needs beside it."""

    def draw(self, model: keras.Model, count: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
        """Samples of a kept model: uint8 (N, H, W, C); `labels` (N,) for a conditional one, else in turn."""
        from dlcli.evaluation.samples.sampling import draw_images

        return draw_images(model, count, seed, labels)

    def preview(self, model: keras.Model, real: Examples, seed: int) -> tuple[Any, ...]:
        """What the picture of each epoch shows, a function of the weights and the seed.

        Args:
            model: the kept model.
            real: validation examples, else train examples: for tasks that change images.
            seed: of the draws.

        Returns:
            The fields of a `Grid` of `evaluation/samples/grid.py`: images uint8 (N, H, W, C), columns[, row names[,
            column names]].
        """
        from dlcli.evaluation.samples.sampling import preview

        return preview(model, seed)

    def monitored(self, recipe: Recipe, validation: bool) -> tuple[str | None, str]:
        """Key of an epoch's logs that decides which epoch is best (None: the last one), and `min` or `max`.

        Raises:
            DlcliError: the recipe names something that is not measured.
        """
        from dlcli.training.sample_metrics import monitored

        return monitored(recipe, self.validates and validation)

    def measure_split(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """What a task measures on real images beside the comparison with samples: parts of metrics.json."""
        return {}

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """What the task measures of its own, then samples beside real images."""
        from dlcli.evaluation.samples.evaluate_samples import evaluate_samples

        own = self.measure_split(predictor, examples, split, plots)
        report = evaluate_samples(self, predictor, examples, split, plots)
        both = {part: {**own.pop(part, {}), **report[part]} for part in ("metrics", "intervals")}
        return {**report, **both, **own}


def raw_images(image_shape: tuple[int, ...]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a kept model that reads images, uint8 (B, H, W, C), and what a network reads of it, in [-1, 1]."""
    raw = keras.Input(image_shape, dtype="uint8", name="image")
    return raw, keras.layers.Rescaling(1 / 127.5, -1, dtype="float32", name="rescale")(raw)


def judging_model(network: keras.Model, image_shape: tuple[int, ...]) -> keras.Model:
    """A network that reads images in [-1, 1] -> one that reads raw ones, uint8; labels pass through."""
    raw, pixels = raw_images(image_shape)
    if not isinstance(network.input, dict):
        return keras.Model(raw, network(pixels), name="discriminator")
    labels = keras.Input((), dtype="int32", name="labels")
    return keras.Model(
        {"image": raw, "labels": labels}, network({"images": pixels, "labels": labels}), name="discriminator"
    )


def image_model(
    network: keras.Model, class_names: tuple[str, ...] = (), name: str = "predictor"
) -> keras.Model:
    """A network that draws in [-1, 1] -> the saved model, which draws in [0, 1] and knows the classes' names."""
    images = GeneratedImages(class_names, name="generated_images")(network.output)
    return keras.Model(network.input, images, name=name)
