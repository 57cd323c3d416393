"""What an exported generator is compared on: latents and noise that are drawn, images that are translated."""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from dlcli.data.load import load_splits
from dlcli.errors import DataError, DlcliError
from dlcli.export.exportable import DRAWN_KINDS
from dlcli.export.format import Exportable, Inputs
from dlcli.export.samples import CALIBRATION, COUNT, LARGEST_OUTPUTS, RunData, Samples
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.recipe.schema import Recipe

RANDOM = "random"
"""In the place of a split: inputs that are drawn, not read."""

SEED, CALIBRATION_SEED = 0, 1
LOG_SNR = (-10.0, 10.0)
"""Of noisy images: from nearly nothing but noise to nearly none."""


class ComparedData(Protocol):
    """Where examples come from."""

    @property
    def task(self) -> Any:
        """The run's task on these data; asked for texts alone."""

    def samples(self, count: int = COUNT) -> Samples:
        """Examples to compare with."""

    def calibration(self, count: int = CALIBRATION) -> Inputs:
        """Examples from which int8 learns the ranges of its numbers."""


def compared_data(recipe: Recipe, item: Exportable) -> ComparedData:
    """The data of a run, or what stands in their place for models that draw.

    Raises:
        DlcliError: the data are gone or cannot be read, or are not of the kind that the model takes.
    """
    if item.kind in DRAWN_KINDS:
        return DrawnInputs(item)
    return TranslatedImages(recipe, item) if item.target == "images" else RunData(recipe, item)


class DrawnInputs:
    """Latents, noise and labels: no data are needed.

    Args:
        item: a model that draws.
    """

    task = None

    def __init__(self, item: Exportable) -> None:
        self._item = item

    def samples(self, count: int = COUNT) -> Samples:
        """Inputs as `dlcli generate` would draw them; labels in turn."""
        return _samples(RANDOM, self._drawn(_affordable(self._item, count), SEED))

    def calibration(self, count: int = CALIBRATION) -> Inputs:
        """Other ones."""
        return self._drawn(count, CALIBRATION_SEED)

    def _drawn(self, count: int, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        drawn: dict[str, np.ndarray] = {}
        for each in self._item.inputs:
            if each.name == "labels":
                drawn[each.name] = (np.arange(count) % len(self._item.classes)).astype(np.int32)
            elif each.name == "log_snr":
                drawn[each.name] = random.permutation(np.linspace(*LOG_SNR, count)).astype(np.float32)
            else:
                sides = [side or 1 for side in each.shape]
                drawn[each.name] = random.standard_normal((count, *sides), np.float32)
        return drawn


class TranslatedImages:
    """Images that a translation reads: those of A, or the sources of pairs.

    Args:
        recipe: the run's, perhaps with another `dataset.path`.
        item: of the same run.

    Raises:
        DlcliError: the data are gone or cannot be read, or are of another size.
    """

    task = None

    def __init__(self, recipe: Recipe, item: Exportable) -> None:
        self._item = item
        try:
            self._source = load_splits(recipe)
        except DlcliError as error:
            raise DlcliError(
                "an export is compared with the model on real images, and the run's data cannot be read: "
                f"{error}\nsay where they are: --set dataset.path=..."
            ) from error

    def samples(self, count: int = COUNT) -> Samples:
        """Images of the validation split, else of test, else of train, spread over the split."""
        source = self._source
        splits = {"validation": source.validation, "test": source.test, "train": source.train}
        split, examples = next((name, part) for name, part in splits.items() if part is not None)
        return _samples(split, self._read(examples, _affordable(self._item, count)))

    def calibration(self, count: int = CALIBRATION) -> Inputs:
        """Train images."""
        return self._read(self._source.train, count)

    def _read(self, examples: Any, count: int) -> dict[str, np.ndarray]:
        places = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(np.int64))
        found = examples.read(tf.constant(places))
        (given,) = self._item.inputs
        pixels = np.asarray(found["a"] if "a" in found else found["source"])
        if pixels.shape[1:] != given.shape:
            raise DataError(
                f"these images are {pixels.shape[1:]}, and the model takes {given.shape}: it was trained on others"
            )
        return {given.name: pixels}


def _samples(split: str, inputs: Inputs) -> Samples:
    return Samples(split, inputs, inputs, None, None)


def _affordable(item: Exportable, count: int) -> int:
    """How many examples have outputs that fit into memory."""
    shape = [side or 1 for side in item.model.output_shape[1:]]
    return max(8, min(count, LARGEST_OUTPUTS // max(1, int(np.prod(shape)))))


def sampling(model: keras.Model) -> dict[str, Any] | None:
    """How a denoiser is to be used, for the manifest; None for another model."""
    last = model.layers[-1]
    if not isinstance(last, NoisePrediction):
        return None
    from dlcli.evaluation.samples.ddim import step_levels

    levels = step_levels(last.noise_schedule, last.sampling_steps)
    return {
        "method": "ddim",
        "prediction": last.prediction,
        "guidance": last.guidance if last.class_names else None,
        "log_snr": [float(level) for level in levels],
    }


def expected_picture(item: Exportable, samples: Samples, index: int, outputs: np.ndarray) -> np.ndarray:
    """What example.py should draw for example `index`: uint8 (H, W, C).

    Args:
        item: a model of images.
        samples: of which one is shown.
        index: which.
        outputs: of the artefact for it, (H, W, C).
    """
    from dlcli.evaluation.samples.sampling import as_pixels

    if item.kind != "noise":
        return as_pixels(outputs)
    from dlcli.evaluation.samples.ddim import sample_images

    labels = samples.inputs.get("labels")
    chosen = None if labels is None else labels[index : index + 1]
    noise = samples.inputs["images"][index : index + 1]
    return sample_images(item.model, 1, SEED, chosen, noise)[0]


def unlike_picture(path: Any, expected: np.ndarray, levels: float) -> str | None:
    """What is wrong with the picture that example.py wrote; None when nothing is.

    Args:
        path: of the picture.
        expected: uint8 (H, W, C).
        levels: mean difference that is allowed, of 255.
    """
    if not path.is_file():
        return f"it wrote no {path.name}"
    with Image.open(path, formats=("PNG",)) as picture:
        found = np.asarray(picture, np.float64).reshape(picture.height, picture.width, -1)
    if found.shape != expected.shape:
        return f"{path.name} is {found.shape}, and {expected.shape} was expected"
    difference = float(np.abs(found - expected).mean())
    return (
        None if difference <= levels else f"{path.name} is another image: {difference:.1f} gray levels apart"
    )
