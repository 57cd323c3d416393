"""Random draws and moving averages of several devices; run as a program, this prints what two of them did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def on_two_devices() -> list[dict[str, Any]]:
    """Two steps, then the second one again from what was saved before it, then a step of half a batch.

    Of each: what both replicas drew, twice if they have two examples, the states of the draws, and moving averages.
    """
    import keras
    import tensorflow as tf

    from dlcli.layers.local_normalization import LocalBatchNormalization
    from dlcli.training.replica_state import local_averages, seed_states, with_replica_state

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        inputs = keras.Input((1,))
        x = LocalBatchNormalization(momentum=0.0)(inputs)
        x = LocalBatchNormalization(momentum=0.0, trainable=False)(x)
        network = keras.Model(inputs, keras.layers.Dropout(0.5, seed=7)(x))

    def draw() -> Any:
        return network.layers[-1](tf.ones((1, 64)), training=True)

    def train(part: Any) -> dict[str, Any]:
        network(part, training=True)
        second = tf.cond(tf.shape(part)[0] > 1, draw, lambda: tf.zeros((1, 64)))
        return {"draws": tf.concat([draw(), second], 0)}

    step = with_replica_state(network, train)

    @tf.function(reduce_retracing=True)
    def on_all(*parts: Any) -> Any:
        def on_replica() -> Any:
            number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            return step(parts[number])

        return strategy.run(on_replica)

    def copies(value: Any) -> list[Any]:
        return [each.numpy().tolist() for each in strategy.experimental_local_results(value)]

    def found(*parts: Any) -> dict[str, Any]:
        draws = copies(on_all(*(tf.reshape(tf.constant(part), (-1, 1)) for part in parts))["draws"])
        averages = [copies(average.value) for average in local_averages(network)]
        return {"draws": draws, "states": copies(state.value), "averages": averages}

    (state,) = seed_states(network)
    first = found([1.0, 3.0], [8.0])
    saved = keras.ops.convert_to_numpy(state)  # as a checkpoint does it
    second = found([1.0, 3.0], [8.0])
    state.assign(saved)
    return [first, second, found([1.0, 3.0], [8.0]), found([5.0, 7.0], [])]


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    surroundings = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=120, check=False, env=surroundings
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_each_replica_draws_for_itself_in_each_step(steps: list[dict[str, Any]]) -> None:
    drawn = [row for step in steps[:2] for replica in step["draws"] for row in replica if any(row)]
    assert len(drawn) == 6  # the first replica twice in each, the second once
    assert len({tuple(row) for row in drawn}) == 6
    assert all(0.2 < row.count(0) / len(row) < 0.8 for row in drawn)


def test_states_are_alike_after_unequally_many_draws(steps: list[dict[str, Any]]) -> None:
    assert [step["states"] for step in steps] == [[[7, count]] * 2 for count in (1, 2, 2, 3)]


def test_a_step_from_a_saved_state_is_the_same(steps: list[dict[str, Any]]) -> None:
    assert steps[2]["draws"] == steps[1]["draws"]


def test_moving_averages_count_examples(steps: list[dict[str, Any]]) -> None:
    # Means 2 and 8, variances 1 and 0, of 2 and 1 examples; those of the frozen layer are not asked for.
    mean, variance = steps[0]["averages"]
    assert [value for (value,) in mean] == pytest.approx([4, 4])
    assert [value for (value,) in variance] == pytest.approx([2 / 3, 2 / 3])


def test_a_replica_without_examples_does_not_count(steps: list[dict[str, Any]]) -> None:
    mean, variance = steps[3]["averages"]
    assert (mean, variance) == ([[6.0]] * 2, [[1.0]] * 2)


if __name__ == "__main__":
    json.dump(on_two_devices(), sys.stdout)
