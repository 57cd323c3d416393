from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.explain.image import superpixels as module
from dlcli.explain.image.pixels import baseline_images
from dlcli.explain.image.superpixels import MaskedImage, Superpixels, grid, superpixels
from dlcli.explain.network import Network


def photo(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A disc before a slope, with some noise; uint8."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width]
    disc = (down - height / 2) ** 2 + (right - width / 3) ** 2 < (min(height, width) / 4) ** 2
    image = (
        60 + 60 * right[..., None] / width + 90 * disc[..., None] * np.array([1.0, -0.5, 0.3, 0.2])[:channels]
    )
    return np.clip(image + random.normal(0, 6, (height, width, channels)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> Network:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    return Network(model, "image", np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    "shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1), (24, 48, 3), (112, 96, 3), (20, 20, 4)]
)
@pytest.mark.parametrize("whole", [True, False])
def test_every_pixel_belongs_to_one_of_enough_superpixels(shape: tuple[int, int, int], whole: bool) -> None:
    image = photo(*shape)
    labels = superpixels(image if whole else image.astype(np.float32) / 255, 40)
    assert labels.shape == shape[:2]
    assert labels.dtype == np.int32
    sizes = np.bincount(labels.reshape(-1))
    assert sizes.min() > 0
    assert module.FEWEST <= len(sizes) <= 60


def test_superpixels_follow_colours() -> None:
    image = np.full((32, 32, 3), 40, np.uint8)
    image[:, 13:] = (200, 90, 10)
    labels = superpixels(image, 40)
    assert not set(labels[:, :13].reshape(-1)) & set(labels[:, 13:].reshape(-1))


@pytest.mark.parametrize("fill", [0, 0.5, np.nan])
def test_an_image_of_one_colour_is_cut_into_squares(fill: float) -> None:
    labels = superpixels(np.full((32, 32, 3), fill, np.float32), 40)
    np.testing.assert_array_equal(labels, grid(32, 32, 40))


def test_the_number_of_superpixels_follows_the_option() -> None:
    image = photo(64, 64)
    few, many = (int(superpixels(image, segments).max()) + 1 for segments in (12, 100))
    assert 8 <= few <= 16
    assert 60 <= many <= 130
    assert superpixels(image, 1).max() == 0
    with pytest.raises(ValueError, match="Received: 0"):
        superpixels(image, 0)


@pytest.mark.parametrize(
    ("height", "width", "segments", "count"),
    [(32, 32, 16, 16), (32, 32, 40, 36), (4, 64, 16, 16), (2, 2, 99, 4)],
)
def test_squares(height: int, width: int, segments: int, count: int) -> None:
    labels = grid(height, width, segments)
    sizes = np.bincount(labels.reshape(-1))
    assert len(sizes) == count
    assert sizes.min() > 0


def test_a_superpixels_number_is_the_sum_of_its_pixels(network: Network) -> None:
    players = Superpixels(network, photo(16, 16), 0, segments=12)
    each = np.arange(players.count) - 3.5
    values = players.spread(each)
    assert values.dtype == np.float32
    sums = np.bincount(players.labels.reshape(-1), values.reshape(-1).astype(np.float64))
    np.testing.assert_allclose(sums, each, atol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
def test_hidden_superpixels_show_the_baseline(network: Network, baseline: str) -> None:
    image = photo(16, 16)
    players = Superpixels(network, image, 2, segments=12, baseline=baseline)
    hidden = baseline_images(image[None], baseline)[0]
    present = np.random.default_rng(0).random((300, players.count)) < 0.5
    present[0], present[1] = True, False
    images = np.where(present[:, players.labels][..., None], image, hidden)
    expected = network.outputs(images)[:, 2]
    np.testing.assert_allclose(players.value(present), expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0.01


def test_other_images_and_outputs_after_the_first_trace(network: Network) -> None:
    """The compiled call is kept: nothing of the first image may stay in it."""
    for seed, output in ((1, 0), (2, 1)):
        image = photo(16, 16, seed=seed)
        masked = MaskedImage(network, image, output, "black")
        value = masked.outputs(1, lambda _: np.ones((1, 16, 16), bool))
        np.testing.assert_allclose(value, network.outputs(image[None])[:, output], rtol=1e-5)


def test_partly_seen_pixels_are_rounded_to_the_nearest_number(network: Network) -> None:
    image = photo(16, 16)
    masked = MaskedImage(network, image, 0, "black")
    expected = network.outputs(np.rint(0.3 * image.astype(np.float32)).astype(np.uint8)[None])[:, 0]
    np.testing.assert_allclose(masked.outputs(1, lambda _: np.full((1, 16, 16), 0.3)), expected, rtol=1e-4)


def test_large_images_go_through_the_model_a_few_at_once(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlcli.explain.image.pixels.PIXELS_AT_ONCE", 7 * 16 * 16)
    players = Superpixels(network, photo(16, 16), 0, segments=12)
    asked = []
    present = np.random.default_rng(0).random((20, players.count)) < 0.5

    def seen(part: slice) -> np.ndarray:
        asked.append(part.stop - part.start)
        return present[part][:, players.labels]

    values = players._masked.outputs(20, seen)
    assert asked == [7, 7, 6]
    np.testing.assert_allclose(values, players.value(present), rtol=1e-6)
