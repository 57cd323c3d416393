"""How many floating-point operations a network takes."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras import tree


def forward_flops(network: keras.Model, length: int = 1) -> int:
    """Floating-point operations of one example, a multiply-add counted as two.

    TensorFlow's own profiler counts, and leaves two things out that are added here: einsums (attention), and all but
    the first step of a loop (recurrent layers).

    Args:
        network: a functional model.
        length: stands for every open side of its inputs: tokens of a text.
    """
    for layer in network._flatten_layers():
        if getattr(layer, "use_cudnn", False):
            layer.use_cudnn = False  # cuDNN hides a recurrent layer in one operation, which nobody counts
    specs = tree.map_structure(
        lambda tensor: tf.TensorSpec([1, *(side or length for side in tensor.shape[1:])], tensor.dtype),
        network.input,
    )
    function = tf.function(lambda inputs: network(inputs, training=False)).get_concrete_function(specs)
    return _of_graph(function.graph, length)


def _of_graph(graph: Any, length: int) -> int:
    profiler = tf.compat.v1.profiler
    options = (
        profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
        .with_empty_output()
        .build()
    )
    profile = profiler.profile(graph, run_meta=tf.compat.v1.RunMetadata(), cmd="op", options=options)
    total = int(profile.total_float_ops)
    for operation in graph.get_operations():
        if operation.type == "Einsum":
            total += _of_einsum(operation)
        elif operation.type in ("While", "StatelessWhile"):
            body, condition = (
                graph._get_function(operation.get_attr(name).name).graph for name in ("body", "cond")
            )
            total += (_steps(condition) or length) * _of_graph(body, length)
        elif operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            total += _of_graph(graph._get_function(operation.get_attr("f").name).graph, length)
    return total


def _of_einsum(operation: Any) -> int:
    """Two for each combination of all the indices."""
    indices = operation.get_attr("equation").decode().partition("->")[0].split(",")
    sides: dict[str, int] = {}
    for letters, tensor in zip(indices, operation.inputs, strict=True):
        sides |= {letter: side or 1 for letter, side in zip(letters, tensor.shape, strict=True)}
    return 2 * math.prod(sides.values())


def _steps(condition: Any) -> int | None:
    """How often a loop runs whose condition compares a counter with a constant."""
    for operation in condition.get_operations():
        if operation.type == "Less" and operation.inputs[1].op.type == "Const":
            return int(tf.get_static_value(operation.inputs[1]))
    return None
