"""Models as graphs of layers: a place inside them, and their layers called on other inputs, shared or copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers
from dlcli.recipe.names import suggest

Operation = Callable[..., Any]
"""A layer, or an operation of keras.ops in a model."""

SHOWN = 25
"""Layers that a message lists at most."""


@dataclass(frozen=True)
class Cut:
    """A tensor inside a model, or inside a model inside it."""

    model: keras.Model
    tensors: tuple[keras.KerasTensor, ...]
    """What the nested models on the way give, from the outside in; the last one is the tensor itself."""

    @property
    def layer(self) -> str:
        """The layer that gives the tensor, as `outer/inner`."""
        return "/".join(producer(tensor).name for tensor in self.tensors)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the tensor."""
        return tuple(self.tensors[-1].shape)

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """Those of the model's inputs that the tensor depends on, in the model's order."""
        needed = {id(each) for each in _sources(self.model, self.tensors[0])}
        return [each for each in self.model.inputs if id(each) in needed]


def producer(tensor: keras.KerasTensor) -> Any:
    """The layer or operation whose output a tensor is."""
    return tensor._keras_history[0]


def is_graph(model: keras.Model) -> bool:
    """Whether a model says which layer reads which: Functional and Sequential ones do, subclassed ones do not."""
    try:
        return bool(model.inputs) and bool(model.outputs)
    except (AttributeError, ValueError):
        return False


def outer_tensor(outer: keras.Model, inner: Any) -> keras.KerasTensor:
    """What a layer gives where `outer` calls it first; a nested model has another output inside itself."""
    return _call(outer, inner).output_tensors[0]


def read_by(outer: keras.Model, layer: Any) -> list[keras.KerasTensor]:
    """What a layer reads where `outer` calls it first."""
    return list(_call(outer, layer).input_tensors)


def _call(outer: keras.Model, layer: Any) -> Any:
    seen: set[int] = set()
    pending = list(outer.outputs)
    calls = []
    while pending:  # Keras has no public way to the calls of a layer
        operation, index, _ = pending.pop()._keras_history
        node = operation._inbound_nodes[index]
        if id(node) in seen:
            continue
        seen.add(id(node))
        if operation is layer:
            calls.append((index, node))
        pending += node.input_tensors
    return min(calls, key=lambda call: call[0])[1]


def cut_at(model: keras.Model, name: str) -> Cut:
    """The output of the layer with this name, which is `outer/inner` inside nested models.

    Where only one layer ends in `/NAME`, the name alone is enough.

    Raises:
        DlcliError: no such layer, with near misses and those that there are.
    """
    layers = [
        (path, layer) for path, layer in named_layers(model) if not isinstance(layer, keras.layers.InputLayer)
    ]
    names = [path for path, _ in layers]
    if name in names:
        return _cut(model, name.split("/"))
    inside = [path for path in names if path.endswith(f"/{name}")]
    if len(inside) == 1:
        return _cut(model, inside[0].split("/"))
    near = suggest(name, names) or suggest(name, [path.rpartition("/")[2] for path in names])
    meant = f"; did you mean {near}?" if near else ""
    if len(inside) > 1:
        meant = f"; did you mean one of {', '.join(inside)}?"
    shown = "\n".join(f"  {path}  {_shape_of(layer)}" for path, layer in layers[-SHOWN:])
    count = f"the last {SHOWN} of its {len(layers)} layers" if len(layers) > SHOWN else "its layers"
    raise DlcliError(
        f"layer {name}: the source has no such layer{meant}\n{count}, and what they give:\n{shown}"
    )


def _cut(model: keras.Model, path: Sequence[str]) -> Cut:
    tensors = []
    inside: Any = model
    for name in path:
        layer = inside.get_layer(name)
        tensors.append(outer_tensor(inside, layer))
        inside = layer
    return Cut(model, tuple(tensors))


def _shape_of(layer: Any) -> str:
    shapes = [each.shape[1:] for each in tree.flatten(layer.output) if hasattr(each, "shape")]
    return ", ".join(
        "x".join("?" if side is None else str(side) for side in shape) or "-" for shape in shapes
    )


def _sources(model: keras.Model, tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    return [
        each for each in keras.utils.get_source_inputs(tensor) if any(each is one for one in model.inputs)
    ]


def shared(operation: Operation) -> Operation:
    """The layer itself: what is called again keeps one set of weights."""
    return operation


def replay(
    cut: Cut, inputs: Sequence[keras.KerasTensor], operation: Callable[[Any], Operation] = shared
) -> keras.KerasTensor:
    """The layers up to a cut, called on other inputs.

    Args:
        cut: where to stop; models around it become models of their own that stop there, with the same names.
        inputs: one for each of `cut.inputs`.
        operation: what is called in the place of a layer.
    """
    return _replay(cut.inputs, cut.tensors, inputs, operation)


def _replay(
    origin: Sequence[keras.KerasTensor],
    tensors: Sequence[keras.KerasTensor],
    inputs: Sequence[keras.KerasTensor],
    operation: Callable[[Any], Operation],
) -> Any:
    inner = producer(tensors[0]) if len(tensors) > 1 else None

    def called(one: Any) -> Operation:
        if one is inner:
            return nested(one, tensors[1:], operation)
        return operation(one)

    if any(tensors[0] is each for each in origin):
        return next(new for each, new in zip(origin, inputs, strict=True) if each is tensors[0])
    # What Keras's own clone_model uses; `Function.__call__` would not let layers be exchanged.
    outputs = keras.Function(list(origin), list(tensors[:1]))._run_through_graph(list(inputs), called)
    return outputs[0]


def nested(
    model: keras.Model,
    tensors: Sequence[keras.KerasTensor],
    operation: Callable[[Any], Operation],
    name: str | None = None,
) -> Operation:
    """A model inside a model, rebuilt for what it is called on, up to one of its tensors."""

    def call(inputs: Any, **kwargs: Any) -> Any:
        if len(model.outputs) > 1 and tensors[0] is model.outputs[0]:
            raise DlcliError(
                f"layer {model.name} is a model with {len(model.outputs)} outputs; only one is supported"
            )
        fresh = tree.map_structure(lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), inputs)
        outputs = _replay(model.inputs, tensors, tree.flatten(fresh), operation)
        kwargs.pop("mask", None)
        return keras.Model(fresh, outputs, name=name or model.name)(inputs, **kwargs)

    return call
