"""Private names of Keras that dlcli uses: each is listed with its reason, and each is still there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from keras.src.random import seed_generator
from keras.src.utils import naming

import dlcli

PACKAGE = Path(dlcli.__file__).parent
NOT_OF_KERAS = {"_asdict", "_exit"}
"""Public, in spite of the underscore: of namedtuples, and of `os`."""


@cache
def model() -> keras.Model:
    """Compiled, built, its weights averaged."""
    inputs = keras.Input((2,))
    made = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    made.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    made.optimizer.build(made.trainable_variables)
    return made


@cache
def embedding() -> keras.layers.Layer:
    layer = keras.layers.Embedding(3, 2)
    layer.build(())
    return layer


@cache
def normalization() -> keras.layers.Layer:
    layer = keras.layers.BatchNormalization()
    layer.build((None, 2))
    return layer


def optimizer() -> Any:
    return model().optimizer


def graph() -> Any:
    return tf.Graph()


def masked() -> Any:
    return keras.layers.Masking()(keras.Input((3, 2)))


INTERNALS: dict[str, tuple[Callable[[], Any], str]] = {
    "_distribution_strategy": (optimizer, "averages are exchanged on each replica"),
    "_ema_weights_in_model": (keras.callbacks.SwapEMAWeights, "a resumed training must know which values the model holds"),
    "_embeddings": (embedding, "spectral normalization divides the stored table, and not one with LoRA"),
    "_finalize_ema_values": (keras.callbacks.SwapEMAWeights, "Keras's copies the average over the weights that train"),
    "_flatten_layers": (model, "there is no public walk into layers of layers"),
    "_get_function": (graph, "a graph has no public way to the functions that it calls (TensorFlow's)"),
    "_get_variable_index": (optimizer, "a weight's own factor of the learning rate"),
    "_inbound_nodes": (lambda: model().layers[-1], "which layer reads which"),
    "_inputs_struct": (model, "whether a model takes its one input in a list"),
    "_iterations": (optimizer, "the counter itself; `iterations` may be a quotient of it"),
    "_kernel": (lambda: model().layers[-1], "spectral normalization divides the stored kernel, and not one with LoRA"),
    "_keras_history": (lambda: model().output, "which layer made a tensor"),
    "_keras_mask": (masked, "whether a tensor has a mask"),
    "_learning_rate": (optimizer, "the schedule; `learning_rate` is its value now"),
    "_loss_tracker": (model, "a step of our own shows its loss as Keras's step does"),
    "_model_variables_moving_average": (optimizer, "the averages of weights"),
    "_moments": (keras.layers.BatchNormalization, "statistics of a batch over all devices"),
    "_reduction_axes": (normalization, "the axes that statistics are over"),
    "_run_through_graph": (
        lambda: keras.Function(model().inputs, model().outputs),
        "`__call__` does not let layers be exchanged",
    ),
    "_symbolic_build": (model, "makes variables of metrics and optimizer before a checkpoint is read into them"),
    "_tf_swap_variables": (keras.callbacks.SwapEMAWeights, "Keras's adds and subtracts, which changes last bits"),
    "_trainable_variables": (optimizer, "the weights that the averages are of, in their order"),
    "_use_weight_decay": (optimizer, "decay with a weight's own learning rate"),
    "global_seed_generator": (lambda: seed_generator, "a checkpoint holds the state of draws without a seed"),
    "reset_uids": (lambda: naming, "the public clear_session also forgets the strategy that is on"),
}  # fmt: skip
"""Name -> what has it, and why nothing public does."""

CALLED_WITH: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "_flatten_layers": ((), {"include_self": False, "recursive": False}),
    "_get_variable_index": (("variable",), {}),
    "_run_through_graph": (("inputs", "operation_fn"), {}),
    "_symbolic_build": ((), {"data_batch": None}),
    "_tf_swap_variables": (("optimizer",), {}),
    "_use_weight_decay": (("variable",), {}),
    "global_seed_generator": ((), {}),
    "reset_uids": ((), {}),
}


@pytest.mark.parametrize("name", INTERNALS)
def test_keras_still_has_it(name: str) -> None:
    owner, why = INTERNALS[name]
    moved = (
        f"Keras {keras.__version__} has moved or changed {name}, which dlcli uses ({why}); find its new place"
    )
    assert hasattr(owner(), name), moved
    if name in CALLED_WITH:
        positional, named = CALLED_WITH[name]
        try:
            inspect.signature(getattr(owner(), name)).bind(*positional, **named)
        except TypeError as error:
            pytest.fail(f"{moved}: {error}")


def test_they_are_what_dlcli_takes_them_for() -> None:
    layer, weights = model().layers[-1], model().trainable_variables
    assert optimizer()._trainable_variables == weights
    assert len(optimizer()._model_variables_moving_average) == len(weights)
    assert isinstance(model()._loss_tracker, keras.metrics.Mean)
    assert layer._kernel is layer.kernel
    assert model().output._keras_history.operation is layer
    assert layer._inbound_nodes[0].input_tensors[0] is model().inputs[0]
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    assert keras.optimizers.SGD(schedule)._learning_rate is schedule


def test_no_other_private_name_is_used() -> None:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    own = {name for tree in trees.values() for name in _defined(tree)}
    used = {
        name: f"{path.relative_to(PACKAGE)}:{line}"
        for path, tree in trees.items()
        for name, line in _used(tree)
        if name not in own and name not in NOT_OF_KERAS
    }
    unlisted = {name: where for name, where in used.items() if name not in INTERNALS}
    assert not unlisted, (
        f"private names that nothing in dlcli defines; list them here with a reason: {unlisted}"
    )
    texts = "".join(path.read_text("utf-8") for path in trees)
    unused = [name for name in INTERNALS if not re.search(rf"\b{name}\b", texts)]
    assert not unused, f"no longer used; strike them from this list: {unused}"


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _used(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Private attributes, by a dot or by `getattr`, and whatever comes from `keras.src`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and str(name.value).startswith("_"):
                yield str(name.value), node.lineno
