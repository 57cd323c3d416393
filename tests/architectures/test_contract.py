"""What holds for every architecture of the table."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from pkgutil import resolve_name

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlcli
from dlcli.architectures import ARCHITECTURES

# name: input shape, small arguments that use the whole builder, feature shape. A new family needs a row.
TINY = {
    "perceptron": ((8, 8, 1), {}, (64,)),
    "mlp": ((12,), {"hidden": [16, 8]}, (8,)),
    "cnn": ((8, 8, 1), {"filters": [8, 8], "dense": [16]}, (16,)),
    "lenet5": ((28, 28, 1), {}, (84,)),
    "alexnet": ((32, 32, 3), {"dropout": 0.0}, (1, 1, 256)),
    "vgg": ((32, 32, 3), {"depth": 11, "dropout": 0.0}, (1, 1, 512)),
    "resnet": ((8, 8, 3), {"depth": 8}, (2, 2, 64)),
    "wide_resnet": ((8, 8, 3), {"depth": 10, "width": 1}, (2, 2, 64)),
    "airbench": ((25, 25, 3), {"filters": [8, 16, 16]}, (16,)),
    "application": ((32, 32, 3), {"model": "mobilenet_v3_small", "weights": "none"}, (1, 1, 576)),
}


def build(name: str) -> tuple[keras.Model, keras.KerasTensor]:
    """The tiny network with an output layer as tasks add it, and its features."""
    if name not in TINY:
        pytest.fail(f"architecture {name} has no row in TINY")
    shape, arguments, _ = TINY[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    features = resolve_name(ARCHITECTURES[name])(inputs, **arguments)
    vector = keras.layers.GlobalAveragePooling2D()(features) if len(features.shape) == 4 else features
    return keras.Model(inputs, keras.layers.Dense(2)(vector)), features


def examples(shape: tuple[int, ...], count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose class is the sign of a slope along its first axis."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    slope = np.linspace(-1, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    signal = np.where(labels.reshape(-1, *[1] * len(shape)) == 1, slope, -slope)
    return (0.5 + 0.25 * signal + 0.1 * rng.normal(size=(count, *shape))).astype("float32"), labels


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def built(name: str) -> tuple[keras.Model, keras.KerasTensor]:
    return build(name)


def test_features_have_the_documented_shape(name, built):
    assert tuple(built[1].shape) == (None, *TINY[name][2])


def test_every_trainable_weight_gets_a_gradient(name, built):
    model, _ = built
    inputs, labels = examples(TINY[name][0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(labels, model(inputs, training=True))
    gradients = tape.gradient(value, [weight.value for weight in model.trainable_weights])
    dead = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert model.trainable_weights
    assert dead == []


def test_a_saved_model_gives_equal_outputs(name, built, tmp_path):
    model, _ = built
    inputs, _ = examples(TINY[name][0], 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs, training=False), model(inputs, training=False), atol=1e-6)


def test_it_learns_a_learnable_signal(name, built):
    model, _ = built
    inputs, labels = examples(TINY[name][0])
    for layer in model.layers:
        if getattr(layer, "adapts_to_inputs", False):
            layer.adapt(inputs)
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(inputs, training=True))
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(value, [weight.value for weight in weights]), weights)
        return value

    values = [float(step())]
    while len(values) < 30 and values[-1] > 0.5 * values[0]:
        values.append(float(step()))
    assert values[-1] <= 0.5 * values[0], values


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_same_seed_gives_the_same_weights(name):
    if name in ("vgg", "alexnet", "application"):
        pytest.skip("as the others, only larger")
    first, second = build(name)[0].get_weights(), build(name)[0].get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    # A square Dirac kernel is the identity and nothing drawn: zeros and ones alone.
    large = [weight for weight in first if weight.size > 100 and len(np.unique(weight)) > 2]
    equal = [
        (i, j)
        for i, a in enumerate(large)
        for j, b in enumerate(large[:i])
        if a.shape == b.shape and np.array_equal(a, b)
    ]
    assert equal == [], "two layers drew the same numbers"


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_signature_is_a_schema(name):
    parameters = list(inspect.signature(resolve_name(ARCHITECTURES[name])).parameters.values())
    assert parameters[0].name == "inputs"
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[1:])
    assert len(parameters) - 1 <= 7
    description = inspect.getdoc(resolve_name(ARCHITECTURES[name]))
    assert all(f"{parameter.name}: " in description for parameter in parameters)


@pytest.mark.parametrize("folder", ["architectures", "layers"])
def test_modules_import_no_framework_but_keras(folder):
    for path in (Path(dlcli.__file__).parent / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            foreign = {module.split(".")[0] for module in modules} - {
                "keras",
                "numpy",
                "dlcli",
                *sys.stdlib_module_names,
            }
            assert not foreign, f"{path.name} imports {foreign}"
            assert not any(module.startswith("keras.src") for module in modules), f"{path.name}: keras.src"
