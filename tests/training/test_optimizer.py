"""Every optimizer of Keras builds from its name alone and learns."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.recipe.load import load_recipe
from dlcli.recipe.names import keras_class_name, keras_names
from dlcli.recipe.schema import Recipe, spec_of
from dlcli.training.optimizer import build_optimizer, build_schedule
from dlcli.training.schedules import Steps


def recipe(*changes: str) -> Recipe:
    return load_recipe("iris_mlp", ["schedule=constant", *changes])


def optimizer_of(made: Recipe) -> keras.optimizers.Optimizer:
    optimizer = spec_of(made.optimizer)
    steps = Steps(per_epoch=5, total=50)
    schedule = build_schedule(spec_of(made.schedule), optimizer.arguments["learning_rate"], steps)
    return build_optimizer(optimizer, made.regularization, schedule)


@pytest.mark.parametrize("name", keras_names("optimizers"))
def test_each_optimizer_takes_steps_downhill(name: str) -> None:
    optimizer = optimizer_of(recipe(f"optimizer={name}"))
    of_keras = next(kind for kind in type(optimizer).__mro__ if kind.__module__.startswith("keras."))
    assert of_keras is getattr(keras.optimizers, keras_class_name("optimizers", name))
    weights = [
        keras.Variable(np.full(shape, 2.0, "float32"), name=label)
        for shape, label in (((4, 3), "kernel"), ((3,), "bias"))
    ]
    optimizer.build(weights)
    for _ in range(3):
        optimizer.apply([keras.ops.copy(weight) for weight in weights], weights)  # of half the square
    for weight in weights:
        assert np.isfinite(weight).all()
        assert (np.asarray(weight) < 2.0).all()


@pytest.mark.parametrize("name", keras_names("optimizers"))
def test_the_recipes_learning_rate_reaches_each_optimizer(name: str) -> None:
    optimizer = optimizer_of(recipe(f"optimizer={{name: {name}, learning_rate: 0.0625}}"))
    assert float(optimizer.learning_rate) == 0.0625


@pytest.mark.parametrize(
    ("key", "attribute"), [("norm", "clipnorm"), ("value", "clipvalue"), ("global_norm", "global_clipnorm")]
)
def test_gradient_clipping_reaches_the_optimizer_and_bounds_the_step(key: str, attribute: str) -> None:
    made = recipe(
        f"regularization.gradient_clipping={{{key}: 0.5}}", "optimizer={name: sgd, learning_rate: 1.0}"
    )
    optimizer = optimizer_of(made)
    given = {name: getattr(optimizer, name) for name in ("clipnorm", "clipvalue", "global_clipnorm")}
    assert given == {"clipnorm": None, "clipvalue": None, "global_clipnorm": None, attribute: 0.5}
    first, second = (keras.Variable(np.zeros(1, "float32")) for _ in range(2))
    optimizer.build([first, second])
    optimizer.apply([keras.ops.array([30.0]), keras.ops.array([40.0])], [first, second])
    expected = [-0.3, -0.4] if key == "global_norm" else [-0.5, -0.5]
    np.testing.assert_allclose([float(first[0]), float(second[0])], expected, rtol=1e-5)


def test_weight_decay_and_the_average_of_weights_reach_the_optimizer() -> None:
    optimizer = optimizer_of(recipe("regularization={weight_decay: 0.25, ema: 0.5}", "optimizer=adamw"))
    assert (optimizer.weight_decay, optimizer.use_ema, optimizer.ema_momentum) == (0.25, True, 0.5)


def test_the_schedule_decides_the_rate_of_each_step() -> None:
    made = recipe(
        "optimizer={name: sgd, learning_rate: 1.0}",
        "schedule={name: step_decay, every_steps: 1, factor: 0.5}",
    )
    optimizer, weight = optimizer_of(made), keras.Variable(np.zeros(1, "float32"))
    optimizer.build([weight])
    seen = []
    for _ in range(3):
        before = float(weight[0])
        optimizer.apply([keras.ops.array([1.0])], [weight])
        seen.append(before - float(weight[0]))
    np.testing.assert_allclose(seen, [1.0, 0.5, 0.25], rtol=1e-5)
