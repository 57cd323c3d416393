"""Differentiable augmentation: each operation against its definition, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.training.steps.differentiable_augmentation import DRAWS, build_differentiable

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 16, 24, 3)).astype("float32")
DRAWN = np.random.default_rng(1).uniform(size=(5, DRAWS)).astype("float32")
ALL = ("color", "translation", "cutout")


def augmented(policy: tuple[str, ...], images: np.ndarray = IMAGES, draws: np.ndarray = DRAWN) -> np.ndarray:
    return np.asarray(build_differentiable(policy)(tf.constant(images), tf.constant(draws)))


def draws(**places: float) -> np.ndarray:
    """Draws that change nothing but what is named: p0 to p6."""
    still = np.full((5, DRAWS), 0.5, "float32")
    for name, value in places.items():
        still[:, int(name[1:])] = value
    return still


def test_color_follows_the_papers_code():
    expected = []
    for image, (brightness, saturation, contrast, *_) in zip(IMAGES, DRAWN, strict=True):
        bright = image + brightness - 0.5
        grey = bright.mean(axis=-1, keepdims=True)
        colored = (bright - grey) * saturation * 2 + grey
        level = colored.mean()
        expected.append((colored - level) * (contrast + 0.5) + level)
    np.testing.assert_allclose(augmented(("color",)), expected, atol=1e-5)


def test_middle_draws_leave_the_colors():
    np.testing.assert_allclose(augmented(("color",), draws=draws()), IMAGES, atol=1e-6)


@pytest.mark.parametrize(
    ("vertical", "horizontal", "rows", "columns"),
    [(0.0, 0.5, -2, 0), (0.999, 0.5, 2, 0), (0.5, 0.0, 0, -3), (0.5, 0.999, 0, 3), (0.3, 0.8, -1, 2)],
)
def test_translation_moves_whole_pixels_and_fills_with_grey(vertical, horizontal, rows, columns):
    found = augmented(("translation",), draws=draws(p3=vertical, p4=horizontal))
    padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
    expected = padded[:, 4 - rows : 20 - rows, 4 - columns : 28 - columns]
    np.testing.assert_array_equal(found, expected)


def test_shifts_are_equally_likely():
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype="float32")
    points = np.zeros((1000, 16, 1, 1), "float32")
    points[:, 8] = 1
    drawn = np.full((1000, DRAWS), 0.5, "float32")
    drawn[:, 3] = uniform
    places = augmented(("translation",), points, drawn)[:, :, 0, 0].argmax(1)
    assert np.bincount(places - 6).tolist() == [200] * 5


@pytest.mark.parametrize(
    ("vertical", "horizontal", "rows", "columns"),
    [
        (0.5, 0.5, slice(4, 12), slice(6, 18)),
        (0.0, 0.0, slice(0, 4), slice(0, 6)),
        (0.999, 0.999, slice(12, 16), slice(18, 24)),
    ],
)
def test_cutout_takes_a_square_of_half_the_side(vertical, horizontal, rows, columns):
    expected = IMAGES.copy()
    expected[:, rows, columns] = 0
    found = augmented(("cutout",), draws=draws(p5=vertical, p6=horizontal))
    np.testing.assert_array_equal(found, expected)


def test_each_image_has_its_own_numbers():
    together = augmented(ALL)
    for place in range(5):
        alone = augmented(ALL, IMAGES[place : place + 1], DRAWN[place : place + 1])
        np.testing.assert_allclose(alone[0], together[place], atol=1e-6)
    assert not np.allclose(together, augmented(ALL, draws=DRAWN[::-1].copy()))


def test_operations_are_applied_in_the_order_of_the_policy():
    expected = augmented(("cutout",), augmented(("translation",)))
    np.testing.assert_array_equal(augmented(("translation", "cutout")), expected)
    other = augmented(("cutout", "color"))
    assert not np.allclose(other, augmented(("color", "cutout")))


def test_every_draw_is_used():
    base = augmented(ALL)
    for place in range(DRAWS):
        changed = DRAWN.copy()
        changed[:, place] = (changed[:, place] + 0.5) % 1
        assert not np.allclose(augmented(ALL, draws=changed), base), place


def test_gradients_reach_the_images_and_can_be_differentiated_again():
    images, drawn = tf.constant(IMAGES), tf.constant(DRAWN)
    weight = tf.Variable(2.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(images)
            value = tf.reduce_sum(tf.square(build_differentiable(ALL)(images * weight, drawn)))
        slopes = inner.gradient(value, images)
        penalty = tf.reduce_sum(tf.square(slopes))
    assert np.abs(slopes).max() > 0
    # Pixels that were cut out or moved out of the picture have none, but through the means of the colours.
    cut = tf.GradientTape()
    with cut:
        cut.watch(images)
        value = tf.reduce_sum(build_differentiable(("cutout",))(images, drawn))
    np.testing.assert_array_equal(cut.gradient(value, images), augmented(("cutout",), np.ones_like(IMAGES)))
    assert abs(float(outer.gradient(penalty, weight))) > 1


@pytest.mark.parametrize(
    ("policy", "message"),
    [(("color", "color"), "once. Received: color, color"), (("flip",), "Received: flip")],
)
def test_policies_that_say_nothing_are_refused(policy, message):
    with pytest.raises(DlcliError, match=message):
        build_differentiable(policy)
