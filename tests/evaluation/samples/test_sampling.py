"""Draws of saved models: the same for the same seed, in range, with the classes that were asked for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.errors import DlcliError
from dlcli.evaluation.samples import sampling
from dlcli.evaluation.samples.grid import write_image
from dlcli.evaluation.samples.sampling import (
    as_pixels,
    draw_images,
    latents_of,
    path_of,
    preview,
    spherical,
    stretches_of,
    write_animation,
)
from dlcli.layers.generated_images import GeneratedImages

NAMES = ("cat", "dog", "owl")


def drawer(names: tuple[str, ...] = ()) -> keras.Model:
    """Latents (2,) -> an image of two pixels, tanh of them; a label shifts both by a quarter of it."""
    latents = keras.Input((2,), name="latents")
    x = keras.layers.Activation("tanh")(latents)
    given = latents
    if names:
        labels = keras.Input((), dtype="int32", name="labels")
        given = {"latents": latents, "labels": labels}
        table = keras.layers.Embedding(len(names), 2, embeddings_initializer="zeros")
        x = keras.layers.Add()([keras.layers.Rescaling(0.0)(x), table(labels)])
        table.set_weights([np.arange(len(names))[:, None] * np.full((1, 2), 0.25)])
    return keras.Model(given, GeneratedImages(names)(keras.layers.Reshape((1, 2, 1))(x)))


def test_a_draw_is_a_function_of_the_seed_and_of_nothing_else(monkeypatch) -> None:
    model = drawer()
    images = draw_images(model, 30, 7)
    assert images.shape == (30, 1, 2, 1) and images.dtype == np.uint8
    expected = np.round((np.tanh(latents_of(model, 30, 7)) + 1) / 2 * 255)
    assert np.abs(images[:, 0, :, 0] - expected).max() <= 1
    monkeypatch.setattr(sampling, "BATCH_SIZE", 8)
    assert (draw_images(model, 20, 7) == images[:20]).all()  # smaller batches, fewer of them: the same images
    assert (draw_images(model, 20, 8) != images[:20]).any()


def test_classes_come_in_turn_or_as_asked() -> None:
    model = drawer(NAMES)
    levels = as_pixels((np.arange(3) * 0.25 + 1) / 2)
    assert draw_images(model, 5, 0)[:, 0, 0, 0].tolist() == levels[[0, 1, 2, 0, 1]].tolist()
    assert (draw_images(model, 4, 0, np.full(4, 2, np.int32)) == levels[2]).all()


def test_a_preview_has_a_row_for_each_class_and_the_same_latents_in_each() -> None:
    assert preview(drawer(), 3).columns == 8 and len(preview(drawer(), 3).images) == 64
    shown = preview(drawer(NAMES), 3)
    assert list(shown.row_names) == list(NAMES)
    rows = shown.images.reshape(3, 8, 2)
    assert [len(np.unique(row)) for row in rows] == [1, 1, 1] and rows[0, 0, 0] < rows[1, 0, 0] < rows[
        2, 0, 0
    ]


def test_a_model_of_images_has_no_latents() -> None:
    image = keras.Input((1, 1, 1), name="image")
    with pytest.raises(DlcliError, match="reads image, not latents"):
        latents_of(keras.Model(image, image), 1, 0)


def test_spherical_interpolation_keeps_to_the_circle() -> None:
    begin, end = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    for share in (0.0, 0.25, 1.0):
        found = spherical(begin, end, np.array([[share]]))
        angle = share * np.pi / 2
        np.testing.assert_allclose(found, [[2 * np.cos(angle), 2 * np.sin(angle)]], atol=1e-6)
    # Of lengths 1 and 3 the middle has 2, where a straight line would have sqrt(10) / 2.
    middle = spherical(np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]]), np.array([[0.5]]))
    np.testing.assert_allclose(middle, [[2**0.5, 2**0.5]], atol=1e-6)
    same = spherical(begin, begin, np.array([[0.5]]))
    np.testing.assert_allclose(same, begin)


def test_a_walk_passes_its_corners_evenly_and_ends_where_it_began() -> None:
    corners = latents_of(drawer(), stretches_of(32), 0).reshape(4, 1, 2)
    walked, stretch = path_of(corners, 32)
    assert stretch.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    np.testing.assert_allclose(walked[::8], corners, atol=1e-6)
    steps = np.linalg.norm(np.diff(walked, axis=0, append=walked[:1]), axis=(1, 2))
    assert steps.max() < np.linalg.norm(corners, axis=(1, 2)).max()  # the last one leads back to the first


def test_what_is_not_a_number_is_black() -> None:
    assert as_pixels(np.array([np.nan, -1, 0.5, 2])).tolist() == [0, 0, 128, 255]


def test_the_moving_picture_shows_the_epochs_in_their_order(tmp_path) -> None:
    write_animation(tmp_path, tmp_path / "training.gif")
    write_image(np.zeros((4, 4, 1), np.uint8), tmp_path / "epoch_0001.png")
    write_animation(tmp_path, tmp_path / "training.gif")
    assert not (tmp_path / "training.gif").exists()  # one picture does not move
    for epoch in (9999, 10000, 2):
        write_image(np.full((4, 4, 1), epoch % 251, np.uint8), tmp_path / f"epoch_{epoch:04d}.png")
    write_animation(tmp_path, tmp_path / "training.gif")
    seen, durations = [], []
    with Image.open(tmp_path / "training.gif") as picture:
        for frame in range(picture.n_frames):
            picture.seek(frame)
            seen.append(int(np.asarray(picture.convert("L"))[0, 0]))
            durations.append(picture.info["duration"])
    assert seen == [0, 2, 9999 % 251, 10000 % 251]
    assert durations == [300, 300, 300, 2000]


def test_of_many_epochs_some_frames_are_left_out_but_not_the_last(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "MOST_FRAMES", 3)
    for epoch in range(1, 8):
        write_image(np.full((4, 4, 3), 30 * epoch, np.uint8), tmp_path / f"epoch_{epoch:04d}.png")
    write_animation(tmp_path, tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as picture:
        assert picture.n_frames == 3
        picture.seek(2)
        assert np.asarray(picture.convert("L"))[0, 0] == 210
