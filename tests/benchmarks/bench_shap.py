"""SHAP of images: ours and the shap package's, with as many calls of the model for the same image.

Its KernelExplainer knows no images and gets our superpixels; Partition is what it has for images.

The package's first call, with 10 to 16 seconds of numba's compilation, is not counted. Errors are against all 2 ** 14 subsets.
Run: make bench
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.explain.attribution import Subject
from dlcli.explain.image.masks import shap as own
from dlcli.explain.image.superpixels import Superpixels
from dlcli.explain.network import Network
from dlcli.explain.shapley import shap_values

SAMPLES, ROUNDS, SIZE = 1_000, 7, 32


def network() -> Network:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((SIZE, SIZE, 3), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    return Network(keras.Sequential(layers), "image", np.zeros((2, SIZE, SIZE, 3), np.uint8))


def photo() -> np.ndarray:
    """A disc before a slope, with some noise."""
    down, right = np.mgrid[:SIZE, :SIZE]
    disc = (down - 14) ** 2 + (right - 11) ** 2 < 60
    image = 60 + 2 * right[..., None] + 90 * disc[..., None] * np.array([1.0, -0.5, 0.3])
    return np.clip(image + np.random.default_rng(0).normal(0, 8, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


class Fourteen:
    """Superpixels of an image, of which only fourteen are hidden."""

    count = 14

    def __init__(self, players: Superpixels) -> None:
        self.players = players

    def value(self, present: np.ndarray) -> np.ndarray:
        rest = np.ones((len(present), self.players.count - self.count), bool)
        return self.players.value(np.concatenate([present, rest], axis=1))

    def spread(self, each: np.ndarray) -> np.ndarray:
        return each


def best_seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The shortest of some rounds, in which the calls alternate: what else the machine does counts least there."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(each) for name, each in seconds.items()}


@pytest.mark.benchmark
def test_shap_of_images() -> None:
    shap = pytest.importorskip("shap")
    subject, model = Subject("", photo()), network()

    def kernel() -> Any:
        players = Superpixels(model, subject.inputs, 3)
        explainer = shap.KernelExplainer(
            lambda present: players.value(present.astype(bool)), np.zeros((1, players.count))
        )
        return explainer.shap_values(np.ones((1, players.count)), nsamples=SAMPLES, silent=True, l1_reg=False)

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: own(model, [subject], np.array([3]), samples=SAMPLES),
        "shap.KernelExplainer": kernel,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            masker = shap.maskers.Image("blur(8,8)", subject.inputs.shape)
            partition = shap.PartitionExplainer(lambda batch: model.outputs(batch.astype(np.uint8)), masker)
            calls["shap.PartitionExplainer"] = lambda: partition(
                subject.inputs[None], max_evals=SAMPLES, batch_size=128, outputs=[3], silent=True
            )
            calls["shap.PartitionExplainer"]()
        except ImportError:
            print("\nopencv is not installed: shap's Partition is left out")
        for call in calls.values():
            call()
        seconds = best_seconds(calls)
    print(f"\nSHAP, {SAMPLES:,} calls of the model for a {SIZE}x{SIZE} image, seconds an image:")
    for name, each in seconds.items():
        print(f"  {name:26}{each:.2f}")
    assert seconds["ours"] <= 1.2 * min(seconds.values())


@pytest.mark.benchmark
def test_error_of_sampled_values() -> None:
    """How far the values are from exact ones, relative to the largest; the mean over seeds."""
    shap = pytest.importorskip("shap")
    game = Fourteen(Superpixels(network(), photo(), 3))
    exact, _, _ = shap_values(game, samples=2**14, generator=np.random.default_rng(0))
    state = np.random.get_state()
    print()
    for samples in (200, SAMPLES):
        ours, theirs = [], []
        for seed in range(4):
            values, _, _ = shap_values(game, samples=samples, generator=np.random.default_rng(seed))
            ours.append(np.abs(values - exact).max() / np.abs(exact).max())
            np.random.seed(seed)
            explainer = shap.KernelExplainer(
                lambda present: game.value(present.astype(bool)), np.zeros((1, 14))
            )
            values = explainer.shap_values(np.ones((1, 14)), nsamples=samples, silent=True, l1_reg=False)[0]
            theirs.append(np.abs(values - exact).max() / np.abs(exact).max())
        print(
            f"error with {samples:5,} of 16,384 subsets: ours {np.mean(ours):.4f}, shap {np.mean(theirs):.4f}"
        )
        assert np.mean(ours) < 1.1 * np.mean(theirs)
    np.random.set_state(state)
