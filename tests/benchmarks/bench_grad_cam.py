"""Grad-CAM in batches: images a second, and beside tf-keras-vis called image by image, as its users do.

Both explain the same small CNN on the same 32x32 images; each figure is the best of several rounds that alternate.
Run: make bench
"""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import pytest

from dlcli.explain.attribution import Subject
from dlcli.explain.image.cam import grad_cam
from dlcli.explain.network import Network

ROUNDS = 3
IMAGES, ONE_BY_ONE = 2_000, 20
LEAST_IMAGES_A_SECOND = 1_500  # on 2 cores that do nothing else
LEAST_RATIO = 20


def small_cnn() -> keras.Model:
    """That of recipes/cifar10_cnn.yaml, with logits."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input((32, 32, 3))
    for filters in (32, 64, 64):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(10)(x))


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.benchmark
@pytest.mark.filterwarnings("ignore")
def test_grad_cam_is_fast_in_batches() -> None:
    pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is what speed is compared with")
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    model = small_cnn()
    images = np.random.default_rng(0).random((IMAGES, 32, 32, 3)).astype("float32")
    classes = np.arange(IMAGES) % 10
    subjects = [Subject(str(index), image) for index, image in enumerate(images)]
    network = Network(model, "image", images[:1])
    theirs = Gradcam(model, clone=False)

    def ours_all() -> None:
        grad_cam(network, subjects, classes)

    def theirs_one_by_one() -> None:
        for image, output in zip(images[:ONE_BY_ONE], classes[:ONE_BY_ONE].tolist(), strict=True):
            theirs(CategoricalScore(output), image[None], penultimate_layer=-1)

    ours_all()
    theirs_one_by_one()
    ours = IMAGES / min(seconds_of(ours_all) for _ in range(ROUNDS))
    other = ONE_BY_ONE / min(seconds_of(theirs_one_by_one) for _ in range(ROUNDS))
    print(
        f"\nGrad-CAM, 32x32: {ours:,.0f} images/s; tf-keras-vis one by one {other:,.0f}; ratio {ours / other:.0f}"
    )
    assert ours > LEAST_IMAGES_A_SECOND
    assert ours > LEAST_RATIO * other
