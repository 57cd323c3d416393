"""Images whose class is the colour of a patch: every method should point into it, and at random without the weights.

The pointing game of Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.1. Two patches of
other colours stand in every image, so that it is not enough to find what sticks out.
"""

import inspect
from pkgutil import resolve_name

import keras
import numpy as np
import pytest
from keras import layers

from dlcli.explain import METHODS
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.trust.randomization import scrambled, weighted_layers

SIDE, PATCH = 40, 12
CLASSES = np.array([(220, 30, 30), (30, 220, 220), (30, 30, 220)])
OTHERS = np.array([(30, 220, 30), (220, 30, 220), (220, 220, 30)])
QUICK = {"samples": 200, "steps": 16, "seed": 0}
"""Options that a method takes, as far as its signature has them."""
SLOWER = {"smooth_grad": {"samples": 16}}
"""Options of methods that go backwards through the model for each sample."""


def planted(count, seed):
    """Images (N, H, W, 3) of dark noise, labels (N,), and the upper left corners (N, 2) of the patches that count.

    The patch of the class and two of other colours stand in three of the four quarters, anywhere within them.
    """
    random = np.random.default_rng(seed)
    images = random.integers(60, 140, (count, SIDE, SIDE, 3))
    labels = random.integers(0, 3, count)
    corners = np.zeros((count, 2), int)
    half = SIDE // 2
    for image, label, corner in zip(images, labels, corners, strict=True):
        others = OTHERS[random.permutation(3)[:2]]
        for colour, quarter in zip([*others, CLASSES[label]], random.permutation(4)[:3], strict=True):
            corner[:] = np.array(divmod(int(quarter), 2)) * half + random.integers(0, half - PATCH + 1, 2)
            row, column = corner
            image[row : row + PATCH, column : column + PATCH] = colour + random.integers(
                -25, 26, (PATCH, PATCH, 3)
            )
    return images.astype(np.uint8), labels, corners


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images, labels, _ = planted(768, seed=1)
    model = keras.Sequential([
        keras.Input((SIDE, SIDE, 3), dtype="uint8"),
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(12, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        # A class is as probable as the place that looks most like it: what is elsewhere does not count.
        layers.Conv2D(3, 3, padding="same", activation="relu"),
        layers.GlobalMaxPooling2D(),
        layers.Softmax(),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=64, epochs=6, verbose=0)
    images, labels, _ = planted(128, seed=2)
    assert model.evaluate(images, labels, verbose=0)[1] >= 0.99
    return Network(model, "image", images[:1])


@pytest.fixture(scope="module")
def unseen():
    images, labels, corners = planted(20, seed=3)
    return [Subject(f"image {index}", image) for index, image in enumerate(images)], labels, corners


def hits(method, network, subjects, outputs, corners):
    """For each image: 1.0 where the strongest place is inside the patch, 0.0 where not, nan where the map is flat.

    Of places that share the highest value, such as those of a superpixel, the middle counts.
    """
    options = {name: value for name, value in QUICK.items() if name in inspect.signature(method).parameters}
    options |= SLOWER.get(method.__name__, {})
    found = []
    for attribution, corner in zip(method(network, subjects, outputs, **options), corners, strict=True):
        assert attribution.values.shape == (SIDE, SIDE)
        place = np.argwhere(attribution.values >= attribution.values.max() - 1e-9).mean(axis=0)
        inside = ((place >= corner) & (place <= corner + PATCH - 1)).all()
        found.append(np.nan if attribution.problem else float(inside))
    return found


@pytest.mark.parametrize("name", METHODS["image"])
def test_the_method_points_into_the_patch_and_without_the_weights_it_does_not(name, network, unseen):
    method = resolve_name(METHODS["image"][name])
    subjects, labels, corners = unseen
    assert np.mean(hits(method, network, subjects, labels, corners)) >= 0.95
    # Scrambled weights may see any of the three patches, so a third would be chance.
    without = []
    for seed in range(4):
        with scrambled([each for _, weights in weighted_layers(network) for each in weights], seed=seed):
            without += hits(method, network, subjects[:8], labels[:8], corners[:8])
    assert np.isfinite(without).sum() >= 8
    assert np.nanmean(without) <= 0.6
