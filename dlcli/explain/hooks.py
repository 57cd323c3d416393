"""What a layer gives, seen or replaced while a model runs: in Sequential, functional, nested and subclassed models.

A second model such as `keras.Model(model.inputs, layer.output)` fails on nested models and on Sequential ones without
an Input. Here `layer.call` is exchanged for the time of one call, or of one trace of a `tf.function`, which keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import tree

Hook = Callable[..., Any]
"""`hook(call, *args, **kwargs)` stands in the place of `call(*args, **kwargs)`."""


@contextmanager
def hooked(layer: keras.layers.Layer, hook: Hook) -> Iterator[None]:
    """Within the block, calls of the layer go through `hook`."""
    call = layer.call
    own = "call" in layer.__dict__

    def through(*args: Any, **kwargs: Any) -> Any:
        return hook(call, *args, **kwargs)

    object.__setattr__(layer, "call", through)
    try:
        yield
    finally:
        if own:
            object.__setattr__(layer, "call", call)
        else:
            object.__delattr__(layer, "call")


@dataclass(frozen=True, eq=False)
class Seen:
    """A layer that ran, and what it gave."""

    name: str
    """As `dlcli plan` names it: `outer/inner` for a layer of a nested model, or of a layer made of layers."""
    layer: keras.layers.Layer
    shape: tuple[int, ...]
    """Of its output, with the batch."""
    floating: bool
    """Whether its output is of floats."""
    is_output: bool
    """Whether its output is the model's."""


def layers_that_run(model: keras.Model, inputs: Any) -> list[Seen]:
    """Every layer that has no layers inside, in the order in which they run; also inside layers made of layers.

    Args:
        model: any model.
        inputs: a small batch, on which it is run once.
    """
    ran: list[tuple[str, keras.layers.Layer, Any]] = []

    def watch(name: str, layer: keras.layers.Layer) -> Hook:
        def hook(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            ran.append((name, layer, output))
            return output

        return hook

    with ExitStack() as stack:
        for name, layer in leaves(model):
            stack.enter_context(hooked(layer, watch(name, layer)))
        outputs = {id(each) for each in tree.flatten(model(inputs, training=False))}
    return [
        Seen(name, layer, tuple(output.shape), output.dtype.is_floating, id(output) in outputs)
        for name, layer, output in ran
        if isinstance(output, tf.Tensor)
    ]


def leaves(layer: keras.layers.Layer, prefix: str = "") -> list[tuple[str, keras.layers.Layer]]:
    """(name, layer) of the layers without layers inside; recurrent layers and their wrappers count as one."""
    found: list[tuple[str, keras.layers.Layer]] = []
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        name = f"{prefix}{inner.name}"
        whole = isinstance(inner, (keras.layers.RNN, keras.layers.Wrapper, keras.layers.InputLayer))
        below = [] if whole else leaves(inner, f"{name}/")
        found += below or [(name, inner)]
    return found


def spatial(seen: Seen) -> bool:
    """Whether a layer gives a map (B, H, W, D) of more than one place, and is not the model's output itself."""
    return len(seen.shape) == 4 and seen.floating and math.prod(seen.shape[1:3]) > 1 and not seen.is_output
