"""Each schedule against values worked out by hand; warm-up, epochs and steps; saving; plateau."""

import inspect
import math
import pkgutil

import keras
import numpy as np
import pytest

from dlcli.training import SCHEDULES
from dlcli.training import schedules as s

STEPS = s.Steps(per_epoch=10, total=100)


def at(schedule, *steps):
    return s.learning_rates(schedule, np.array(steps))


def build(name, steps=STEPS, learning_rate=0.5, **arguments):
    return pkgutil.resolve_name(SCHEDULES[name])(learning_rate, steps, **arguments)


# name, arguments, then {step: expected share of the learning rate}
BY_HAND = [
    ("constant", {}, {0: 1, 99: 1}),
    ("step_decay", {"every_epochs": 3, "factor": 0.5}, {0: 1, 29: 1, 30: 0.5, 59: 0.5, 60: 0.25, 99: 0.125}),
    ("step_decay", {}, {0: 1, 32: 1, 33: 0.1, 66: 0.01}),
    ("piecewise_constant_decay", {}, {0: 1, 49: 1, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}),
    (
        "piecewise_constant_decay",
        {"boundaries_epochs": [1, 2.5], "factors": [0.1, 1, 0]},
        {0: 0.1, 9: 0.1, 10: 1, 24: 1, 25: 0},
    ),
    ("exponential_decay", {}, {0: 1, 50: 0.1, 100: 0.01}),
    (
        "exponential_decay",
        {"decay_rate": 0.5, "decay_steps": 20, "staircase": True},
        {19: 1, 20: 0.5, 60: 0.125},
    ),
    ("inverse_time_decay", {"decay_rate": 3, "decay_epochs": 2}, {0: 1, 20: 1 / 4, 40: 1 / 7}),
    ("polynomial_decay", {"end_learning_rate": 0.1}, {0: 1, 50: 0.6, 100: 0.2, 150: 0.2}),
    ("polynomial_decay", {"power": 2.0}, {25: 0.5625, 50: 0.25}),
    ("cosine_decay", {"alpha": 0.1}, {0: 1, 50: 0.55, 100: 0.1, 120: 0.1}),
    ("cosine_decay", {"decay_epochs": 6}, {20: 0.75, 40: 0.25, 60: 0}),
    (
        "cosine_decay_restarts",
        {"first_decay_steps": 10, "m_mul": 0.5},
        {0: 1, 5: 0.5, 10: 0.5, 20: 0.25, 30: 0.25, 50: 0.125},
    ),
    ("cosine_decay_restarts", {"first_decay_epochs": 1, "t_mul": 1.0}, {0: 1, 5: 0.5, 10: 1, 25: 0.5, 30: 1}),
    ("cyclical", {"minimum_factor": 0.2}, {0: 0.2, 10: 0.6, 20: 1, 30: 0.6, 40: 0.2, 60: 1}),
    (
        "cyclical",
        {"mode": "triangular2", "minimum_factor": 0.2, "step_size_steps": 10},
        {10: 1, 20: 0.2, 30: 0.6, 50: 0.4, 70: 0.3},
    ),
    (
        "cyclical",
        {"mode": "exp_range", "minimum_factor": 0.0, "step_size_steps": 10, "gamma": 0.99},
        {0: 0, 10: 0.99**10, 25: 0.5 * 0.99**25},
    ),
    # airbench (Jordan 2024): 0.2 at the start, the peak at 23 % of the steps, 0 at the end.
    (
        "one_cycle",
        {"warmup_fraction": 0.23, "anneal": "linear", "start_factor": 0.2},
        {0: 0.2, 10: 0.2 + 0.8 * 10 / 23, 23: 1, 30: 70 / 77, 100: 0, 110: 0},
    ),
    (
        "one_cycle",
        {"warmup_epochs": 4, "start_factor": 0.1, "end_factor": 0.01},
        {0: 0.1, 20: 0.55, 40: 1, 70: 0.505, 100: 0.01},
    ),
    ("reduce_on_plateau", {}, {0: 1, 99: 1}),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), BY_HAND)
def test_by_hand(name, arguments, expected):
    np.testing.assert_allclose(
        at(build(name, **arguments), *expected) / 0.5, list(expected.values()), rtol=1e-5, atol=1e-6
    )


def test_table_is_covered():
    assert {name for name, _, _ in BY_HAND} == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_epochs_and_steps_agree_and_exclude_each_other(name):
    parameters = inspect.signature(pkgutil.resolve_name(SCHEDULES[name])).parameters
    everywhere = np.arange(0, 120)
    times = [parameter[: -len("_epochs")] for parameter in parameters if parameter.endswith("_epochs")]
    assert "warmup" in times
    assert len(parameters) <= 9  # learning_rate, steps and at most seven
    for time in times:
        epochs, steps = ([2.0, 3.0], [20, 30]) if time == "boundaries" else (2.0, 20)
        by_epochs, by_steps = (
            build(name, **{f"{time}_epochs": epochs}),
            build(name, **{f"{time}_steps": steps}),
        )
        np.testing.assert_array_equal(at(by_epochs, *everywhere), at(by_steps, *everywhere))
        with pytest.raises(ValueError, match=f"{time}_epochs={epochs}".replace("[", r"\[")):
            build(name, **{f"{time}_epochs": epochs, f"{time}_steps": steps})


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one_cycle"])
def test_after_its_warm_up_a_schedule_runs_as_if_training_began_there(name):
    warmed = build(name, warmup_epochs=2)
    alone = build(name, steps=s.Steps(10, 80))
    target = at(alone, 0)[0]
    np.testing.assert_allclose(at(warmed, 0, 5, 10, 15), target * np.array([0, 0.25, 0.5, 0.75]), rtol=1e-6)
    np.testing.assert_allclose(at(warmed, *range(20, 100)), at(alone, *range(80)), rtol=1e-5, atol=1e-8)


def test_warm_up_may_begin_above_zero():
    schedule = build("cosine_decay", warmup_steps=10, warmup_start_factor=0.2)
    np.testing.assert_allclose(at(schedule, 0, 5, 10, 55), [0.1, 0.3, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(at(build("constant", warmup_epochs=0), 0, 1), [0.5, 0.5])


@pytest.mark.parametrize("arguments", [{}, {"warmup_epochs": 1.5}])
@pytest.mark.parametrize("name", SCHEDULES)
def test_saved_and_loaded_it_is_the_same(name, arguments):
    schedule = build(name, **arguments)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    np.testing.assert_array_equal(at(schedule, *range(100)), at(loaded, *range(100)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_array_of_steps_gives_what_single_steps_give(name):
    schedule = build(name, warmup_steps=7)
    alone = [float(schedule(keras.ops.convert_to_tensor(step, "int64"))) for step in range(0, 100, 9)]
    np.testing.assert_allclose(at(schedule, *range(0, 100, 9)), alone, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [{}, {"warmup_epochs": 3}])
def test_a_training_of_one_step(name, warmup):
    rate = at(build(name, steps=s.Steps(per_epoch=1, total=1), **warmup), 0, 1)
    assert np.isfinite(rate).all()
    assert (rate >= 0).all()


@pytest.mark.parametrize(
    "arguments",
    [{"boundaries_steps": [5, 5]}, {"boundaries_steps": []}, {"boundaries_epochs": [1], "factors": [1]}],
)
def test_piecewise_refuses_what_is_no_staircase(arguments):
    with pytest.raises(ValueError, match="Expected"):
        build("piecewise_constant_decay", **arguments)


def test_the_optimizer_follows_the_schedule():
    schedule = build(
        "one_cycle", steps=s.Steps(2, 4), learning_rate=1.0, anneal="linear", warmup_steps=2, start_factor=0.5
    )
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(schedule)
    seen = []
    for _ in range(4):
        optimizer.apply([keras.ops.ones(1)], [weight])
        seen.append(float(weight[0]))
    np.testing.assert_allclose(-np.diff([0.0, *seen]), [0.5, 0.75, 1.0, 0.5])


def losses(callback, *values):
    """The scale after each epoch."""
    scales = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": value})
        scales.append(callback.scale)
    return scales


def plateau(mode="min", **arguments):
    schedule = build("reduce_on_plateau", learning_rate=1.0, factor=0.5, warmup_steps=4, **arguments)
    found = s.find_plateau(schedule)
    return schedule, s.PlateauCallback(found, "val_loss", mode)


def test_plateau_reduces_after_its_patience():
    schedule, callback = plateau(patience=2)
    assert losses(callback, 1.0, 0.9, 0.9, 0.95, 0.89, 1, 1, 1, 1) == [
        1,
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
    ]
    np.testing.assert_allclose(at(schedule, 2, 4, 99), [0.5, 0.125, 0.125])


def test_plateau_minds_mode_cooldown_delta_nan_and_minimum():
    assert losses(plateau("max", patience=1)[1], 0.1, 0.2, 0.2, 0.3) == [1, 1, 0.5, 0.5]
    assert losses(plateau(patience=1, cooldown=2)[1], 1, 1, 1, 1, 1) == [1, 0.5, 0.5, 0.5, 0.25]
    assert losses(plateau(patience=1, min_delta=0.1)[1], 1, 0.95, 0.8) == [1, 0.5, 0.5]
    assert losses(plateau(patience=1)[1], math.nan, 1.0, 0.9) == [0.5, 0.5, 0.5]
    schedule, callback = plateau(patience=1, min_learning_rate=0.3)
    assert losses(callback, 1, 1, 1, 1)[-1] == 0.25
    assert at(schedule, 50) == pytest.approx(0.3)


def test_plateau_state_goes_on_in_another_process():
    values = [1.0, 0.8, 0.9, 0.9, 0.7, 0.75, 0.75, 0.75, 0.75]
    whole = losses(plateau(patience=2, cooldown=1)[1], *values)
    _, first = plateau(patience=2, cooldown=1)
    losses(first, *values[:5])
    _, second = plateau(patience=2, cooldown=1)
    second.set_state(first.get_state())
    assert losses(second, *values[5:]) == whole[5:]


def test_plateau_names_a_metric_that_is_not_there():
    with pytest.raises(ValueError, match=r"'val_loss'.*loss, accuracy"):
        plateau()[1].on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})


def test_plateau_acts_within_fit():
    schedule, callback = plateau(patience=1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    data = (np.zeros((8, 2), "float32"), np.zeros((8, 1), "float32"))  # the loss is 0 from the first epoch on
    model.fit(*data, batch_size=4, epochs=4, validation_data=data, callbacks=[callback], verbose=0)
    assert callback.scale == 0.125
    assert float(model.optimizer.learning_rate) == pytest.approx(0.125)
    assert s.find_plateau(build("constant", warmup_steps=3)) is None
