"""Image translation: an image of one kind becomes one of another, learnt from pairs or from two unpaired sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.draws import translation_draws
from dlcli.data.examples import DataInfo, Examples
from dlcli.errors import DlcliError
from dlcli.layers.generated_images import GeneratedImages
from dlcli.recipe.arguments import Annotated, Field, Weight
from dlcli.recipe.schema import Recipe
from dlcli.tasks.generative import GenerativeTask, Networks, raw_images
from dlcli.training.steps.cycle import CycleTrainer
from dlcli.training.steps.image_buffer import DRAWS
from dlcli.training.steps.paired import PairedTrainer
from dlcli.training.steps.trainer import Trainer

Buffer = Annotated[int, Field(ge=0, le=10_000)]


class ImageTranslation(GenerativeTask):
    """Draws what an image would be as one of another kind. Zhu et al. 2017 (cycle_gan), Isola et al. 2017 (pix2pix).

    `dlcli.recipe.generative` holds each architecture's defaults; what is for the other one is refused.

    Args:
        objective: `least_squares` (cycle_gan's) or `standard` (pix2pix's).
        cycle_weight: of the difference between an image and what comes back of it after both translations; 10 for
            cycle_gan.
        identity_weight: of the difference between an image and its translation into its own kind, which keeps colours;
            5 for cycle_gan, 0 saves a quarter of the time.
        buffer: earlier drawn images that each discriminator goes on to see; 50 for cycle_gan, 0 for none.
        reconstruction_weight: of the mean absolute difference from the right image; 100 for pix2pix.
    """

    name: ClassVar[str] = "image_translation"
    evaluated_with: ClassVar[tuple[str, ...]] = ("b_to_a",)

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        objective: Literal["least_squares", "standard"] = "least_squares",
        cycle_weight: Weight | None = None,
        identity_weight: Weight | None = None,
        buffer: Buffer | None = None,
        reconstruction_weight: Weight | None = None,
    ) -> None:
        super().__init__(info)
        self.objective = objective
        self.cycle_weight = 10.0 if cycle_weight is None else cycle_weight
        self.identity_weight = 5.0 if identity_weight is None else identity_weight
        self.buffer = 50 if buffer is None else buffer
        self.reconstruction_weight = 100.0 if reconstruction_weight is None else reconstruction_weight

    @property
    def paired(self) -> bool:
        """Whether the images belong together two by two."""
        return self.info.kind == "image_pairs"

    def trainer(self, networks: Networks, recipe: Recipe) -> Trainer:
        """All networks in one step.

        Raises:
            DlcliError: the buffer is smaller than a batch.
        """
        if self.paired:
            return PairedTrainer(
                networks, objective=self.objective, reconstruction_weight=self.reconstruction_weight
            )
        batch_size = recipe.training.batch_size
        if 0 < self.buffer < batch_size:
            raise DlcliError(
                f"task.buffer {self.buffer} is smaller than a batch of {batch_size}: give at least {batch_size}, or 0"
            )
        return CycleTrainer(
            networks,
            objective=self.objective,
            cycle_weight=self.cycle_weight,
            identity_weight=self.identity_weight,
            buffer=self.buffer,
        )

    def kept(self, networks: Networks) -> dict[str, keras.Model]:
        """`model` translates raw images, A into B; of cycle_gan `b_to_a` the other way."""
        if self.paired:
            return {"model": translating_model(networks["generator"], self.info.input_shape)}
        return {
            "model": translating_model(networks["a_to_b"], self.info.input_shape),
            "b_to_a": translating_model(networks["b_to_a"], self.info.input_shape),
        }

    def corrupt(self) -> Augment:
        """Pixels in [-1, 1], and the draws of the buffers."""
        return translation_draws(0 if self.paired or not self.buffer else DRAWS)

    def draw(self, model: keras.Model, count: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
        """Nothing is drawn without an image.

        Raises:
            DlcliError: always.
        """
        raise DlcliError(
            "this model changes images and draws none of its own: dlcli generate RUN --input DIR --out DIR"
        )

    def preview(self, model: keras.Model, real: Examples, seed: int) -> tuple[Any, ...]:
        """Rows of an image and its translation; of unpaired images also of B and what becomes of it."""
        from dlcli.evaluation.samples.image_translation import preview

        return preview(self, model, real, seed)

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Differences on all images of a split, and a picture; distances where features are named."""
        from dlcli.evaluation.samples.image_translation import evaluate_translation

        return evaluate_translation(self, predictor, examples, split, plots)


def translating_model(network: keras.Model, image_shape: tuple[int, ...]) -> keras.Model:
    """A network that reads and draws in [-1, 1] -> the saved model: raw images, uint8, -> float32 in [0, 1]."""
    raw, pixels = raw_images(image_shape)
    images = GeneratedImages(name="generated_images")(network(pixels))
    return keras.Model(raw, images, name="predictor")
