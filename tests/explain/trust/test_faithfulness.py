"""Insertion and deletion against areas worked out by hand."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.trust.faithfulness import Faithfulness

SIDE = 8


def model_of_one_pixel(row=2, column=5):
    """Two logits, of which the second is sure of its class when one pixel is bright, and of the other when it is not."""
    inputs = keras.Input((SIDE, SIDE, 1))
    pixel = layers.Cropping2D(((row, SIDE - row - 1), (column, SIDE - column - 1)))(inputs)
    head = layers.Dense(2, activation="softmax")
    outputs = head(layers.Flatten()(pixel))
    head.set_weights([np.array([[0.0, 100.0]]), np.array([0.0, -50.0])])
    return keras.Model(inputs, outputs)


def image_of_one_pixel(row=2, column=5):
    image = np.zeros((SIDE, SIDE, 1), np.float32)
    image[row, column] = 1.0
    return Subject("one", image)


def network_of(model, kind="image"):
    return Network(model, kind, np.zeros((1, *model.inputs[0].shape[1:]), np.float32))


def linear(weights, bias=0.0):
    """A sum of columns, which is a value and no class."""
    head = layers.Dense(1)
    model = keras.Sequential([keras.Input((len(weights),)), head])
    head.set_weights([np.asarray(weights, np.float32)[:, None], np.array([bias], np.float32)])
    return model


def test_the_one_pixel_that_matters_gives_the_best_and_worst_areas():
    network, subject = network_of(model_of_one_pixel()), image_of_one_pixel()
    faithful = Faithfulness(network, subject, 1)
    right = faithful.of(Attribution(subject.inputs[..., 0], signed=False))
    wrong = faithful.of(Attribution(-subject.inputs[..., 0], signed=True))
    # 64 pixels in 20 steps: the first shows or hides 3, the last 3; between the points lie straight lines.
    first = 3 / 64 / 2
    assert right.insertion == pytest.approx(1 - first, abs=1e-6)
    assert right.deletion == pytest.approx(first, abs=1e-6)
    assert wrong.insertion == pytest.approx(first, abs=1e-6)
    assert wrong.deletion == pytest.approx(1 - first, abs=1e-6)
    assert right.random_insertion == wrong.random_insertion
    assert right.faithfulness == pytest.approx(-wrong.faithfulness - 2 * (
        right.random_insertion - right.random_deletion
    ))  # fmt: skip


def test_a_map_that_says_nothing_is_no_better_than_random():
    network, subject = network_of(model_of_one_pixel()), image_of_one_pixel()
    trusts = [
        Faithfulness(network, subject, 1, seed=seed).of(Attribution(np.zeros((SIDE, SIDE)), signed=False))
        for seed in range(4)
    ]
    # Equal pixels are taken in a random order, not from the top left, where this pixel would always come early.
    assert len({trust.insertion for trust in trusts}) == 4
    assert sum(trust.verdict == "no better than random" for trust in trusts) >= 3


def test_a_map_that_is_not_finite_has_no_area_and_does_not_disturb_others():
    network, subject = network_of(model_of_one_pixel()), image_of_one_pixel()
    faithful = Faithfulness(network, subject, 1)
    broken = faithful.of(Attribution(np.full((SIDE, SIDE), np.nan, np.float32), signed=False))
    assert np.isnan(broken.insertion)
    assert broken.verdict == "no better than random"
    assert np.isfinite(faithful.of(Attribution(subject.inputs[..., 0], signed=False)).insertion)


def test_the_verdict_compares_with_the_spread_of_random_orders():
    weights = np.repeat([8.0, 4.0, 2.0, 1.0, 0.0], 4)
    network, subject = network_of(linear(weights), "table"), Subject("row", np.ones(20, np.float32))
    faithful = Faithfulness(network, subject, 0, background=np.zeros((1, 20), np.float32))
    verdicts = {
        "better than random": weights,
        "worse than random": -weights,
        "no better than random": np.random.default_rng(0).normal(size=20),
    }
    for verdict, values in verdicts.items():
        assert faithful.of(Attribution(values, signed=True)).verdict == verdict


def test_the_batch_size_and_the_order_of_methods_change_nothing():
    network, subject = network_of(model_of_one_pixel()), image_of_one_pixel()
    some = Attribution(np.random.default_rng(0).normal(size=(SIDE, SIDE)), signed=True)
    other = Attribution(subject.inputs[..., 0], signed=False)
    all_at_once = Faithfulness(network, subject, 1).of(some)
    small = Faithfulness(network, subject, 1, batch_size=3)
    small.of(other)
    assert small.of(some) == all_at_once
    assert Faithfulness(network, subject, 1, seed=1).of(some) != all_at_once


def test_the_random_orders_are_computed_once(monkeypatch):
    network, subject = network_of(model_of_one_pixel()), image_of_one_pixel()
    counted = []
    outputs = network.outputs
    monkeypatch.setattr(
        network, "outputs", lambda inputs, *rest: counted.append(len(inputs)) or outputs(inputs, *rest)
    )
    faithful = Faithfulness(network, subject, 1)
    faithful.of(Attribution(subject.inputs[..., 0], signed=False))
    first, counted[:] = sum(counted), []
    faithful.of(Attribution(-subject.inputs[..., 0], signed=True))
    # 19 points between the ends, of two curves; the ends are known.
    assert sum(counted) == 38
    assert first == 38 * 11 + 4


def test_columns_of_a_sum_give_the_areas_of_their_shares():
    """f = 4a + 3b + 2c + d at (1, 1, 1, 1), with a background of zeros: the value is a sum of what is shown."""
    network = network_of(linear([4.0, 3.0, 2.0, 1.0]), "table")
    subject = Subject("row 1", np.ones(4, np.float32))
    background = np.zeros((3, 4), np.float32)
    right = Attribution(np.array([4.0, 3.0, 2.0, 1.0]), signed=True, base=0.0)
    trust = Faithfulness(network, subject, 0, background=background).of(right)
    # Shown: 0, 4, 7, 9, 10 of 10; hidden: 10, 6, 3, 1, 0 of 10.
    assert trust.insertion == pytest.approx((0 / 2 + 4 + 7 + 9 + 10 / 2) / 40)
    assert trust.deletion == pytest.approx((10 / 2 + 6 + 3 + 1 + 0 / 2) / 40)
    assert trust.completeness == pytest.approx(0, abs=1e-6)
    assert trust.random_insertion == pytest.approx(0.5, abs=0.1)  # the mean over all orders is a half
    less = Faithfulness(network, subject, 0, background=background).of(
        replace(right, values=right.values * 0.9)
    )
    assert less.completeness == pytest.approx(0.1, abs=1e-6)


def test_a_value_below_that_of_the_background_is_explained_by_what_lowers_it():
    network = network_of(linear([-4.0, -3.0, -2.0, 1.0]), "table")
    subject = Subject("row 1", np.ones(4, np.float32))
    faithful = Faithfulness(network, subject, 0, background=np.zeros((2, 4), np.float32))
    right = faithful.of(Attribution(np.array([-4.0, -3.0, -2.0, 1.0]), signed=True))
    wrong = faithful.of(Attribution(np.array([4.0, 3.0, 2.0, -1.0]), signed=True))
    assert right.faithfulness > 0.2 > 0 > wrong.faithfulness


def test_a_hidden_column_is_the_mean_over_the_background():
    """f = a * b is 6; with a hidden it is the mean of background a times b."""
    one, two = (keras.Input((1,), name=name) for name in "ab")
    model = keras.Model({"a": one, "b": two}, layers.Multiply()([one, two]))
    network = Network(model, "table", {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.float32)})
    subject = Subject("row", {"a": np.array([2.0], np.float32), "b": np.array([3.0], np.float32)})
    background = {
        name: np.array(rows, np.float32)[:, None] for name, rows in {"a": [0, 1, 5], "b": [1, 1, 4]}.items()
    }
    curves = Faithfulness(network, subject, 0, background=background).curves(
        Attribution(np.array([1.0, 0.0]), signed=True)
    )
    # Nothing shown: mean(0*1, 1*1, 5*4) = 7; a shown: 2 * mean(1, 1, 4) = 4; b shown: 3 * mean(0, 1, 5) = 6; both: 6.
    assert curves["share"].tolist() == [0, 0.5, 1]
    low, high = 4.0, 7.0
    assert curves["insertion"] * (high - low) + low == pytest.approx([7, 4, 6])
    assert curves["deletion"] * (high - low) + low == pytest.approx([6, 6, 7])


class Positive(layers.Layer):
    """(B, T) ids -> (B, 1): 1 where word 7 is there."""

    def call(self, ids):
        return keras.ops.cast(keras.ops.any(ids == 7, axis=1, keepdims=True), "float32")


def test_words_are_hidden_by_removing_them_and_the_right_word_is_found():
    inputs = keras.Input((None,), dtype="int32")
    head = layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(Positive()(inputs)))
    head.set_weights([np.array([[0.0, 40.0]]), np.array([0.0, -20.0])])
    network = Network(model, "text", np.array([[2, 9, 7, 3]], np.int32))
    # <start> w0 w1 w1 w2 w3 <end>; the word that matters, w1, has two tokens.
    subject = Subject(
        "a text",
        np.array([2, 9, 7, 8, 9, 10, 3], np.int32),
        words=("w0", "w1", "w2", "w3"),
        word_of=np.array([-1, 0, 1, 1, 2, 3, -1]),
    )
    values = np.array([0, 0.3, 0.2, 0.2, 0, 0.1, 5.0], np.float32)
    curves = Faithfulness(network, subject, 1).curves(Attribution(values, signed=True))
    # w1 has 0.2 + 0.2, more than w0's 0.3; the special token's 5 does not count.
    assert curves["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curves["insertion"] == pytest.approx([0, 1, 1, 1, 1], abs=1e-6)
    assert curves["deletion"] == pytest.approx([1, 0, 0, 0, 0], abs=1e-6)
    trust = Faithfulness(network, subject, 1).of(Attribution(values, signed=True))
    assert trust.insertion == pytest.approx(1 - 1 / 8)
    assert trust.deletion == pytest.approx(1 / 8)
