"""What the model sees in the place of hidden parts."""

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.trust.parts import Columns, Pixels, Words


@pytest.fixture
def image():
    image = np.full((16, 16, 3), 40, np.uint8)
    image[:, 8:] = (200, 100, 41)
    return image


def sum_of_pixels() -> Network:
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    total = keras.ops.sum(keras.ops.cast(inputs, "float32"), axis=(1, 2, 3))[:, None]
    return Network(keras.Model(inputs, total), "image", np.zeros((1, 16, 16, 3), np.uint8))


def test_deletion_ends_at_the_mean_colour_and_insertion_starts_from_a_blur(image):
    parts = Pixels(sum_of_pixels(), image)
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
    first, second = Pixels(sum_of_pixels(), image).inputs(present, "deletion")
    different = (first != second).any(axis=-1)
    assert np.argwhere(different).tolist() == [[3, 12]]


def test_random_orders_of_an_image_are_squares(image):
    scores = Pixels(sum_of_pixels(), image).random_scores(np.random.default_rng(0)).reshape(16, 16)
    # Squares of 2 pixels: 64 of them, or 81 where the grid is cut at the border.
    assert 64 <= len(np.unique(scores)) <= 81
    runs = np.diff(np.flatnonzero(np.diff(scores[5]) != 0))
    assert (runs == 2).all()


def sum_of_ids(**options) -> Network:
    """f(ids) = the sum of the ids, which says what a model was given."""
    inputs = keras.Input((None,), dtype="int32")
    total = keras.ops.sum(keras.ops.cast(inputs, "float32"), axis=1, keepdims=True)
    return Network(keras.Model(inputs, total), "text", np.ones((1, 2), np.int32), **options)


def test_hidden_words_are_removed_and_special_tokens_stay():
    subject = Subject(
        "ends",
        np.array([2, 11, 12, 40, 3], np.int32),
        words=("one", "two"),
        word_of=np.array([-1, 0, 0, 1, -1]),
    )
    parts = Words(sum_of_ids(), subject)
    present = np.array([[True, True], [False, True], [False, False]])
    assert parts.count == 2
    assert parts.outputs(present, "deletion")[:, 0, 0].tolist() == [68, 45, 5]
    assert parts.scores(np.array([9.0, 1.0, 2.0, 4.0, 9.0])).tolist() == [3, 4]


def test_hidden_columns_take_the_values_of_the_background():
    inputs = {name: keras.Input((1,), name=name) for name in ("age", "hours", "same")}
    model = keras.Model(inputs, inputs["age"] + 100 * inputs["hours"] + 0 * inputs["same"])
    row = {name: np.array([value], np.float32) for name, value in (("age", 30), ("hours", 4), ("same", 7))}
    network = Network(model, "table", {name: value[None] for name, value in row.items()})
    background = {
        "age": np.array([[1.0], [2.0]], np.float32),
        "hours": np.array([[5.0], [6.0]], np.float32),
        "same": np.array([[7.0], [7.0]], np.float32),
    }
    parts = Columns(network, Subject("row", row), background)
    assert parts.count == 2  # a column that is the same everywhere cannot be hidden
    outputs = parts.outputs(np.array([[True, False], [False, True]]), "insertion")[:, :, 0]
    assert outputs.tolist() == [[530, 630], [401, 402]]
    assert parts.scores(np.array([1.0, 2.0, 9.0])).tolist() == [1, 2]


def test_columns_without_background_are_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    row = np.zeros(2, np.float32)
    with pytest.raises(DlcliError, match="rows to compare it with"):
        Columns(Network(model, "table", row[None]), Subject("row", row), None)
