"""Streams: each example once an epoch, batches that depend on (seed, step) alone, orders without memory."""

import itertools

import numpy as np
import pytest

from dlcli.data.augmentation import build_augment
from dlcli.data.examples import ArrayExamples
from dlcli.data.stream import evaluation_stream, steps_per_epoch, training_stream
from dlcli.recipe.schema import Spec


def numbered(count, size=8):
    """Images whose every pixel is the example's number, with the number as target."""
    numbers = np.arange(count, dtype="int32")
    images = np.broadcast_to(numbers[:, None, None, None] % 256, (count, size, size, 3)).astype("uint8")
    return ArrayExamples(images.copy(), numbers)


def take(stream, count):
    return list(itertools.islice(stream.as_numpy_iterator(), count))


def test_steps_per_epoch_counts_the_short_batch():
    assert [steps_per_epoch(10, size) for size in (1, 3, 5, 10, 11)] == [10, 4, 2, 1, 1]
    with pytest.raises(ValueError, match="0"):
        steps_per_epoch(0, 4)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (12, 4), (5, 8), (1, 1)])
def test_every_example_once_an_epoch(count, batch_size):
    per_epoch = steps_per_epoch(count, batch_size)
    batches = take(training_stream(numbered(count), batch_size=batch_size, seed=0), 3 * per_epoch)
    for epoch in range(3):
        targets = np.concatenate([t for _, t in batches[epoch * per_epoch : (epoch + 1) * per_epoch]])
        assert sorted(targets) == list(range(count))
    for images, targets in batches:
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, 0, 0, 0], targets)


def test_start_step_goes_on_where_the_stream_was():
    augment = build_augment(
        [Spec(name="random_flip", alternate=True), Spec(name="random_crop"), Spec(name="mix_up")]
    )
    images = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3)).astype("uint8")
    examples = ArrayExamples(images, np.arange(22, dtype="int32") % 4)

    def stream(start):
        return training_stream(
            examples, batch_size=5, seed=3, augment=augment, one_hot_classes=4, start_step=start
        )

    whole = take(stream(0), 14)
    for start in (1, 5, 11):  # within an epoch, at its beginning, in the third
        for expected, got in zip(whole[start:], take(stream(start), 14 - start), strict=True):
            np.testing.assert_array_equal(expected[0], got[0])
            np.testing.assert_array_equal(expected[1], got[1])


def test_seed_and_epoch_change_the_order():
    def order(seed, epoch):
        stream = training_stream(numbered(100), batch_size=100, seed=seed, start_step=epoch)
        return tuple(take(stream, 1)[0][1])

    assert len({order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(0, 1) == order(0, 1)


def test_orders_of_two_epochs_do_not_correlate():
    # With the four cipher rounds of tf.random.experimental.index_shuffle this is about 0.75.
    batches = take(training_stream(numbered(50_000, size=1), batch_size=50_000, seed=0), 3)
    correlation = np.corrcoef([targets for _, targets in batches])
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.02  # 4 standard errors
    neighbours = [np.corrcoef(targets[:-2], targets[2:])[0, 1] for _, targets in batches]
    assert np.abs(neighbours).max() < 0.02


def test_alternating_flip_follows_the_example_through_the_orders():
    ramp = np.tile(np.arange(8, dtype="uint8") * 10, (20, 8, 1))[..., None]
    examples = ArrayExamples(ramp, np.arange(20, dtype="int32"))
    augment = build_augment([Spec(name="random_flip", alternate=True)])
    batches = take(training_stream(examples, batch_size=6, seed=1, augment=augment), 4 * 4)
    flipped = np.zeros((4, 20), bool)
    for step, (images, targets) in enumerate(batches):
        flipped[step // 4, targets] = images[:, 0, 0, 0] > 0
    np.testing.assert_array_equal(flipped[1:], ~flipped[:-1])
    assert 0 < flipped[0].sum() < 20


def test_columns_of_a_table_stay_together():
    columns = {"a": np.arange(7, dtype="float32")[:, None], "b": np.array(list("abcdefg"))[:, None]}
    examples = ArrayExamples(columns, np.arange(7, dtype="float32")[:, None])
    for inputs, targets in take(training_stream(examples, batch_size=4, seed=0), 2):
        np.testing.assert_array_equal(inputs["a"], targets)
        assert [value.decode() for value in inputs["b"][:, 0]] == ["abcdefg"[int(t)] for t in targets[:, 0]]


def test_evaluation_stream_is_in_order_and_ends():
    batches = list(evaluation_stream(numbered(7), 3).as_numpy_iterator())
    assert [len(targets) for _, targets in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), np.arange(7))
    one_hot = next(evaluation_stream(numbered(7), 7, one_hot_classes=7).as_numpy_iterator())[1]
    np.testing.assert_array_equal(one_hot, np.eye(7))
