"""What a recipe would do, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree
from rich.markup import escape
from rich.table import Table

from dlcli.console import out, print_json
from dlcli.evaluation.plots import plot_learning_rate
from dlcli.layers.walk import named_layers
from dlcli.recipe.schema import Recipe
from dlcli.training.finetune import with_source
from dlcli.training.flops import forward_flops
from dlcli.training.schedules import learning_rates
from dlcli.training.train import prepare

CURVE_POINTS = 400


def make_plan(recipe: Recipe, picture: Path, source: str | None = None) -> dict[str, Any]:
    """Loads the data and builds the model, then counts.

    Args:
        recipe: resolved recipe.
        picture: where the learning-rate curve goes.
        source: plans fine-tuning from it; None plans training from scratch, without the recipe's `finetune` section.
    """
    recipe = with_source(recipe, source) if source else recipe.model_copy(update={"finetune": None})
    job = prepare(recipe)
    length = job.data.info.max_length if job.data.info.tokenizer else 1
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
        "vocabulary_size": job.data.info.vocabulary_size,
        "input_shape": _open_filled(network.input, length),
        "output_shape": _open_filled(network.output, length),
        "layers": _layers(network),
        "stages": None if job.freezing is None else [stage.model_dump(mode="json") for stage in job.stages],
        "parameters": {"trainable": trainable, "total": network.count_params()},
        "flops_per_example": forward_flops(network, length),
        "memory_bytes": _training_memory(network, recipe, batch, length),
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
    some_frozen = plan["stages"] is not None
    for name in ("layer", "type", "output", "parameters", *(["learns"] if some_frozen else [])):
        table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
    for layer in plan["layers"]:
        learns = (
            ["-" if not layer["parameters"] else "yes" if layer["learns"] else "frozen"]
            if some_frozen
            else []
        )
        table.add_row(
            layer["name"], layer["type"], _shape(layer["output"]), f"{layer['parameters']:,}", *learns
        )
    out.print(table)
    flops, longest = plan["flops_per_example"], " (the longest)" if plan["vocabulary_size"] else ""
    facts = Table(show_header=False, box=None)
    for name, value in (
        ("data", ", ".join(f"{name} {count:,}" for name, count in plan["data"].items())),
        ("input", _shown(plan["input_shape"], " tokens at most" if plan["vocabulary_size"] else "")),
        *([("vocabulary", f"{plan['vocabulary_size']:,} tokens")] if plan["vocabulary_size"] else []),
        (
            "output",
            _shown(plan["output_shape"]) + (f": {len(plan['classes'])} names" if plan["classes"] else ""),
        ),
        ("parameters", f"{plan['parameters']['total']:,} ({plan['parameters']['trainable']:,} trainable)"),
        (
            "FLOPs",
            f"{flops / 1e6:,.1f} M an example forward{longest}; {3 * flops * plan['batch_size'] / 1e9:,.1f} G a step",
        ),
        *([("stages", _stages(plan["stages"]))] if some_frozen else []),
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


def _stages(stages: list[dict[str, Any]]) -> str:
    """`1: freeze all, 3 epochs; 2: ...`; the table above shows the first one."""
    return "; ".join(
        f"{number}: freeze {_frozen(stage['freeze'])}, epochs {stage['epochs']}"
        + (f", learning rate {stage['learning_rate']:g}" if stage["learning_rate"] is not None else "")
        for number, stage in enumerate(stages, start=1)
    )


def _frozen(what: Any) -> str:
    if isinstance(what, str):
        return what
    return ", ".join(f"{name} {value}" for name, value in what.items() if value is not None)


def _open_filled(tensors: Any, length: int) -> Any:
    """The shape of one example of each tensor, `length` in the place of open sides; a dict for several tensors."""
    if isinstance(tensors, dict):
        return {name: _open_filled(tensor, length) for name, tensor in tensors.items()}
    parts = tree.flatten(tensors)
    shapes = [[side or length for side in part.shape[1:]] for part in parts]
    return shapes[0] if len(shapes) == 1 else shapes


def _shown(shapes: Any, unit: str = "") -> str:
    """`32x32x3`, or `source 64 tokens, target 64 tokens`."""
    if isinstance(shapes, dict):
        return ", ".join(f"{name} {_shape(shape)}{unit}" for name, shape in shapes.items())
    if shapes and isinstance(shapes[0], list):
        return ", ".join(_shape(shape) + unit for shape in shapes)
    return _shape(shapes) + unit


def _shape(shape: list[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "-"


def _layers(model: keras.Model) -> list[dict[str, Any]]:
    """One row a layer, nested models unfolded as `outer/inner`."""
    return [
        {
            "name": name,
            "type": type(layer).__name__,
            "output": list(layer.output.shape[1:]) if hasattr(layer.output, "shape") else [],
            "parameters": layer.count_params(),
            "learns": bool(layer.trainable_weights),
        }
        for name, layer in named_layers(model)
    ]


def _training_memory(network: keras.Model, recipe: Recipe, batch: int, length: int) -> int:
    """Bytes: weights and gradients, optimizer slots, and each layer's output kept for the backward pass.

    `length` stands for every open side: a batch of the longest texts.
    """
    network.optimizer.build(network.trainable_variables)
    weights = sum(int(np.prod(weight.shape)) for weight in network.weights)
    gradients = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    slots = sum(int(np.prod(variable.shape)) for variable in network.optimizer.variables)
    activations = sum(
        int(np.prod([side or length for side in layer["output"]])) for layer in _layers(network)
    )
    bytes_each = 4 if recipe.training.precision == "float32" else 2
    return 4 * (weights + gradients + slots) + bytes_each * batch * activations
