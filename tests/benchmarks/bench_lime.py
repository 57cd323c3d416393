"""LIME of images with 1,000 samples: ours, and the lime package called as its tutorials do.

Both explain the same network for the same images, one after the other within one process; figures are medians. The package
at its defaults finds quickshift superpixels and calls `model.predict` with ten images; with our superpixels its R2 can
be compared with ours, which is of samples that the line has not seen while the package's is of those that it was fitted to.
Run: make bench
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.explain.attribution import Subject
from dlcli.explain.image.masks import lime
from dlcli.explain.image.superpixels import Superpixels, superpixels
from dlcli.explain.lime import drawn, fit, proximity
from dlcli.explain.network import Network

SAMPLES, IMAGES, SIZE = 1_000, 3, 32


def classifier() -> keras.Model:
    """A small CNN, trained for a moment to say where of four places a disc is, so that explanations have something to find."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((SIZE, SIZE, 3), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    images, labels = discs(512, 0)
    model.fit(images, labels, batch_size=32, epochs=2, verbose=0)
    return model


def discs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 noise with a bright disc in one of four quarters: the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    down, right = np.mgrid[:SIZE, :SIZE]
    middle = np.stack([labels // 2, labels % 2], axis=1) * SIZE // 2 + random.integers(5, 11, (count, 2))
    distance = (down - middle[:, :1, None]) ** 2 + (right - middle[:, 1:, None]) ** 2
    images = random.normal(90, 25, (count, SIZE, SIZE, 3)) + 110 * (distance < 20)[..., None]
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.mark.benchmark
def test_lime_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    lime_image = pytest.importorskip("lime.lime_image", reason="compares with the lime package, in dev")
    monkeypatch.setattr(lime_image, "tqdm", iter)  # it draws a progress bar and has no option against it
    model = classifier()
    images, labels = discs(IMAGES, 1)
    network = Network(model, "image", images[:2])
    theirs = lime_image.LimeImageExplainer(random_state=0)

    def predict(batch: np.ndarray) -> np.ndarray:
        return model.predict(batch, verbose=0)

    def package(image: np.ndarray, label: int, **options: Any) -> Any:
        return theirs.explain_instance(
            image, predict, labels=(label,), top_labels=None, num_samples=SAMPLES, **options
        )

    lime(network, [Subject("warm", images[0])], labels[:1])
    package(images[0], int(labels[0]), batch_size=500)
    seconds: dict[str, list[float]] = {"ours": [], "lime": []}
    own_r2, in_sample, their_r2, segments = [], [], [], []
    for image, label in zip(images, labels.tolist(), strict=True):
        subject = Subject("", image)
        start = time.perf_counter()
        (found,) = lime(network, [subject], np.array([label]), samples=SAMPLES)
        seconds["ours"].append(time.perf_counter() - start)
        own_r2.append(found.scores["r2"])
        start = time.perf_counter()
        explanation = package(image, label)
        seconds["lime"].append(time.perf_counter() - start)
        segments.append(int(explanation.segments.max()) + 1)
        # The same superpixels, baseline and output (a probability), so that only the method differs.
        same = package(
            image, label, batch_size=500, hide_color=np.rint(image.mean((0, 1))),
            segmentation_fn=lambda each: superpixels(each, 40),
        )  # fmt: skip
        their_r2.append(float(same.score))
        probabilities = Network(model, "image", images[:2], probability=True)
        players = Superpixels(probabilities, image, label)
        present = drawn(players.count, SAMPLES, subject.generator(0))
        in_sample.append(fit(present, players.value(present), proximity(present), unseen=False)[1])
    ratio = statistics.median(
        theirs / ours for ours, theirs in zip(seconds["ours"], seconds["lime"], strict=True)
    )
    print(f"\nLIME, {SAMPLES:,} samples of {SIZE}x{SIZE} images, seconds an image:")
    print(
        f"  ours                {statistics.median(seconds['ours']):.2f}   R2 of logits, unseen samples {np.mean(own_r2):.2f}"
    )
    print(
        f"  the lime package    {statistics.median(seconds['lime']):.2f}   {ratio:.0f} times as long, {segments} superpixels"
    )
    print(
        f"  R2 of probabilities with our superpixels: ours {np.mean(in_sample):.3f}, the package {np.mean(their_r2):.3f}"
    )
    assert ratio > 15
    assert np.mean(in_sample) > np.mean(their_r2) - 0.02
