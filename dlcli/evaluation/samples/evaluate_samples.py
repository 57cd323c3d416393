"""Samples beside real images: distances and what goes with them, diversity, copies of train images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli.console import Counting, note
from dlcli.data.examples import Examples
from dlcli.evaluation.samples.comparison import DIVERSITY_IMAGES, FEWEST, compare, diversity, judged
from dlcli.evaluation.samples.distances import quick_products
from dlcli.evaluation.samples.grid import Grid, write_grid
from dlcli.evaluation.samples.image_features import (
    Described,
    FeatureNetwork,
    find_network,
    images_at,
    some_images,
)
from dlcli.evaluation.samples.nearest import Nearest, nearest_images
from dlcli.evaluation.samples.sampling import class_names, labels_in_turn

SEED = 1_000_003
"""Of the samples: another one than a training's, whose samples may have chosen the epoch that is kept."""
CHUNK = 1_000
"""Samples that are in memory at once."""
SHOWN = 10
"""Columns of a picture, where classes do not say how many."""
COMPARED = 100
"""Samples, and real images, of which the nearest train images are looked for."""
NO_FEATURES = (
    "no distances: they need the features of a network. Name a run of task image_classification that was trained on "
    "such images, or imagenet: dlcli evaluate RUN --set metrics.features=runs/CLASSIFIER"
)


def evaluate_samples(
    task: Any, predictor: keras.Model, examples: Examples, split: str, plots: Path
) -> dict[str, Any]:
    """Draws as many images as there are real ones (`metrics.samples` at most), and compares.

    Args:
        task: a `GenerativeTask`: `measures` says what to measure, `train_images` what its networks have seen.
        predictor: the kept model.
        examples: real images.
        split: of them.
        plots: the folder of pictures.

    Returns:
        The form of metrics.json. `floor` holds the same measures of train images in the place of samples.
    """
    count = min(task.measures.samples, len(examples))
    source = task.measures.features if count >= FEWEST else None
    network = find_network(source) if source else None
    if network is None:
        count = min(count, DIVERSITY_IMAGES)
    labels = labels_in_turn(predictor, count)
    with Counting(f"samples of {task.name}", "images", count) as progress:
        kept: list[np.ndarray] = []
        drawn = _in_chunks(task, predictor, count, labels, kept, progress)
        described = _described(network, drawn)
    chosen = some_images(examples, count)
    samples = kept[0]
    # Folders come sorted by class, so that the first images are all alike.
    shown = np.random.default_rng(SEED).permutation(chosen)[:CHUNK]
    real = np.concatenate(list(images_at(examples, shown)))
    report: dict[str, Any] = {"split": split, "examples": count, "metrics": {}, "intervals": {}}
    if network is not None and described is not None:
        wanted = None if labels is None else (labels, class_names(predictor))
        report |= _measured(network, described, examples, chosen, wanted, _floor_images(task, split))
    else:
        few = (
            f"no distances: {count} real images are too few, they take {FEWEST}"
            if task.measures.features
            else ""
        )
        report["note"] = few or NO_FEATURES
        note(report["note"])
    if count > 1:
        both = {"samples": diversity(samples), "real": diversity(real)}
        report["diversity"] = both
        if both["real"] > 0:
            report["metrics"]["diversity"] = both["samples"] / both["real"]
    _draw_samples(samples, real, labels, class_names(predictor), plots / f"{split}_samples.png")
    if task.train_images is not None:
        report["nearest_train_image"] = _look_for_copies(task, samples, real, split, plots)
    return report


def _in_chunks(
    task: Any,
    predictor: keras.Model,
    count: int,
    labels: np.ndarray | None,
    kept: list[np.ndarray],
    progress: Counting,
) -> Iterator[np.ndarray]:
    """Samples, uint8 (B, H, W, C); the first ones are kept."""
    for number, start in enumerate(range(0, count, CHUNK)):
        size = min(CHUNK, count - start)
        part = None if labels is None else labels[start : start + size]
        images = task.draw(predictor, size, SEED + number, part)
        progress.add(len(images))
        if not kept:
            kept.append(images)
        yield images


def _described(network: FeatureNetwork | None, images: Iterator[np.ndarray]) -> Described | None:
    if network is None:
        next(images)
        return None
    return network.describe(images)


def _floor_images(task: Any, split: str) -> Examples | None:
    """Train images, unless the split is theirs."""
    train: Examples | None = task.train_images
    return None if split == "train" or train is None or len(train) < FEWEST else train


def _measured(
    network: FeatureNetwork,
    drawn: Described,
    examples: Examples,
    chosen: np.ndarray,
    wanted: tuple[np.ndarray, tuple[str, ...]] | None,
    train: Examples | None,
) -> dict[str, Any]:
    """All that depends on features."""
    with Counting("measuring", "real images", len(chosen)) as progress:
        real = network.describe(_counted(images_at(examples, chosen), progress))
        beside, of = _floor(network, real, train)
        found, said = compare(real, drawn), judged(network, drawn, wanted)
        floor = compare(*beside, intervals=False)
    of_real = judged(network, real, None)
    return {
        "metrics": {**found.metrics, **said.metrics},
        "intervals": {**found.intervals, **said.intervals},
        "floor": {"of": of, **floor.metrics, **of_real.metrics},
        "features": about(network, tuple(examples.read(chosen[:1]).shape[1:])),
        **found.details,
        **said.details,
        **{f"{name}_real": value for name, value in of_real.details.items()},
    }


def _floor(
    network: FeatureNetwork, real: Described, train: Examples | None
) -> tuple[tuple[Described, Described], str]:
    """Two sets of real images: what no generator can be expected to beat."""
    count = len(real.features)
    if train is not None:
        seen = network.describe(images_at(train, some_images(train, count)))
        images = "train images" if len(seen.features) == count else f"{len(seen.features):,} train images"
        return (real, seen), images
    order = np.random.default_rng(0).permutation(count)
    halves = [Described(real.features[half], None) for half in (order[: count // 2], order[count // 2 :])]
    return (halves[0], halves[1]), "two halves of the real images"


def compare_images(
    source: str, real: Iterable[np.ndarray], drawn: Iterable[np.ndarray], image_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Distances between two sets of images, for tasks that draw from other images.

    Args:
        source: as `metrics.features` names it.
        real: uint8 (B, H, W, C) each, ten images or more.
        drawn: the same.
        image_shape: (H, W, C).

    Returns:
        `metrics`, `intervals`, `features` and details, for a report.
    """
    network = find_network(source)
    found = compare(network.describe(real), network.describe(drawn))
    return {
        "metrics": found.metrics,
        "intervals": found.intervals,
        "features": about(network, image_shape),
        **found.details,
    }


def about(network: FeatureNetwork, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Whose features they are, for a report: distances in other features are other numbers."""
    width = network.model.outputs[0].shape[-1]
    found: dict[str, Any] = {"source": network.source, "dimension": width}
    if network.is_imagenet:
        found["network"] = "Inception v3 with Keras's ImageNet weights"
        found["note"] = "the Fréchet distance is near what papers call FID, whose weights are another export"
    else:
        found["network"] = "the user's own classifier, before its output layer"
        found["note"] = "not the FID of papers: compare it with distances in these same features alone"
    if (changes := network.changes(image_shape)) is not None:
        found["images"] = changes
        note(f"images are {changes} for the features of {network.source}")
    return found


def _counted(batches: Iterator[np.ndarray], progress: Counting) -> Iterator[np.ndarray]:
    for batch in batches:
        progress.add(len(batch))
        yield batch


def _draw_samples(
    samples: np.ndarray, real: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...], path: Path
) -> None:
    """Five rows of samples, then five of real images; of few classes, each has a column of the samples."""
    columns = len(names) if labels is not None and len(names) <= 2 * SHOWN else SHOWN
    rows = min(5, len(samples) // columns, len(real) // columns)
    if not rows:
        return
    images = np.concatenate([samples[: rows * columns], real[: rows * columns]])
    sides = ["drawn"] * rows + ["real"] * rows
    path.parent.mkdir(parents=True, exist_ok=True)
    write_grid(Grid(images, columns, sides), path)


def _look_for_copies(
    task: Any, samples: np.ndarray, real: np.ndarray, split: str, plots: Path
) -> dict[str, float]:
    """A picture of samples above their nearest train images, and how far those are, beside real images."""
    with quick_products(1):
        found = nearest_images(samples[:COMPARED], task.train_images)
        held_out = None if split == "train" else nearest_images(real[:COMPARED], task.train_images)
    _draw_pairs(samples, found, plots / f"{split}_nearest_train_images.png")
    report = {"samples": float(np.median(found.distances))}
    return report if held_out is None else {**report, "real": float(np.median(held_out.distances))}


def _draw_pairs(samples: np.ndarray, found: Nearest, path: Path) -> None:
    columns = min(SHOWN, len(found.images))
    rows = min(3, len(found.images) // columns)
    parts = [
        images[row * columns : (row + 1) * columns]
        for row in range(rows)
        for images in (samples, found.images)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_grid(Grid(np.concatenate(parts), columns, ["drawn", "nearest in train"] * rows), path)
