"""What a recipe would do, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.markup import escape
from rich.table import Table

from dlcli.console import out, print_json
from dlcli.evaluation.plots import plot_learning_rate
from dlcli.recipe.schema import Recipe
from dlcli.training.schedules import learning_rates
from dlcli.training.train import prepare

CURVE_POINTS = 400


def make_plan(recipe: Recipe, picture: Path) -> dict[str, Any]:
    """Loads the data and builds the model, then counts.

    Args:
        recipe: resolved recipe.
        picture: where the learning-rate curve goes.
    """
    job = prepare(recipe)
    network = job.models.network
    batch = recipe.training.batch_size
    total = job.steps.total
    steps = np.unique(np.linspace(0, max(total - 1, 0), min(CURVE_POINTS, total)).astype(int))
    rates = learning_rates(job.schedule, steps)
    plot_learning_rate(steps.tolist(), rates.tolist(), job.steps.per_epoch, picture)
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    splits = {"train": job.data.train, "validation": job.data.validation, "test": job.data.test}
    return {
        "task": recipe.task.name,
        "architecture": recipe.architecture.name,
        "data": {name: len(part) for name, part in splits.items() if part is not None},
        "classes": list(job.data.info.class_names),
        "input_shape": list(network.input.shape[1:]),
        "output_shape": list(network.output.shape[1:]),
        "layers": _layers(network),
        "parameters": {"trainable": trainable, "total": network.count_params()},
        "flops_per_example": _forward_flops(network),
        "memory_bytes": _training_memory(network, recipe, batch),
        "batch_size": batch,
        "steps_per_epoch": job.steps.per_epoch,
        "steps": total,
        "learning_rate": {"first": float(rates[0]), "highest": float(rates.max()), "last": float(rates[-1])},
        "picture": str(picture),
    }


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Shows a plan."""
    if as_json:
        print_json(plan)
        return
    table = Table(title=f"{plan['architecture']} for {plan['task']}", title_justify="left")
    for name in ("layer", "type", "output", "parameters"):
        table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
    for layer in plan["layers"]:
        table.add_row(layer["name"], layer["type"], _shape(layer["output"]), f"{layer['parameters']:,}")
    out.print(table)
    flops = plan["flops_per_example"]
    facts = Table(show_header=False, box=None)
    for name, value in (
        ("data", ", ".join(f"{name} {count:,}" for name, count in plan["data"].items())),
        ("input", _shape(plan["input_shape"])),
        ("output", f"{_shape(plan['output_shape'])}: {len(plan['classes'])} names"),
        ("parameters", f"{plan['parameters']['total']:,} ({plan['parameters']['trainable']:,} trainable)"),
        (
            "FLOPs",
            f"{flops / 1e6:,.1f} M an example forward; {3 * flops * plan['batch_size'] / 1e9:,.1f} G a step",
        ),
        ("memory", f"about {plan['memory_bytes'] / 2**20:,.0f} MiB for weights, optimizer and activations"),
        ("steps", f"{plan['steps']:,} ({plan['steps_per_epoch']:,} an epoch of batch {plan['batch_size']})"),
        (
            "learning rate",
            "first {first:.3g}, highest {highest:.3g}, last {last:.3g}".format(**plan["learning_rate"])
            + f"; curve: {plan['picture']}",
        ),
    ):
        facts.add_row(name, escape(value))
    out.print(facts)


def _shape(shape: list[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "-"


def _layers(model: keras.Model) -> list[dict[str, Any]]:
    """One row a layer, nested models unfolded as `outer/inner`."""
    rows: list[dict[str, Any]] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            rows += [{**row, "name": f"{layer.name}/{row['name']}"} for row in _layers(layer)]
            continue
        output = layer.output
        shape = list(output.shape[1:]) if hasattr(output, "shape") else []
        rows.append(
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "output": shape,
                "parameters": layer.count_params(),
            }
        )
    return rows


def _forward_flops(network: keras.Model) -> int:
    """Floating-point operations of one example, a multiply-add counted as two (TensorFlow's own profiler)."""
    specs = [tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype) for tensor in network.inputs]
    function = tf.function(lambda *inputs: network(inputs[0], training=False)).get_concrete_function(*specs)
    profiler = tf.compat.v1.profiler
    options = (
        profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
        .with_empty_output()
        .build()
    )
    profile = profiler.profile(function.graph, run_meta=tf.compat.v1.RunMetadata(), cmd="op", options=options)
    return int(profile.total_float_ops)


def _training_memory(network: keras.Model, recipe: Recipe, batch: int) -> int:
    """Bytes: weights and gradients, optimizer slots, and each layer's output kept for the backward pass."""
    network.optimizer.build(network.trainable_variables)
    weights = sum(int(np.prod(weight.shape)) for weight in network.weights)
    gradients = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    slots = sum(int(np.prod(variable.shape)) for variable in network.optimizer.variables)
    activations = sum(int(np.prod([side or 1 for side in layer["output"]])) for layer in _layers(network))
    bytes_each = 4 if recipe.training.precision == "float32" else 2
    return 4 * (weights + gradients + slots) + bytes_each * batch * activations
