"""Translated images: how far they are from what they should be, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.console import Counting, warn
from dlcli.data.examples import Examples
from dlcli.data.image_pairs import PairExamples
from dlcli.data.unpaired_images import UnpairedExamples
from dlcli.errors import DlcliError
from dlcli.evaluation.intervals import percentiles, resampled_means
from dlcli.evaluation.samples.evaluate_samples import compare_images
from dlcli.evaluation.samples.grid import Grid, write_grid
from dlcli.evaluation.samples.image_features import some_images
from dlcli.evaluation.samples.sampling import as_pixels

if TYPE_CHECKING:
    from dlcli.tasks.image_translation import ImageTranslation

BATCH_SIZE = 16
PREVIEW_ROWS, PICTURE_ROWS = 4, 8
FEWEST_FOR_DISTANCES = 10
"""Images on each side."""
PAIRED_COLUMNS = ("source", "drawn", "target")
UNPAIRED_COLUMNS = ("A", "A to B", "and back", "B", "B to A", "and back")
LEVELS_TO_SIGNED = 2 / 255
"""Losses are of values in [-1, 1], as in training."""


def translate(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> uint8, through a kept model, batch by batch."""
    compiled = _compiled(model)
    parts = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    return np.concatenate([as_pixels(compiled(tf.constant(part)).numpy()) for part in parts])


def reverse_model(parts: Mapping[str, keras.Model]) -> keras.Model:
    """The model that translates B into A.

    Raises:
        DlcliError: nobody gave it.
    """
    if "b_to_a" not in parts:
        raise DlcliError(
            "b_to_a.keras, the model that translates back, is missing; put a copy back, or train anew"
        )
    return parts["b_to_a"]


def preview(task: ImageTranslation, model: keras.Model, real: Examples, seed: int) -> Grid:
    """Rows of images and what becomes of them, always of the same images."""
    return _picture(task, model, real, PREVIEW_ROWS, seed)


def evaluate_translation(
    task: ImageTranslation, predictor: keras.Model, examples: Examples, split: str, plots: Path
) -> dict[str, Any]:
    """Mean absolute differences on all images, with intervals; distances where the recipe names features.

    Args:
        task: with the other kept models in `parts`.
        predictor: A -> B, or source -> target.
        examples: raw pairs, or two sets of images.
        split: for the report.
        plots: `SPLIT_translations.png` goes there.

    Returns:
        The form of metrics.json. Differences are of values in [-1, 1]; `reconstruction_loss` from the right image,
        `cycle_loss` from the image that was translated there and back, `identity_loss` from the image of the kind that
        the model draws.
    """
    write_grid(_picture(task, predictor, examples, PICTURE_ROWS, 0), plots / f"{split}_translations.png")
    if isinstance(examples, PairExamples):
        values, drawn, wanted = _of_pairs(predictor, examples, task.measures.samples)
        sources = None
    elif isinstance(examples, UnpairedExamples):
        values, drawn, wanted, sources = _of_sets(
            predictor, reverse_model(task.parts), examples, task.measures.samples
        )
    else:
        raise ValueError(f"Expected pairs or two sets of images. Received: {type(examples).__name__}")
    generator = np.random.default_rng(0)
    report: dict[str, Any] = {
        "split": split,
        "examples": len(drawn) if sources is None else len(wanted) + len(sources),
        "metrics": {name: float(each.mean()) for name, each in values.items()},
        "intervals": {
            name: percentiles(resampled_means(each[:, None], generator)[:, 0])
            for name, each in values.items()
        },
    }
    if task.measures.features:
        found = _distances(task.measures.features, wanted, drawn, sources)
        for part in ("metrics", "intervals"):
            report[part] |= found.pop(part, {})
        report |= found
    return report


def _of_pairs(
    model: keras.Model, examples: PairExamples, most: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Per-pair differences, drawn images and the right ones."""
    differences, squares, drawn, wanted = [], [], [], []
    with Counting("translating", "images", min(len(examples), most)) as progress:
        for batch in _batches(examples, most):
            drawn.append(translate(model, batch["source"]))
            wanted.append(batch["target"])
            gap = (drawn[-1].astype(np.float32) - wanted[-1]) / 255
            differences.append(2 * np.abs(gap).mean(axis=(1, 2, 3)))
            squares.append(np.square(gap).mean(axis=(1, 2, 3)))
            progress.add(len(gap))
    # The difference of one level in one pixel bounds what equal images would have: no end.
    ratio = -10 * np.log10(np.maximum(np.concatenate(squares), 1 / 255**2 / drawn[0][0].size))
    values = {"reconstruction_loss": np.concatenate(differences), "psnr": ratio}
    return values, np.concatenate(drawn), np.concatenate(wanted)


def _of_sets(
    forward: keras.Model, backward: keras.Model, examples: UnpairedExamples, most: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Per-image differences of both sets, drawn images of B, real ones of B and of A."""
    values: dict[str, np.ndarray] = {}
    sides = (("a", examples.a, forward, backward), ("b", examples.b, backward, forward))
    real, drawn = {}, {}
    total = sum(min(len(side), most) for _, side, _, _ in sides)
    with Counting("translating", "images", total) as progress:
        for name, side, there, back in sides:
            cycles, identities, originals, translations = [], [], [], []
            for images in _batches(side, most):
                translated = translate(there, images)
                cycles.append(_difference(translate(back, translated), images))
                identities.append(_difference(translate(back, images), images))
                originals.append(images)
                translations.append(translated)
                progress.add(len(images))
            values[f"cycle_loss_{name}"] = np.concatenate(cycles)
            values[f"identity_loss_{name}"] = np.concatenate(identities)
            real[name], drawn[name] = np.concatenate(originals), np.concatenate(translations)
    return values, drawn["a"], real["b"], real["a"]


def _distances(
    source: str, real: np.ndarray, drawn: np.ndarray, originals: np.ndarray | None
) -> dict[str, Any]:
    """Parts of a report: translations beside real images of their kind, and the images that were not translated."""
    if min(len(real), len(drawn)) < FEWEST_FOR_DISTANCES:
        warn(
            f"metrics.features: distances need {FEWEST_FOR_DISTANCES} images or more on each side; they are left out"
        )
        return {}
    shape = real.shape[1:]
    found = compare_images(source, [real], [drawn], shape)
    if originals is not None:
        found["floor"] = {
            "of": "not translated",
            **compare_images(source, [real], [originals], shape)["metrics"],
        }
    return found


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    gap = np.abs(first.astype(np.float32) - second)
    return LEVELS_TO_SIGNED * gap.mean(axis=(1, 2, 3))


def _batches(examples: Examples, most: int) -> Iterator[Any]:
    """Images of at most `most` examples, drawn at random, as arrays."""
    chosen = some_images(examples, most)
    for start in range(0, len(chosen), BATCH_SIZE):
        yield _read(examples, chosen[start : start + BATCH_SIZE])


def _read(examples: Examples, indices: np.ndarray) -> Any:
    return keras.tree.map_structure(np.asarray, examples.read(tf.constant(indices)))


def _picture(task: ImageTranslation, model: keras.Model, real: Examples, rows: int, seed: int) -> Grid:
    if isinstance(real, PairExamples):
        batch = _read(real, some_images(real, rows, seed))
        columns = [batch["source"], translate(model, batch["source"]), batch["target"]]
        return _rows_of(columns, PAIRED_COLUMNS)
    if not isinstance(real, UnpairedExamples):
        raise ValueError(f"Expected pairs or two sets of images. Received: {type(real).__name__}")
    back = reverse_model(task.parts)
    count = min(rows, len(real.a), len(real.b))
    columns = []
    for side, first, second in ((real.a, model, back), (real.b, back, model)):
        images = _read(side, some_images(side, count, seed))
        translated = translate(first, images)
        columns += [images, translated, translate(second, translated)]
    return _rows_of(columns, UNPAIRED_COLUMNS)


def _rows_of(columns: list[np.ndarray], names: tuple[str, ...]) -> Grid:
    images = np.stack(columns, axis=1)  # (rows, columns, H, W, C)
    return Grid(images.reshape(-1, *images.shape[2:]), len(columns), column_names=names)


def _compiled(model: keras.Model) -> Callable[[Any], tf.Tensor]:
    """Kept with the model, since tracing takes a second and `model.predict` 50 ms a call."""
    found = getattr(model, "_dlcli_translate", None)
    if found is None:
        found = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        model._dlcli_translate = found
    return found
