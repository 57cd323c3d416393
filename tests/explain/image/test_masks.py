from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.image.masks import SmoothMasks, lime, occlusion, rise, shap, sliding_windows
from dlcli.explain.image.pixels import baseline_images
from dlcli.explain.image.superpixels import superpixels
from dlcli.explain.lime import all_coalitions
from dlcli.explain.network import Network
from dlcli.explain.shapley import exact_values

METHODS = {"occlusion": occlusion, "rise": rise, "lime": lime, "shap": shap}


def weighted(weights: np.ndarray, bias: float = 0.0, dtype: str = "float32") -> Network:
    """Two outputs: the weighted sum of pixels (H, W, C), and 0."""
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input(weights.shape, dtype=dtype), keras.layers.Flatten(), dense])
    dense.set_weights(
        [np.stack([weights.reshape(-1), np.zeros(weights.size)], axis=1), np.array([bias, 0.0])]
    )
    return Network(model, "image", np.zeros((2, *weights.shape), dtype))


def image(height: int = 16, width: int = 16, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def cnn() -> Network:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    return Network(model, "image", np.zeros((2, 16, 16, 3), np.uint8))


def windows_of(height: int, width: int, samples: int) -> np.ndarray:
    """Bool (N, H, W)."""
    down, right = sliding_windows(height, width, samples)
    return (down[:, None, :, None] & right[None, :, None, :]).reshape(-1, height, width)


def subjects(count: int = 2) -> list[Subject]:
    random = np.random.default_rng(3)
    return [Subject(str(each), random.integers(0, 256, (16, 16, 3), np.uint8)) for each in range(count)]


def test_occlusion_values_of_captum() -> None:
    """Captum 0.9, tests/attr/test_occlusion.py: [80, 200, 120]; the pixels stand apart, so that no window hides two."""
    hidden, last = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((2, 6, 1)), keras.layers.Flatten(), hidden, last])
    reads = np.zeros((12, 4), np.float32)
    reads[[0, 2, 4]] = 1
    hidden.set_weights([reads, np.array([-10.0, 1, 1, 1])])
    last.set_weights([np.ones((4, 2)), np.array([-1.0, 1])])
    pixels = np.full((2, 6, 1), 7, np.float32)
    pixels[0, [0, 2, 4], 0] = 20, 50, 30
    network = Network(model, "image", pixels[None])
    (found,) = occlusion(network, [Subject("x", pixels)], np.array([0]), samples=100, baseline="black")
    np.testing.assert_allclose(found.values[0, [0, 2, 4]], [80, 200, 120], rtol=1e-5)
    assert found.values[1, 5] == pytest.approx(
        120 / 4
    )  # one of the four windows over it hides the last pixel
    assert found.signed
    assert found.base is None


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 30), (3, 5)])
@pytest.mark.parametrize("samples", [1, 30, 225])
def test_windows_cover_each_pixel_four_times(height: int, width: int, samples: int) -> None:
    windows = windows_of(height, width, samples)
    assert (windows.sum(axis=0) == 4).all()
    assert windows.any(axis=(1, 2)).all()
    assert len(windows) <= max(samples, 4)
    # Near to as many as asked for, or one for each pixel.
    assert len(windows) >= min(0.6 * samples, height * width)


def test_occlusion_is_the_mean_over_windows(cnn: Network) -> None:
    subject = subjects(1)[0]
    (found,) = occlusion(cnn, [subject], np.array([1]), samples=49, baseline="white")
    hidden = baseline_images(subject.inputs[None], "white")[0]
    whole = cnn.outputs(subject.inputs[None])[0, 1]
    total, times = np.zeros((16, 16)), np.zeros((16, 16))
    for window in windows_of(16, 16, 49):
        lost = whole - cnn.outputs(np.where(window[..., None], hidden, subject.inputs)[None])[0, 1]
        total[window] += lost
        times[window] += 1
    np.testing.assert_allclose(found.values, total / times, rtol=1e-4, atol=1e-5)
    assert found.settings == {"samples": 49, "baseline": "white"}


def test_smooth_masks() -> None:
    """Petsiuk et al. 2018, section 3.2: in 0..1, half of each pixel is seen on average, and the grid's place is random."""
    found = SmoothMasks((20, 33, 3), 3000, np.random.default_rng(0))
    all_of_them = found[0:3000]
    assert all_of_them.shape == (3000, 20, 33)
    assert all_of_them.min() == 0
    assert all_of_them.max() == 1
    np.testing.assert_allclose(all_of_them.mean(axis=0), 0.5, atol=0.05)
    np.testing.assert_array_equal(found[40:50], all_of_them[40:50])
    # Neighbours are alike, and pixels of other squares are not.
    assert np.corrcoef(all_of_them[:, 10, 10], all_of_them[:, 10, 11])[0, 1] > 0.8
    assert abs(np.corrcoef(all_of_them[:, 10, 5], all_of_them[:, 10, 25])[0, 1]) < 0.1
    assert np.abs(np.diff(all_of_them, axis=2)).max() <= 1 / 5 + 1e-6


def test_rise_finds_the_pixels_that_count_whatever_the_level() -> None:
    weights = np.zeros((21, 21, 1), np.float32)
    weights[3:7, 12:16] = 1
    subject = Subject("x", np.ones((21, 21, 1), np.float32))
    maps = [
        rise(weighted(weights, bias), [subject], np.array([0]), samples=800, baseline="black")[0].values
        for bias in (0.0, 1000.0)
    ]
    row, column = np.unravel_index(maps[0].argmax(), (21, 21))
    assert 3 <= row < 7
    assert 12 <= column < 16
    np.testing.assert_allclose(maps[0], maps[1], atol=0.02)
    assert np.abs(maps[0][12:]).max() < 0.2 * maps[0].max()


def test_rise_is_the_slope_over_visibility(cnn: Network) -> None:
    subject = subjects(1)[0]
    (found,) = rise(cnn, [subject], np.array([2]), samples=300, seed=4)
    seen = SmoothMasks((16, 16, 3), 300, subject.generator(4))[0:300].astype(np.float64)
    hidden = baseline_images(subject.inputs[None], "mean")[0].astype(float)
    images = np.rint(subject.inputs * seen[..., None] + hidden * (1 - seen[..., None])).astype(np.uint8)
    outputs = cnn.outputs(images)[:, 2]
    for row, column in ((0, 0), (7, 9), (15, 3)):
        slope = np.polyfit(seen[:, row, column], outputs, 1)[0]
        assert found.values[row, column] == pytest.approx(slope, abs=0.01 * float(np.abs(found.values).max()))


@pytest.mark.parametrize("method", [lime, shap])
def test_a_linear_model_gives_difference_times_weight(method: Callable[..., list[Attribution]]) -> None:
    weights = np.random.default_rng(1).normal(size=(16, 16, 1)).astype(np.float32)
    pixels = image()
    (found,) = method(weighted(weights), [Subject("x", pixels)], np.array([0]), samples=800)
    labels = superpixels(pixels, 40)
    sums = np.bincount(
        labels.reshape(-1), ((pixels - pixels.mean()) * weights).reshape(-1).astype(np.float64)
    )
    given = np.bincount(labels.reshape(-1), found.values.reshape(-1).astype(np.float64))
    tolerance = 0.05 if method is lime else 1e-3
    np.testing.assert_allclose(given, sums, atol=tolerance * np.abs(sums).max())
    assert found.scores["segments"] == labels.max() + 1
    assert found.settings == {"samples": 800, "segments": 40, "baseline": "mean", "seed": 0}
    if method is lime:
        assert found.scores["r2"] > 0.99
        assert found.base is None
    else:
        assert found.base == pytest.approx(float(pixels.mean() * weights.sum()), abs=1e-4)


@pytest.mark.parametrize("segments", [9, 40])
def test_shap_sums_to_the_difference_from_the_baseline(cnn: Network, segments: int) -> None:
    chosen = subjects(2)
    outputs = cnn.outputs(np.stack([each.inputs for each in chosen]))
    blurred = cnn.outputs(baseline_images(np.stack([each.inputs for each in chosen]), "blur"))
    found = shap(cnn, chosen, np.array([0, 2]), samples=100, segments=segments, baseline="blur")
    for row, (attribution, output) in enumerate(zip(found, (0, 2), strict=True)):
        assert attribution.base == pytest.approx(blurred[row, output], abs=1e-4)
        assert attribution.base + attribution.values.sum() == pytest.approx(outputs[row, output], abs=1e-4)
        assert attribution.scores["residual"] < 1e-9


def test_shap_of_few_superpixels_is_exact(cnn: Network) -> None:
    subject = subjects(1)[0]
    (found,) = shap(cnn, [subject], np.array([0]), samples=10, segments=9, baseline="black")
    labels = superpixels(subject.inputs, 9)
    count = int(labels.max()) + 1
    assert count <= 12
    images = np.where(all_coalitions(count)[:, labels][..., None], subject.inputs, 0).astype(np.uint8)
    expected = exact_values(cnn.outputs(images)[:, 0])
    given = np.bincount(labels.reshape(-1), found.values.reshape(-1).astype(np.float64))
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_maps_do_not_depend_on_neighbours_or_order(cnn: Network, name: str) -> None:
    one, two = subjects(2)
    options = {"samples": 60}
    together = METHODS[name](cnn, [one, two], np.array([1, 0]), **options)
    alone = METHODS[name](cnn, [two], np.array([0]), **options)
    assert together[1].values.tobytes() == alone[0].values.tobytes()
    assert together[1].scores == alone[0].scores
    assert together[1].values.shape == (16, 16)
    assert together[1].values.dtype == np.float32
    assert together[1].signed
    assert together[1].problem is None


@pytest.mark.parametrize("name", ["rise", "lime", "shap"])
def test_another_seed_gives_another_map(cnn: Network, name: str) -> None:
    first, second = (
        METHODS[name](cnn, subjects(1), np.array([0]), samples=60, seed=seed)[0].values for seed in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize("name", METHODS)
def test_an_image_of_one_colour_is_flat(cnn: Network, name: str) -> None:
    grey = Subject("grey", np.full((16, 16, 3), 90, np.uint8))
    (found,) = METHODS[name](cnn, [grey], np.array([0]), samples=60)
    assert found.problem == "flat_map"


@pytest.mark.parametrize("name", METHODS)
def test_a_model_of_nan_is_said(name: str) -> None:
    network = weighted(np.full((16, 16, 1), np.nan, np.float32))
    (found,) = METHODS[name](network, [Subject("x", image())], np.array([0]), samples=60)
    assert found.problem == "not_finite"


@keras.saving.register_keras_serializable("tests_of_masks")
class Subclassed(keras.Model):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, x: object) -> object:
        return self.dense(keras.ops.reshape(keras.ops.cast(x, "float32"), (-1, 768)))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    entry = keras.Input((16, 16, 3))
    return keras.Model(entry, keras.layers.Dense(2)(inner(entry)))


MODELS = {
    "subclassed": Subclassed,
    "without an Input": lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]),
    "nested": nested,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_model(kind: str, name: str) -> None:
    keras.utils.set_random_seed(0)
    pixels = image(16, 16, 3)
    network = Network(MODELS[kind](), "image", np.stack([pixels, pixels]))
    (found,) = METHODS[name](network, [Subject("x", pixels)], np.array([1]), samples=40)
    assert found.problem is None


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="Received: 0"):
        rise(weighted(np.ones((8, 8, 1))), [Subject("x", image(8, 8))], np.array([0]), samples=0)
