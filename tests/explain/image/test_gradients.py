"""Saliency, SmoothGrad and integrated gradients, on models whose gradients are known."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.image import pixels
from dlcli.explain.image.gradients import NOISE, integrated_gradients, saliency, smooth_grad
from dlcli.explain.image.pixels import baseline_images
from dlcli.explain.network import Network

layers = keras.layers
ALL = (saliency, smooth_grad, integrated_gradients)
SHAPE = (8, 10, 3)


def network_of(model: keras.Model, shape=SHAPE, dtype="float32") -> Network:
    return Network(model, "image", np.zeros((1, *shape), dtype))


def pictures(count=4, shape=SHAPE, dtype="float32", seed=0) -> list[Subject]:
    levels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    images = levels.astype("uint8") if dtype == "uint8" else (levels / 255).astype("float32")
    return [Subject(str(index), image) for index, image in enumerate(images)]


def values_of(method, network, subjects, outputs, **options) -> np.ndarray:
    return np.stack([each.values for each in method(network, subjects, np.asarray(outputs), **options)])


def linear(dtype="float32") -> tuple[Network, np.ndarray]:
    """f(x) = sum w x of pixels (of levels / 255 when they are whole), and w (H, W, C, K)."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, dtype=dtype)
    x = layers.Rescaling(1 / 255)(image) if dtype == "uint8" else image
    head = layers.Dense(3)
    model = keras.Model(image, head(layers.Flatten()(x)))
    return network_of(model, dtype=dtype), np.asarray(head.kernel).reshape(*SHAPE, 3)


def small_cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(SHAPE, dtype="uint8"),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
def test_of_a_linear_model_integrated_gradients_are_weight_times_difference(dtype, baseline):
    network, weights = linear(dtype)
    subjects, outputs = pictures(dtype=dtype), np.array([2, 0, 1, 1])
    images = network.batch(subjects)
    scale = 255 if dtype == "uint8" else 1
    hidden = baseline_images(images, baseline)
    difference = (images.astype("float64") - hidden) / scale
    expected = (difference * np.moveaxis(weights[..., outputs], -1, 0)).sum(axis=-1)
    found = integrated_gradients(network, subjects, outputs, steps=3, baseline=baseline)
    np.testing.assert_allclose(np.stack([each.values for each in found]), expected, atol=1e-5)
    bases = network.outputs(hidden)[np.arange(4), outputs]
    np.testing.assert_allclose([each.base for each in found], bases, rtol=1e-6)
    assert all(each.signed and each.scores["residual"] < 1e-3 and not each.warnings for each in found)
    assert found[0].settings == {"steps": 3, "baseline": baseline}


@pytest.mark.parametrize("method", [saliency, smooth_grad])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_of_a_linear_model_the_gradient_is_its_weights(method, dtype):
    network, weights = linear(dtype)
    outputs = np.array([2, 0, 1, 1])
    expected = np.moveaxis(np.abs(weights[..., outputs]).max(axis=2), -1, 0)
    np.testing.assert_allclose(
        values_of(method, network, pictures(dtype=dtype), outputs), expected, rtol=1e-4
    )


def test_integrated_gradients_give_the_numbers_of_the_paper():
    """Sundararajan et al. 2017, appendix B: f = ReLU(ReLU(x1) - 1 - ReLU(x2)) at (3, 1) from (0, 0): 1.5 and -0.5."""
    image = keras.Input((1, 2, 1))
    x = layers.ReLU()(layers.Flatten()(image))
    last = layers.Dense(1, activation="relu")
    model = keras.Model(image, last(x))
    last.set_weights([np.array([[1.0], [-1.0]]), np.array([-1.0])])
    subject = Subject("x", np.array([[[3.0], [1.0]]], "float32"))
    (found,) = integrated_gradients(
        network_of(model, (1, 2, 1)), [subject], np.array([0]), steps=512, baseline="black"
    )
    np.testing.assert_allclose(found.values, [[1.5, -0.5]], atol=5e-3)
    assert found.base == 0


def test_integrated_gradients_are_complete_and_say_when_they_are_not():
    network, subjects, outputs = network_of(small_cnn(), dtype="uint8"), pictures(dtype="uint8"), [0, 1, 2, 0]
    values = network.outputs(network.batch(subjects))[np.arange(4), outputs]
    fine = integrated_gradients(network, subjects, np.array(outputs), steps=64)
    for each, value in zip(fine, values, strict=True):
        gap = each.values.sum(dtype="float64") - (value - each.base)
        assert abs(gap) < 2e-3
        assert each.scores["residual"] == pytest.approx(abs(gap / (value - each.base)), rel=1e-2)
        assert not each.warnings
    coarse = integrated_gradients(network, pictures(20, dtype="uint8"), np.zeros(20, int), steps=1)
    flagged = [each for each in coarse if each.scores["residual"] > 0.1]
    assert flagged and all("more --steps come nearer" in each.warnings[0] for each in flagged)


@pytest.mark.filterwarnings("ignore")
def test_saliency_is_equal_to_tf_keras_vis():
    pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is what maps are compared with")
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    image = keras.Input(SHAPE)
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, layers.Dense(3)(x))
    subjects, outputs = pictures(), [2, 0, 1, 1]
    expected = Saliency(model, clone=False)(
        CategoricalScore(outputs), np.stack([each.inputs for each in subjects]), normalize_map=False
    )
    found = values_of(saliency, network_of(model), subjects, outputs)
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-6)


def test_smooth_grad_averages_over_noise_of_the_deviation_that_it_names():
    # f = sum x^3: the mean of 3 (x + e)^2 is 3 (x^2 + deviation^2), and the deviation is 0.15 of the image's range.
    image = keras.Input((4, 4, 1))
    head = layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(image, head(layers.Flatten()(image * image * image)))
    subject = pictures(1, (4, 4, 1))[0]
    found = values_of(smooth_grad, network_of(model, (4, 4, 1)), [subject], [0], samples=4000)[0]
    deviation = NOISE * np.ptp(subject.inputs)
    expected = 3 * (subject.inputs[..., 0] ** 2 + deviation**2)
    # The mean of 4000 draws is off by up to about 4 standard errors of 3 (2 x e + e^2).
    error = 4 * 3 * np.sqrt(4 * subject.inputs[..., 0] ** 2 * deviation**2 + 2 * deviation**4) / np.sqrt(4000)
    assert (np.abs(found - expected) < error).all()


def test_smooth_grad_depends_on_the_seed_and_the_image_alone():
    network, subjects, outputs = network_of(small_cnn(), dtype="uint8"), pictures(dtype="uint8"), [0, 1, 2, 0]
    first = values_of(smooth_grad, network, subjects, outputs, seed=1, samples=7)
    assert np.array_equal(first, values_of(smooth_grad, network, subjects, outputs, seed=1, samples=7))
    alone = values_of(smooth_grad, network, subjects[2:3], outputs[2:3], seed=1, samples=7)[0]
    np.testing.assert_allclose(alone, first[2], rtol=1e-5)
    other = values_of(smooth_grad, network, subjects, outputs, seed=2, samples=7)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_the_same_in_small_portions(method, monkeypatch):
    network, subjects, outputs = network_of(small_cnn(), dtype="uint8"), pictures(dtype="uint8"), [0, 1, 2, 0]
    whole = values_of(method, network, subjects, outputs)
    monkeypatch.setattr(pixels, "PIXELS_AT_ONCE", 3 * SHAPE[0] * SHAPE[1])
    assert pixels.images_at_once(*SHAPE[:2]) == 3
    np.testing.assert_allclose(values_of(method, network, subjects, outputs), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 5), (42, 35)])
@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_a_model_that_changes_the_size_first_is_explained_at_the_image(method, size):
    model = keras.Sequential(
        [
            keras.Input(SHAPE, dtype="uint8"),
            layers.Resizing(*size),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    network, subjects = network_of(model, dtype="uint8"), pictures(2, dtype="uint8")
    found = method(network, subjects, np.array([0, 1]))
    assert all(each.values.shape == SHAPE[:2] for each in found)
    if method is integrated_gradients:
        values = network.outputs(network.batch(subjects))
        for index, each in enumerate(found):
            assert each.values.sum() == pytest.approx(values[index, index] - each.base, rel=0.05)


def test_a_subclassed_model_of_floats_has_gradients_too():
    class Doubled(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.head = layers.Conv2D(4, 3), layers.Dense(2)

        def call(self, images, training=False):
            return self.head(keras.ops.max(self.conv(2 * images), axis=(1, 2)))

    network = network_of(Doubled())
    for method in ALL:
        assert all(each.problem is None for each in method(network, pictures(2), np.array([0, 1])))


def test_pixels_without_a_gradient_are_refused_with_methods_that_work():
    image = keras.Input(SHAPE, dtype="uint8")
    x = keras.ops.mean(keras.ops.cast(image, "float32"), axis=(1, 2))
    network = network_of(keras.Model(image, layers.Dense(2)(x)), dtype="uint8")
    for method in ALL:
        with pytest.raises(DlcliError, match="use occlusion, rise, lime or shap"):
            method(network, pictures(1, dtype="uint8"), np.array([0]))


def test_baselines_keep_the_dtype_and_hide_what_they_say():
    images = np.stack([each.inputs for each in pictures(dtype="uint8")])
    assert baseline_images(images, "black").max() == 0
    assert baseline_images(images, "white").min() == 255
    assert baseline_images(images / np.float32(255), "white").max() == 1
    mean = baseline_images(images, "mean")
    assert mean.dtype == np.uint8 and (np.ptp(mean, axis=(1, 2)) == 0).all()
    np.testing.assert_allclose(mean[:, 0, 0], images.mean(axis=(1, 2)), atol=0.5)
    blurred = baseline_images(images, "blur")
    assert blurred.dtype == np.uint8
    assert blurred.std(axis=(1, 2)).max() < 0.6 * images.std(axis=(1, 2)).min()
    np.testing.assert_allclose(blurred.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=30)
    with pytest.raises(ValueError, match="received: 'grey'"):
        baseline_images(images, "grey")
