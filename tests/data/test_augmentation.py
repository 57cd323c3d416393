"""The contract of the table IMAGE_AUGMENTATIONS, and each member against small arrays worked out by hand."""

import pkgutil

import numpy as np
import pytest
import tensorflow as tf

from dlcli.data import IMAGE_AUGMENTATIONS
from dlcli.data.augmentation import Position, build_augment, mixes_targets
from dlcli.data.color import random_brightness, random_color_jitter, random_contrast
from dlcli.data.geometry import random_crop, random_flip, random_translation, random_zoom, rotation, warp
from dlcli.data.mixing import cut_mix, mix_up, random_erasing
from dlcli.data.rand_augment import OPERATIONS, rand_augment
from dlcli.errors import DataError
from dlcli.recipe.schema import Spec

BATCH = 24
TARGETS = tf.one_hot(tf.range(BATCH) % 4, 4)


def position(step=0, epoch=0, seed=0, count=BATCH):
    as_step = tf.constant(step, tf.int64)
    return Position.of(seed, as_step, tf.constant(epoch, tf.int64), tf.range(count)).keyed("test")


def pictures(channels=3, count=BATCH, size=16):
    """The same smooth picture `count` times: only the draws can make them differ."""
    y, x = np.mgrid[:size, :size] / size
    picture = np.stack([120 * x + 130 * y**2, 255 * y, 127 + 120 * np.sin(9 * x * y)], axis=-1)[
        ..., :channels
    ]
    return np.repeat(picture[None], count, axis=0).round().astype("uint8")


def distinct(images):
    return len({np.asarray(image).tobytes() for image in images})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", IMAGE_AUGMENTATIONS)
def test_contract(name, channels):
    images = pictures(channels)
    if name in ("mix_up", "cut_mix"):  # these need different partners
        images[1::2] = 255 - images[1::2]
    augment = build_augment([Spec(name=name)])
    signature = [
        tf.TensorSpec([None, 16, 16, channels], tf.uint8),
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([], tf.int64),
    ]

    @tf.function(input_signature=signature)
    def run(batch, targets, step):
        indices = tf.range(tf.shape(batch)[0])
        return augment(batch, targets, Position.of(7, step, step // 10, indices))

    def pixels(step, count=BATCH):
        got, targets = run(images[:count], TARGETS[:count], tf.constant(step, tf.int64))
        assert got.shape == (count, 16, 16, channels)
        assert got.dtype == tf.uint8
        np.testing.assert_allclose(tf.reduce_sum(targets, -1), 1, rtol=1e-5)
        return got.numpy()

    first = pixels(3)
    np.testing.assert_array_equal(first, pixels(3))
    assert (first != pixels(4)).any()
    assert distinct(first) > (1 if name == "random_flip" else BATCH // 3)
    pixels(5, count=1)
    as_float, _ = augment(tf.cast(images, tf.float32), TARGETS, position())
    assert as_float.dtype == tf.float32
    assert 0 <= as_float.numpy().min() <= as_float.numpy().max() <= 255


def test_one_name_twice_draws_twice():
    twice = build_augment([Spec(name="random_brightness", factor=0.2)] * 2)
    once = build_augment([Spec(name="random_brightness", factor=0.2)])
    grey = tf.fill([BATCH, 2, 2, 1], 127.0)
    change = [(f(grey, TARGETS, position())[0] - 127)[:, 0, 0, 0].numpy() for f in (once, twice)]
    assert abs(np.corrcoef(change[0], change[1] - change[0])[0, 1]) < 0.7  # the same draw twice would give 1


def test_build_augment():
    assert build_augment([]) is None
    assert mixes_targets([Spec(name="random_flip"), Spec(name="cut_mix")])
    assert not mixes_targets([Spec(name="random_flip")])
    with pytest.raises(ValueError, match="'sparkle'"):
        build_augment([Spec(name="sparkle")])


def test_uint8_is_rounded_not_cut_off():
    augment = build_augment([Spec(name="random_contrast", factor=0.0)])
    images = pictures()
    np.testing.assert_array_equal(augment(images_as_tensor(images), TARGETS, position())[0], images)
    half = build_augment([Spec(name="mix_up", alpha=1e6)])  # shares of 1/2
    alternating = np.zeros((BATCH, 2, 2, 1), "uint8")
    alternating[::2] = 201
    values = half(images_as_tensor(alternating), TARGETS, position())[0].numpy()
    assert set(np.unique(values)) <= {100, 101}
    assert values.mean() == pytest.approx(100.5, abs=0.3)  # cutting off would give 100.25 or less


def images_as_tensor(images):
    return tf.constant(images)


def test_flip_mirrors_half_of_the_images():
    images = tf.reshape(tf.range(2000 * 6, dtype=tf.int32), [2000, 2, 3, 1])
    got = random_flip(images, TARGETS, position(count=2000), mode="horizontal")[0].numpy()
    mirrored = images.numpy()[:, :, ::-1]
    chosen = (got == mirrored).all((1, 2, 3))
    assert 900 < chosen.sum() < 1100
    np.testing.assert_array_equal(got[~chosen], images.numpy()[~chosen])
    got = random_flip(images, TARGETS, position(count=2000), mode="vertical")[0].numpy()
    chosen = (got == images.numpy()[:, ::-1]).all((1, 2, 3))
    assert 900 < chosen.sum() < 1100
    both = random_flip(images, TARGETS, position(count=2000), mode="horizontal_and_vertical")[0].numpy()
    views = [images.numpy()[:, ::v, ::h] for v in (1, -1) for h in (1, -1)]
    assert all(420 < (both == view).all((1, 2, 3)).sum() < 580 for view in views)


def test_alternating_flip_alternates_exactly():
    images = tf.reshape(tf.range(1000 * 4, dtype=tf.int32), [1000, 2, 2, 1])

    def flipped(epoch, mode):
        got = random_flip(
            images, TARGETS, position(99 + epoch, epoch, count=1000), mode=mode, alternate=True
        )[0].numpy()
        return got[:, 0, 0, 0] - images.numpy()[:, 0, 0, 0]  # 0 as it was, 1 columns, 2 rows, 3 both

    horizontal = np.stack([flipped(epoch, "horizontal") for epoch in range(4)])
    np.testing.assert_array_equal(horizontal[1:], 1 - horizontal[:-1])
    assert 430 < horizontal[0].sum() < 570
    both = np.stack([flipped(epoch, "horizontal_and_vertical") for epoch in range(4)])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.tile(np.arange(4)[:, None], 1000))


@pytest.mark.parametrize("fill_mode", ["reflect", "constant"])
def test_crop_is_a_window_of_the_padded_image(fill_mode):
    image = np.arange(1, 49, dtype="uint8").reshape(4, 6, 2)
    images = tf.constant(np.repeat(image[None], 500, axis=0))
    got = random_crop(images, TARGETS, position(count=500), padding=2, fill_mode=fill_mode, fill_value=9)[
        0
    ].numpy()
    extra = {"constant_values": 9} if fill_mode == "constant" else {}
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode=fill_mode, **extra)
    windows = {padded[y : y + 4, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
    offsets = [windows[crop.tobytes()] for crop in got]  # a KeyError is a crop that is no window
    assert set(offsets) == set(windows.values())


def test_crop_that_cannot_reflect_is_refused():
    with pytest.raises(DataError, match=r"padding 16.*16 x 16.*at most 15"):
        random_crop(tf.constant(pictures()), TARGETS, position(), padding=16)


def test_rotation_is_counter_clockwise():
    image = np.random.default_rng(0).uniform(0, 255, (2, 6, 6, 1)).astype("float32")
    turned = warp(tf.constant(image), linear=rotation(tf.constant([np.pi / 2, np.pi]))).numpy()
    np.testing.assert_allclose(turned[0], np.rot90(image[0]), atol=1e-2)
    np.testing.assert_allclose(turned[1], np.rot90(image[1], 2), atol=1e-2)


def test_warp_shifts_right_and_down_then_fills():
    image = np.arange(1, 13, dtype="float32").reshape(1, 3, 4, 1)
    moved = warp(tf.constant(image), shift=(1.0, 2.0), fill_mode="constant", fill_value=50.0)[
        0, ..., 0
    ].numpy()
    np.testing.assert_allclose(moved, [[50, 50, 50, 50], [50, 50, 50, 50], [50, 1, 2, 3]])
    half = warp(tf.constant(image), shift=(0.5, 0.0), fill_mode="nearest")[0, 0, :, 0].numpy()
    np.testing.assert_allclose(half, [1, 1.5, 2.5, 3.5])
    reflected = warp(tf.constant(image), shift=(2.0, 0.0), fill_mode="reflect")[0, 0, :, 0].numpy()
    np.testing.assert_allclose(reflected, [2, 1, 1, 2])  # the edge pixel is repeated, as in Keras


def test_translation_and_zoom_keep_to_their_factors():
    ramp = np.tile(np.arange(40, dtype="float32"), (300, 40, 1))[..., None]
    moved = random_translation(ramp, TARGETS, position(count=300), height_factor=0.0, width_factor=0.25)[
        0
    ].numpy()
    shift = 20 - moved[:, 20, 20, 0]  # pixels to the right
    assert -10 <= shift.min() < -9 < 9 < shift.max() <= 10
    zoomed = random_zoom(ramp, TARGETS, position(count=300), height_factor=0.5)[0].numpy()[:, 20, :, 0]
    slope = zoomed[:, 21] - zoomed[:, 19]
    assert 1 <= slope.min() < 1.1 < 2.9 < slope.max() <= 3
    assert abs(zoomed[:, 19] + zoomed[:, 20] - 39).max() < 1e-3  # the centre stays


def test_brightness_and_contrast_by_hand():
    images = np.full((400, 2, 2, 1), 100, "uint8")
    images[:, 0] = 140  # mean 120
    bright = random_brightness(tf.constant(images), TARGETS, position(count=400), factor=0.2)[0].numpy()
    change = bright[:, 1, 0, 0] - 100
    assert -51 <= change.min() < -49 < 49 < change.max() <= 51
    np.testing.assert_allclose(bright[:, 0, 0, 0] - 140, change, atol=1e-4)
    contrast = random_contrast(tf.constant(images), TARGETS, position(count=400), factor=0.5)[0].numpy()
    np.testing.assert_allclose(contrast.mean((1, 2, 3)), 120, rtol=1e-5)
    spread = (contrast[:, 0, 0, 0] - 120) / 20
    assert 0.5 <= spread.min() < 0.53 < 1.47 < spread.max() <= 1.5


def test_jitter_of_grey_pixels_leaves_them_grey():
    grey = np.repeat(pictures(1).astype("float32"), 3, axis=-1)
    none = dict.fromkeys(("brightness_factor", "contrast_factor"), 0.0)
    turned = random_color_jitter(grey, TARGETS, position(), **none, saturation_factor=1.0, hue_factor=1.0)[0]
    np.testing.assert_allclose(turned, grey, atol=0.05)
    single = random_color_jitter(grey[..., :1], TARGETS, position(), **none)[0]
    np.testing.assert_array_equal(single, grey[..., :1])


def test_jitter_turns_hue_at_constant_luma():
    red = np.tile(np.array([150, 100, 100], "float32"), (200, 2, 2, 1))
    none = dict.fromkeys(("brightness_factor", "contrast_factor", "saturation_factor"), 0.0)
    turned = random_color_jitter(red, TARGETS, position(count=200), **none, hue_factor=1.0)[0].numpy()[
        :, 0, 0
    ]
    np.testing.assert_allclose(turned @ [0.299, 0.587, 0.114], 114.95, atol=0.1)
    assert {int(pixel.argmax()) for pixel in turned} == {0, 1, 2}
    in_phase = turned @ [0.596, -0.274, -0.322]
    quadrature = turned @ [0.211, -0.523, 0.312]
    np.testing.assert_allclose(np.hypot(in_phase, quadrature), np.hypot(29.8, 10.55), rtol=1e-3)


@pytest.mark.parametrize("function", [mix_up, cut_mix])
def test_labels_mix_with_the_share_of_the_pixels(function):
    # Image i is i everywhere, and target i is i: whatever the share, pixel mean and target stay equal.
    numbers = np.arange(BATCH, dtype="float32")[:, None]
    images = np.broadcast_to(numbers[:, :, None, None] * 10, (BATCH, 16, 16, 3)).astype("float32")
    mixed, targets = function(tf.constant(images), tf.constant(numbers), position(), alpha=1.0)
    np.testing.assert_allclose(
        mixed.numpy().mean((1, 2, 3)), targets.numpy()[:, 0] * 10, rtol=1e-4, atol=1e-3
    )
    assert distinct(mixed.numpy()) == BATCH
    assert (np.abs(targets.numpy() - numbers) > 0.05).sum() > BATCH // 2
    if function is cut_mix:
        assert set(np.unique(mixed)) <= set(np.unique(images))


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 10.0])
def test_mix_up_draws_from_beta(alpha):
    count = 4000
    images = tf.cast(tf.tile(tf.reshape(tf.range(count) % 2, [-1, 1, 1, 1]), [1, 1, 1, 1]), tf.float32)
    share = mix_up(images, tf.zeros([count, 1]), position(count=count), alpha=alpha)[0].numpy().ravel()
    share = np.where(np.arange(count) % 2, share, 1 - share)
    assert np.isfinite(share).all()
    assert share.mean() == pytest.approx(0.5, abs=0.04)
    assert share.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.1)


def test_mixing_refuses_class_indices():
    with pytest.raises(ValueError, match=r"one-hot.*int32"):
        mix_up(tf.constant(pictures()), tf.range(BATCH), position())


def test_cutout_covers_at_most_its_square():
    images = tf.fill([500, 12, 12, 1], 200.0)
    cut = random_erasing(images, TARGETS, position(count=500), size=4, fill_value=0)[0].numpy()[..., 0] == 0
    area, height, width = cut.sum((1, 2)), cut.any(2).sum(1), cut.any(1).sum(1)
    np.testing.assert_array_equal(area, height * width)
    assert height.max() == width.max() == 4
    assert 2 <= height.min() <= 3  # at the border part of it falls outside
    assert cut.any(0).all()  # every pixel is reached


def test_erasing_keeps_to_scale_and_probability():
    images = tf.fill([1000, 20, 20, 3], 200.0)
    cut = random_erasing(images, TARGETS, position(count=1000), factor=0.3, scale=(0.1, 0.2), fill_value=5)[0]
    share = (cut.numpy()[..., 0] == 5).mean((1, 2))
    assert 250 < (share > 0).sum() < 350
    assert 0.08 < share[share > 0].min() < 0.11 < 0.19 < share.max() < 0.22
    noise = random_erasing(images, TARGETS, position(count=1000), scale=(0.5, 0.5))[0].numpy()
    assert len(np.unique(noise)) > 1000


def test_rand_augment_operations_against_pillow():
    pil = pytest.importorskip("PIL.Image")
    from PIL import ImageEnhance, ImageOps

    image = pictures()[0]
    picture = pil.fromarray(image)
    # Level 10 / 30: factors 1.3, three bits kept from posterize's seven, threshold 170.
    expected = {
        "_auto_contrast": ImageOps.autocontrast(picture),
        "_equalize": ImageOps.equalize(picture),
        "_solarize": ImageOps.solarize(picture, 170),
        "_color": ImageEnhance.Color(picture).enhance(1.3),
        "_contrast": ImageEnhance.Contrast(picture).enhance(1.3),
        "_brightness": ImageEnhance.Brightness(picture).enhance(1.3),
        "_sharpness": ImageEnhance.Sharpness(picture).enhance(1.3),
        "_posterize": ImageOps.posterize(picture, 7),
    }
    by_name = {operation.__name__: operation for operation in OPERATIONS}
    for name, wanted in expected.items():
        got = by_name[name](tf.constant(image[None], tf.float32), 10 / 30, tf.ones([1]))[0].numpy()
        assert np.abs(got - np.asarray(wanted, "float32")).max() <= 2, name


def test_rand_augment_uses_every_operation_and_keeps_the_order():
    images = np.random.default_rng(0).uniform(0, 255, (600, 8, 8, 3)).astype("float32")
    images[:, 0, 0] = np.arange(600)[:, None] / 600 * 255  # no two alike
    got = rand_augment(images, tf.range(600), position(count=600), num_ops=1, magnitude=9)[0].numpy()
    unchanged = np.isclose(got, images, atol=1e-3).all((1, 2, 3))
    assert 15 < unchanged.sum() < 150  # 1 of 14 is the identity, and some have next to no effect
    similar = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, got, strict=True)]
    assert np.median(np.abs(similar)) > 0.8  # each image came back in its own place
    for operation in OPERATIONS:
        changed = operation(tf.constant(images[:4]), 0.3, tf.constant([1.0, -1.0, 1.0, -1.0])).numpy()
        assert changed.shape == (4, 8, 8, 3)
        assert operation(tf.zeros([0, 8, 8, 3]), 0.3, tf.zeros([0])).shape == (0, 8, 8, 3)


def test_table_resolves():
    for target in IMAGE_AUGMENTATIONS.values():
        assert callable(pkgutil.resolve_name(target))
