"""What a checkpoint costs: seconds of one, as a share of the five minutes between two, and of an epoch.

python -m pytest -m benchmark -o python_files='bench_*.py' -s tests/benchmarks/bench_checkpoints.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from dlcli.recipe.schema import Checkpoints
from dlcli.training.checkpoint import Checkpoint
from dlcli.training.checkpoint_store import CheckpointStore, Place
from dlcli.training.interrupts import Interrupts

pytestmark = pytest.mark.benchmark

STEPS, BATCH, EPOCH = 12, 64, 50_000
"""Steps that are timed, images of each, images of an epoch of CIFAR-10."""


def cnn() -> keras.Model:
    """TensorFlow's tutorial network, 0.1 M weights."""
    layers = keras.layers
    convolutions = [
        layer
        for filters in (32, 64, 64)
        for layer in (layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D())
    ]
    return keras.Sequential(
        [keras.Input((32, 32, 3)), *convolutions, layers.Flatten(), layers.Dense(64), layers.Dense(10)]
    )


def mobile_net() -> keras.Model:
    """2.3 M weights."""
    return keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10, classifier_activation=None)


def resnet50() -> keras.Model:
    """24 M weights: 280 MB with Adam's moments."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    )


@pytest.mark.parametrize("build", [cnn, mobile_net, resnet50])
def test_cost_of_a_checkpoint(build: Callable[[], keras.Model], tmp_path: Path) -> None:
    network = build()
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = tf.random.normal([BATCH, 32, 32, 3]), tf.zeros([BATCH], "int32")
    network.train_on_batch(images, labels)
    start = time.perf_counter()
    for _ in range(STEPS):
        network.train_on_batch(images, labels)
    epoch = (time.perf_counter() - start) / STEPS * EPOCH / BATCH

    checkpoint = Checkpoint(
        CheckpointStore(tmp_path / "c"), Checkpoints(), Interrupts(), {}, 1000, Path(__file__)
    )
    checkpoint.begin_stage(network, Place(), {})
    seconds = []
    for step in range(5):
        start = time.perf_counter()
        checkpoint.save(Place(step=step))
        seconds.append(time.perf_counter() - start)
    size = (max((tmp_path / "c").iterdir()) / "state.npz").stat().st_size / 2**20
    middle = statistics.median(seconds)
    print(
        f"{build.__name__}: {size:.0f} MB, {middle * 1000:.0f} ms: {middle / 300:.3%} of five minutes, "
        f"{middle / epoch:.3%} of an epoch of {epoch:.0f} s"
    )
    assert middle / 300 < 0.01
