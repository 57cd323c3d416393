"""What the model sees in the place of hidden parts."""

import numpy as np
import pytest

from dlcli.data.text.tokenizer import PAD, UNKNOWN
from dlcli.explain.attribution import Subject
from dlcli.explain.trust.parts import Columns, Pixels, Words


@pytest.fixture
def image():
    image = np.full((16, 16, 3), 40, np.uint8)
    image[:, 8:] = (200, 100, 41)
    return image


def test_deletion_ends_at_the_mean_colour_and_insertion_starts_from_a_blur(image):
    parts = Pixels(image)
    nothing = np.zeros((1, 256), bool)
    deleted, blurred = (parts.inputs(nothing, hidden)[0] for hidden in ("deletion", "insertion"))
    assert (deleted == np.array([120, 70, 40])).all()  # 40.5 rounds to the even 40
    assert deleted.dtype == blurred.dtype == np.uint8
    # A blur keeps the sides apart and softens the edge.
    assert abs(int(blurred[8, 0, 0]) - 40) <= 2
    assert 40 < blurred[8, 7, 0] < 120 < blurred[8, 8, 0] < 200
    for hidden in ("deletion", "insertion"):
        assert (parts.inputs(~nothing, hidden)[0] == image).all()


def test_only_the_hidden_pixels_change(image):
    present = np.ones((2, 256), bool)
    present[1, 3 * 16 + 12] = False
    first, second = Pixels(image).inputs(present, "deletion")
    different = (first != second).any(axis=-1)
    assert np.argwhere(different).tolist() == [[3, 12]]


def test_random_orders_of_an_image_are_squares(image):
    scores = Pixels(image).random_scores(np.random.default_rng(0)).reshape(16, 16)
    # Squares of 2 pixels: 64 of them, or 81 where the grid is cut at the border.
    assert 64 <= len(np.unique(scores)) <= 81
    runs = np.diff(np.flatnonzero(np.diff(scores[5]) != 0))
    assert (runs == 2).all()


def test_a_text_without_words_left_is_one_unknown_word():
    words = Words(Subject("plain", np.array([11, 12, 13], np.int32), word_of=np.array([0, 0, 1])))
    rows = words.inputs(np.array([[True, False], [False, True], [False, False]]), "deletion")
    assert rows.tolist() == [[11, 12, PAD], [13, PAD, PAD], [UNKNOWN, PAD, PAD]]


def test_special_tokens_stay():
    words = Words(Subject("ends", np.array([2, 11, 12, 3], np.int32), word_of=np.array([-1, 0, 1, -1])))
    assert words.count == 2
    assert words.inputs(np.array([[False, True], [False, False]]), "deletion").tolist() == [
        [2, 12, 3, PAD], [2, 3, PAD, PAD],
    ]  # fmt: skip


def test_columns_of_text_and_numbers_take_the_values_of_the_background():
    row = {"age": np.array([30.0], np.float32), "work": np.array(["baker"])}
    background = {"age": np.array([[1.0], [2.0]], np.float32), "work": np.array([["clerk"], ["electrician"]])}
    inputs = Columns(row, background).inputs(np.array([[True, False], [False, True]]), "insertion")
    assert inputs["age"][:, 0].tolist() == [30, 30, 1, 2]
    assert inputs["work"][:, 0].tolist() == ["clerk", "electrician", "baker", "baker"]


def test_columns_without_background_are_refused():
    with pytest.raises(ValueError, match="background"):
        Columns({"age": np.array([1.0])}, None)
