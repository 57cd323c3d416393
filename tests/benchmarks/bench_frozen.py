"""Seconds an epoch of `frozen_features`, of a frozen backbone that runs in every step, and of a network that learns.

The first two read the same images in the same order and start from the same head, so they must reach the same
validation accuracy. All alternate within one process; the figure is the median of the ratios. An epoch is training and
validation, as in history.csv; what comes before the first (the features, computed once) is printed beside it.
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

from dlcli.architectures.resnet import resnet
from dlcli.data.examples import ArrayExamples, DataInfo, Examples, Source
from dlcli.data.images import image_preprocessing
from dlcli.data.stream import evaluation_stream, training_stream
from dlcli.recipe.load import load_recipe
from dlcli.training import job as training

ROUNDS, EPOCHS = 3, 3
TRAIN, VALIDATION = 1_920, 320
BATCH = 64
CLASSES = 4


def tinted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """32x32 noise, uint8, of no tint or one of three: the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype("int32")
    tint = 25 * np.eye(CLASSES, 3)[labels] + random.normal(0, 8, (count, 3))
    images = 110 + tint[:, None, None] + random.normal(0, 30, (count, 32, 32, 3))
    return np.clip(images, 0, 255).astype("uint8"), labels


def source_file(path: Path) -> Path:
    """A ResNet-20 with weights as they start."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), dtype="uint8")
    x = resnet(keras.layers.Rescaling(1 / 255, dtype="float32")(image), depth=20)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(image, keras.layers.Dense(10, activation="softmax")(x), name="source").save(path)
    return path


def frozen_job(source: Path) -> training.Job:
    changes = [
        f"architecture={{name: frozen_features, source: {source}}}",
        f"training.batch_size={BATCH}",
        "dataset={name: cifar10}",
        "optimizer={name: adam, learning_rate: 0.01}",
        "schedule=constant",
        "regularization={}",
    ]
    info = DataInfo("image", (32, 32, 3), "classes", tuple("0123"))
    train, validation = (
        ArrayExamples(*tinted(count, seed)) for seed, count in enumerate((TRAIN, VALIDATION))
    )
    data = Source(
        train, info, lambda part: image_preprocessing(part, (32, 32, 3), "rescale"), validation=validation
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlcli.data.load.load_source", lambda dataset: data)
        return training.prepare(load_recipe("cifar10_cnn", changes))


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def trained(network: keras.Model, train: Examples, validation: Examples) -> Callable[[], tuple[float, float]]:
    """Some more epochs at each call, which returns the median of their seconds and the validation accuracy."""
    network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batches, held_out = training_stream(train, batch_size=BATCH, seed=0), evaluation_stream(validation, 512)

    def more() -> tuple[float, float]:
        clock = Clock()
        history = network.fit(
            batches,
            epochs=EPOCHS,
            steps_per_epoch=TRAIN // BATCH,
            validation_data=held_out,
            shuffle=False,
            verbose=0,
            callbacks=[clock],
        ).history
        return statistics.median(clock.seconds[1:]), history["val_accuracy"][-1]  # the first one compiles

    return more


@pytest.mark.benchmark
def test_seconds_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / "cache"))
    source = source_file(tmp_path / "source.keras")
    start = time.perf_counter()
    job = frozen_job(source)
    once = time.perf_counter() - start
    head, data = job.models.network, job.data
    copy = keras.Model.from_config(head.get_config())
    copy.set_weights(head.get_weights())
    every_step = keras.Model(data.preprocessing.input, copy(data.preprocessing.output))
    whole = keras.saving.load_model(source)
    logits = keras.layers.Dense(CLASSES)(whole.layers[-2].output)
    runs = {
        "everything learns": trained(keras.Model(whole.input, logits), data.train, data.validation),
        "backbone in every step": trained(every_step, data.train, data.validation),
        "features computed once": trained(head, job.train, job.validation),
    }
    seconds: dict[str, list[float]] = {label: [] for label in runs}
    accuracy = {}
    for _ in range(ROUNDS):
        for label, more in runs.items():
            time_of_one, accuracy[label] = more()
            seconds[label].append(time_of_one)
    whole_network, frozen, features = seconds.values()
    ratio = statistics.median(one / other for one, other in zip(frozen, features, strict=True))
    freezing = statistics.median(one / other for one, other in zip(whole_network, frozen, strict=True))
    print(f"\nresnet20, {TRAIN:,} images of 32x32, batch {BATCH}; loading and features once: {once:.1f} s")
    for label, each in seconds.items():
        print(f"  {label:24} {statistics.median(each):7.3f} s an epoch  val_accuracy {accuracy[label]:.4f}")
    print(f"  freezing {freezing:.1f} x, computing features once {ratio:.1f} x more")
    assert ratio >= 10
    assert abs(accuracy["backbone in every step"] - accuracy["features computed once"]) <= 1 / VALIDATION, (
        "one image may fall on the other side by rounding"
    )
