"""Images a second of `dlcli train` against the same model, batch and data in a hand-written `model.fit` on arrays.

Both alternate within one process, so that a noisy machine slows both; the figure is the median of the ratios.
Run: make bench
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples, DataInfo, Source
from dlcli.data.images import image_preprocessing
from dlcli.recipe.load import load_recipe
from dlcli.training import job as training
from dlcli.training.callbacks import History, StopOnNaN, StopOnSignal
from dlcli.training.progress import TrainingProgress

ROUNDS = 5
CASES = [
    ("cnn", 32, 12_800),
    ("cnn", 128, 25_600),
    ("resnet20", 128, 2_560),
]
TUTORIAL = "architecture={name: cnn, filters: [32, 64, 64], dense: [64], padding: valid, normalization: none}"
RESNET = "architecture={name: resnet, depth: 20}"


def synthetic(images: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8), random.integers(
        0, 10, images
    ).astype("int32")


def dlcli_epoch(
    changes: list[str], batch: int, pixels: np.ndarray, labels: np.ndarray, folder: Path
) -> Callable[[], None]:
    images = len(pixels)
    recipe = load_recipe(
        "cifar10_cnn", [*changes, f"training.batch_size={batch}", "dataset.validation_split=0"]
    )
    info = DataInfo("image", (32, 32, 3), "classes", tuple("0123456789"))
    source = Source(
        ArrayExamples(pixels, labels), info, lambda train: image_preprocessing(train, (32, 32, 3), "rescale")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlcli.data.load.load_source", lambda dataset: source)
        job = training.prepare(recipe)
    network = job.models.network
    batches = training.training_batches(job)
    # All that `dlcli train` does between steps; saving stands outside the epoch's clock in both.
    callbacks = [
        StopOnNaN(), StopOnSignal(), History(folder / "history.csv", images),
        TrainingProgress(1, 0, job.steps.per_epoch, batch, "images"), keras.callbacks.TensorBoard(folder / "tensorboard"),
    ]  # fmt: skip
    return lambda: network.fit(
        batches, steps_per_epoch=job.steps.per_epoch, shuffle=False, verbose=0, callbacks=callbacks
    )


def by_hand_epoch(
    changes: list[str], batch: int, pixels: np.ndarray, labels: np.ndarray
) -> Callable[[], None]:
    """The same network on float arrays, as a script would train it."""
    recipe = load_recipe("cifar10_cnn", [*changes])
    from pkgutil import resolve_name

    from dlcli.architectures import ARCHITECTURES

    inputs = keras.Input((32, 32, 3))
    features = resolve_name(ARCHITECTURES[recipe.architecture.name])(inputs, **recipe.architecture.arguments)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(10)(features))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    scaled = pixels.astype("float32") / 255
    return lambda: model.fit(scaled, labels, batch_size=batch, verbose=0)


@pytest.mark.benchmark
@pytest.mark.parametrize(("name", "batch", "images"), CASES)
def test_images_per_second(name: str, batch: int, images: int, tmp_path: Path) -> None:
    changes = [RESNET if name == "resnet20" else TUTORIAL]
    pixels, labels = synthetic(images)
    ours, by_hand = (
        dlcli_epoch(changes, batch, pixels, labels, tmp_path),
        by_hand_epoch(changes, batch, pixels, labels),
    )
    ours()
    by_hand()
    ratios, rates = [], []
    for _ in range(ROUNDS):
        times = []
        for epoch in (ours, by_hand):
            start = time.perf_counter()
            epoch()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        rates.append(images / times[0])
    print(
        f"\n{name} batch {batch}: {statistics.median(rates):,.0f} images/s, {statistics.median(ratios):.2f} x model.fit"
    )
    assert statistics.median(ratios) > 0.9
