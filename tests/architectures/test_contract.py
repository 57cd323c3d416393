"""What holds for every architecture of the table that turns inputs into features."""

from __future__ import annotations

import ast
import atexit
import inspect
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import dlcli
from dlcli.architectures import ARCHITECTURES, GENERATIVE

VOCABULARY, LENGTH = 20, 12
FAMILIES = sorted(set(ARCHITECTURES) - set(GENERATIVE))  # test_generative.py has the others


class TextTiny(NamedTuple):
    """A row of TINY for an architecture that reads tokens; one that reads two texts gets a dict of them."""

    arguments: dict[str, Any]
    feature_shape: tuple[int | None, ...]
    pairs: bool = False


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
    "application": ((32, 32, 3), {"model": "mobilenet", "weights": "none"}, (1, 1, 1024)),
    "rnn": TextTiny({"units": [8, 6], "embedding_width": 8, "pooling": "attention"}, (12,)),
    "text_cnn": TextTiny({"filters": 4, "embedding_width": 8, "dropout": 0.0}, (12,)),
    "fasttext": TextTiny({"buckets": 50}, (16,)),
    "textgen_rnn": TextTiny({"units": [8, 8], "embedding_width": 8}, (None, 8)),
    "transformer": TextTiny({"num_layers": 2, "num_heads": 2, "width": 8, "dropout": 0.0}, (None, 8)),
    "gpt": TextTiny({"num_layers": 2, "num_heads": 2, "width": 8}, (None, 8)),
    "bert": TextTiny({"num_layers": 2, "num_heads": 2, "width": 8, "dropout": 0.0}, (None, 8)),
    "seq2seq_rnn": TextTiny({"units": 8, "embedding_width": 6, "num_layers": 2}, (None, 6), pairs=True),
    "seq2seq_transformer": TextTiny(
        {
            "num_layers": 2,
            "num_heads": 2,
            "width": 8,
            "feedforward_width": 12,
            "dropout": 0.0,
            "positions": "learned",
        },
        (None, 8),
        pairs=True,
    ),
    # Its source is a file that `tiny_source` writes.
    "pretrained": ((8, 8, 3), {"preprocessing": "none"}, (128,)),
    "frozen_features": ((12,), {"source": "not read here", "dense": [8]}, (8,)),
}
READ_EITHER = ("pretrained", "frozen_features")
"""Architectures of images and of texts: what they read depends on their source."""


LEARN_SLOWLY = ("alexnet", "rnn", "seq2seq_rnn", "textgen_rnn")
"""They take so many steps that a graph pays; the others would spend their time on being traced."""

TEXTS = sorted(name for name, row in TINY.items() if isinstance(row, TextTiny))


def build(name: str) -> tuple[keras.Model, keras.KerasTensor]:
    """The tiny network with an output layer as tasks add it, and its features."""
    if name not in TINY:
        pytest.fail(f"architecture {name} has no row in TINY")
    row = TINY[name]
    keras.utils.set_random_seed(0)
    if name == "pretrained":
        row = (row[0], {**row[1], "source": tiny_source()}, row[2])
    if isinstance(row, TextTiny):
        inputs = keras.Input((None,), dtype="int32")
        if row.pairs:
            inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in ("source", "target")}
        features = resolve_name(ARCHITECTURES[name])(inputs, VOCABULARY, LENGTH, **row.arguments)
    else:
        inputs = keras.Input(row[0])
        features = resolve_name(ARCHITECTURES[name])(inputs, **row[1])
    pools = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
    rank = len(features.shape)
    vector = pools[rank]()(features) if rank in pools else features
    return keras.Model(inputs, keras.layers.Dense(2)(vector)), features


@cache
def tiny_source() -> str:
    """A convolution behind which a head can be cut off."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, 2, "same", activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    path = Path(tempfile.mkdtemp()) / "source.keras"
    atexit.register(shutil.rmtree, path.parent)
    model.save(path)
    return str(path)


def examples(name: str, count: int = 16) -> tuple[Any, np.ndarray]:
    """Inputs of an architecture, and classes that can be told from them."""
    labels = np.arange(count) % 2
    row = TINY[name]
    if not isinstance(row, TextTiny):
        return slopes(row[0], labels), labels
    texts = tokens(labels)
    if row.pairs:
        # The target says nothing of the class: that must come from the source.
        target = np.tile(np.r_[2, 5:13], (count, 1)).astype("int32")
        return {"source": texts, "target": np.where(texts == 0, 0, target)}, labels
    return texts, labels


def slopes(shape: tuple[int, ...], labels: np.ndarray) -> np.ndarray:
    """Noise whose class is the sign of a slope along its first axis."""
    rng = np.random.default_rng(0)
    slope = np.linspace(-1, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    signal = np.where(labels.reshape(-1, *[1] * len(shape)) == 1, slope, -slope)
    return (0.5 + 0.25 * signal + 0.1 * rng.normal(size=(len(labels), *shape))).astype("float32")


def tokens(labels: np.ndarray) -> np.ndarray:
    """Texts of 1 to LENGTH - 3 tokens, 0 after their end; each class has words of its own, and they share some."""
    rng = np.random.default_rng(0)
    longest = LENGTH - 3
    words = rng.integers(5, 14, size=(len(labels), longest)) + 6 * labels[:, None]
    lengths = np.r_[longest, 1, 2, rng.integers(3, longest + 1, size=len(labels))][: len(labels)]
    return np.where(np.arange(longest) < lengths[:, None], words, 0).astype("int32")


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def built(name: str) -> tuple[keras.Model, keras.KerasTensor]:
    return build(name)


def test_features_have_the_documented_shape(name, built):
    row = TINY[name]
    expected = row.feature_shape if isinstance(row, TextTiny) else row[2]
    assert tuple(built[1].shape) == (None, *expected)


def test_every_trainable_weight_gets_a_gradient(name, built):
    model, _ = built
    inputs, labels = examples(name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(labels, model(inputs, training=True))
    gradients = tape.gradient(value, [weight.value for weight in model.trainable_weights])
    dead = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if gradient is None or not np.any(tf.convert_to_tensor(gradient))
    ]
    assert model.trainable_weights
    assert dead == []


def test_a_saved_model_gives_equal_outputs(name, built, tmp_path):
    model, _ = built
    inputs, _ = examples(name, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs, training=False), model(inputs, training=False), atol=1e-6)


def test_it_learns_a_learnable_signal(name, built):
    model, _ = built
    inputs, labels = examples(name)
    for layer in model.layers:
        if getattr(layer, "adapts_to_inputs", False):
            layer.adapt(inputs)
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(inputs, training=True))
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(value, [weight.value for weight in weights]), weights)
        return value

    step = tf.function(step) if name in LEARN_SLOWLY else step
    values = [float(step())]
    while len(values) < 30 and values[-1] > 0.5 * values[0]:
        values.append(float(step()))
    assert values[-1] <= 0.5 * values[0], values


@pytest.mark.parametrize("name", TEXTS)
def test_padding_changes_nothing(name):
    model, features = build(name)
    network = keras.Model(model.input, [features, model.output])
    inputs, _ = examples(name, 6)

    # In a graph of open length, as in training: eager Keras warns of a softmax over one token.
    signature = keras.tree.map_structure(lambda _: tf.TensorSpec((None, None), "int32"), inputs)
    graph = tf.function(lambda batch: network(batch, training=False), input_signature=[signature])

    def run(change) -> tuple[np.ndarray, np.ndarray]:
        outputs = graph(keras.tree.map_structure(lambda array: tf.constant(change(array)), inputs))
        return tuple(np.asarray(output) for output in outputs)

    texts = inputs["target"] if TINY[name].pairs else inputs
    expected, logits = run(lambda array: array)
    padded, padded_logits = run(lambda array: np.pad(array, ((0, 0), (0, 3))))
    np.testing.assert_allclose(padded_logits, logits, rtol=0, atol=1e-5)
    for row, length in enumerate((texts != 0).sum(1)):
        alone, logits_alone = run(lambda array, row=row, length=length: array[row : row + 1, :length])
        np.testing.assert_allclose(logits_alone[0], logits[row], rtol=0, atol=1e-5)
        real = (row, slice(length)) if expected.ndim == 3 else row
        np.testing.assert_allclose(alone[0], expected[real], rtol=0, atol=1e-5)
        np.testing.assert_allclose(padded[real], expected[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_an_empty_text_gives_finite_features(name):
    model, features = build(name)
    inputs, _ = examples(name, 4)
    empty = keras.tree.map_structure(np.zeros_like, inputs)
    assert np.isfinite(keras.Model(model.input, features)(empty, training=False)).all()


@pytest.mark.parametrize("name", FAMILIES)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_the_signature_is_a_schema(name):
    parameters = list(inspect.signature(resolve_name(ARCHITECTURES[name])).parameters.values())
    positional = ["inputs", "vocabulary_size", "max_length"] if name in (*TEXTS, *READ_EITHER) else ["inputs"]
    assert [parameter.name for parameter in parameters[: len(positional)]] == positional
    options = parameters[len(positional) :]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in options)
    assert len(options) <= 7
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
