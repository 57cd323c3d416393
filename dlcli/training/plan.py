"""What a recipe would do, without training it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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
from dlcli.tasks import GENERATIVE_TASKS
from dlcli.training.distribution import Choice, choose, described
from dlcli.training.finetune import with_source
from dlcli.training.flops import forward_flops
from dlcli.training.job import prepare
from dlcli.training.schedules import learning_rates
from dlcli.training.settled import settled
from dlcli.training.steps.trainer import Trainer

CURVE_POINTS = 400


def make_plan(recipe: Recipe, picture: Path, source: str | None = None) -> dict[str, Any]:
    """Loads the data and builds the model, then counts.

    Args:
        recipe: resolved recipe.
        picture: where the learning-rate curve goes.
        source: plans fine-tuning from it; None plans training from scratch, without the recipe's `finetune` section.
    """
    recipe = with_source(recipe, source) if source else recipe.model_copy(update={"finetune": None})
    choice = choose(recipe.distribution)
    recipe = settled(recipe, choice)
    job = prepare(recipe)
    length = job.data.info.max_length if job.data.info.tokenizer else 1
    network = job.models.network
    batch = recipe.training.batch_size
    share = math.ceil(batch / choice.replicas)
    total = job.steps.total
    steps = np.unique(np.linspace(0, max(total - 1, 0), min(CURVE_POINTS, total)).astype(int))
    rates = learning_rates(job.schedule, steps)
    plot_learning_rate(steps.tolist(), rates.tolist(), job.steps.per_epoch, picture)
    trainable = _size(network.trainable_weights)
    networks = _networks(network)
    layers = {role: _layers(part, f"{role}/" if role else "") for role, part in networks.items()}
    flops = {role: forward_flops(part, length) for role, part in networks.items()}
    splits = {"train": job.data.train, "validation": job.data.validation, "test": job.data.test}
    return {
        "task": recipe.task.name,
        "architecture": recipe.architecture.name,
        "data": {name: len(part) for name, part in splits.items() if part is not None},
        "classes": list(job.data.info.class_names),
        "vocabulary_size": job.data.info.vocabulary_size,
        "input_shape": _by_role(networks, lambda part: _open_filled(part.input, length)),
        "output_shape": _by_role(networks, lambda part: _open_filled(part.output, length)),
        "layers": [row for rows in layers.values() for row in rows],
        "networks": _described(network, flops),
        "stages": None if job.freezing is None else [stage.model_dump(mode="json") for stage in job.stages],
        "parameters": {"trainable": trainable, "total": network.count_params()},
        "flops_per_example": sum(flops.values()),
        "memory_bytes": _training_memory(network, layers, recipe, share, length, choice.replicas),
        "distribution": _devices(choice),
        "batch_size": batch,
        "batch_size_per_replica": share,
        "gradient_accumulation": recipe.training.gradient_accumulation,
        "steps_per_epoch": job.steps.per_epoch,
        "steps": total,
        "learning_rate": _rates(rates),
        "learning_rates": _rates_of_players(network, steps),
        "picture": str(picture),
    }


def _devices(choice: Choice) -> dict[str, Any]:
    """What would train, and why."""
    return {
        "strategy": choice.strategy,
        "devices": list(choice.devices),
        "workers": choice.workers,
        "replicas": choice.replicas,
        "why": choice.why,
        "described": described(choice),
    }


def _networks(network: keras.Model) -> dict[str, keras.Model]:
    """Role -> network of a generative task; a single one has no name."""
    return network.networks if isinstance(network, Trainer) else {"": network}


def _by_role(networks: Mapping[str, keras.Model], what: Callable[[keras.Model], Any]) -> Any:
    """Of each network by its role; of a single one without."""
    return what(networks[""]) if "" in networks else {role: what(part) for role, part in networks.items()}


def _described(network: keras.Model, flops: Mapping[str, int]) -> dict[str, Any] | None:
    """Size of each of several networks; None for a single one."""
    if not isinstance(network, Trainer):
        return None
    return {
        role: {
            "parameters": {"trainable": _size(part.trainable_weights), "total": part.count_params()},
            "flops_per_example": flops[role],
        }
        for role, part in network.networks.items()
    }


def _rates(rates: np.ndarray) -> dict[str, float]:
    return {"first": float(rates[0]), "highest": float(rates.max()), "last": float(rates[-1])}


def _rates_of_players(network: keras.Model, steps: np.ndarray) -> dict[str, dict[str, float]] | None:
    """Of each optimizer of several, at its own updates; None where there is one."""
    if not isinstance(network, Trainer) or len(network.players) < 2:
        return None
    found = {}
    for player, updates in network.updates.items():
        schedule = network.optimizer_of(player)._learning_rate  # the property gives its value at step 0
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            found[player] = _rates(learning_rates(schedule, steps * updates))
        else:
            found[player] = _rates(np.full(1, float(schedule)))
    return found


def _size(weights: Iterable[Any]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


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
    named = () if plan["task"] in GENERATIVE_TASKS else plan["classes"]  # images come out, not classes
    flops, longest = plan["flops_per_example"], " (the longest)" if plan["vocabulary_size"] else ""
    facts = Table(show_header=False, box=None)
    for name, value in (
        ("data", ", ".join(f"{name} {count:,}" for name, count in plan["data"].items())),
        ("input", _shown(plan["input_shape"], " tokens at most" if plan["vocabulary_size"] else "")),
        *([("vocabulary", f"{plan['vocabulary_size']:,} tokens")] if plan["vocabulary_size"] else []),
        ("output", _shown(plan["output_shape"]) + (f": {len(named)} names" if named else "")),
        ("parameters", f"{plan['parameters']['total']:,} ({plan['parameters']['trainable']:,} trainable)"),
        (
            "FLOPs",
            f"{flops / 1e6:,.1f} M an example forward{longest}; {3 * flops * plan['batch_size'] / 1e9:,.1f} G a step"
            if plan["networks"] is None
            else _of_networks(plan["networks"]),
        ),
        *([("stages", _stages(plan["stages"]))] if some_frozen else []),
        ("strategy", "{strategy}: {described} ({why})".format(**plan["distribution"])),
        ("memory", _memory(plan)),
        ("steps", f"{plan['steps']:,} ({plan['steps_per_epoch']:,} an epoch of batch {_batch(plan)})"),
        ("learning rate", _learning_rate(plan) + f"; curve: {plan['picture']}"),
    ):
        facts.add_row(name, escape(value))
    out.print(facts)


def _memory(plan: Mapping[str, Any]) -> str:
    several, devices = plan["distribution"]["replicas"] > 1, plan["distribution"]["devices"]
    shown = f"about {plan['memory_bytes'] / 2**20:,.0f} MiB" + (" on each device" if several else "")
    shown += " for weights, optimizer and activations"
    if len(devices) > 1 and devices[0].startswith("CPU"):  # parts of one, which share its memory
        shown += f", {len(devices) * plan['memory_bytes'] / 2**20:,.0f} MiB in all"
    return shown


def _batch(plan: Mapping[str, Any]) -> str:
    """`128`, `128 in 4 parts`, or `128, 64 on each of 2 devices, in 4 parts`."""
    batch, share = plan["batch_size"], plan["batch_size_per_replica"]
    replicas, parts = plan["distribution"]["replicas"], plan["gradient_accumulation"]
    shown = str(batch)
    if replicas > 1:
        shown += f", {share}{' at most' if batch % replicas else ''} on each of {replicas} devices"
    return shown + (("," if replicas > 1 else "") + f" in {parts} parts" if parts > 1 else "")


def _of_networks(networks: Mapping[str, Any]) -> str:
    """`generator 1.2 M, discriminator 3.4 M an image forward`."""
    each = (f"{role} {about['flops_per_example'] / 1e6:,.1f} M" for role, about in networks.items())
    return ", ".join(each) + " an image forward"


def _learning_rate(plan: Mapping[str, Any]) -> str:
    shown = "first {first:.3g}, highest {highest:.3g}, last {last:.3g}"
    players = plan["learning_rates"]
    if players is None:
        return shown.format(**plan["learning_rate"])
    return "; ".join(f"{player} {shown.format(**rates)}" for player, rates in players.items())


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
    """`32x32x3`, `source 64 tokens, target 64 tokens`, or `generator (latents 100, labels -), discriminator ...`."""
    if isinstance(shapes, dict):
        return ", ".join(
            f"{name} ({_shown(shape, unit)})" if isinstance(shape, dict) else f"{name} {_shape(shape)}{unit}"
            for name, shape in shapes.items()
        )
    if shapes and isinstance(shapes[0], list):
        return ", ".join(_shape(shape) + unit for shape in shapes)
    return _shape(shapes) + unit


def _shape(shape: list[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "-"


def _layers(model: keras.Model, prefix: str = "") -> list[dict[str, Any]]:
    """One row a layer, nested models unfolded as `outer/inner`."""
    return [
        {
            "name": prefix + name,
            "type": type(layer).__name__,
            "output": list(layer.output.shape[1:]) if hasattr(layer.output, "shape") else [],
            "parameters": layer.count_params(),
            "learns": bool(layer.trainable_weights),
        }
        for name, layer in named_layers(model)
    ]


_PASSES = {"discriminator": 2, "discriminator_a": 2, "discriminator_b": 2, "a_to_b": 3, "b_to_a": 3}
"""Role -> how often a network's outputs are kept in one step: of real and drawn images; of CycleGAN's translation, the
way back and the identity. All others once."""


def _training_memory(
    network: keras.Model,
    layers: Mapping[str, list[dict[str, Any]]],
    recipe: Recipe,
    batch: int,
    length: int,
    replicas: int,
) -> int:
    """Bytes on one device: weights and gradients, optimizer slots, each layer's output kept for the backward pass.

    Outputs are of a part of the batch where gradients are accumulated.
    `length` stands for every open side: a batch of the longest texts. `batch` is the share of one device.
    """
    network.optimizer.build(network.trainable_variables)
    slots = _size(network.optimizer.variables)
    activations = sum(
        _PASSES.get(role, 1) * int(np.prod([side or length for side in layer["output"]]))
        for role, rows in layers.items()
        for layer in rows
    )
    bytes_each = 4 if recipe.training.precision == "float32" else 2
    parts = recipe.training.gradient_accumulation
    # A part's or a device's own, and their sum.
    gradients = _size(network.trainable_weights) * (1 if parts == replicas == 1 else 2)
    kept = _size(network.weights) + gradients + slots
    return 4 * kept + bytes_each * math.ceil(batch / parts) * activations
