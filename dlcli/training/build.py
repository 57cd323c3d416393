"""Recipe + data -> the network that trains and the model that is saved, which share their weights."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from dlcli.architectures import ARCHITECTURES
from dlcli.console import note
from dlcli.data.examples import ArrayExamples, Data, DataInfo, Examples
from dlcli.errors import DataError, DlcliError
from dlcli.layers.tokens import Tokens
from dlcli.recipe.schema import Recipe
from dlcli.tasks import TASKS
from dlcli.tasks.generative import GenerativeTask
from dlcli.tasks.task import Build, Task
from dlcli.training.checks import weights_that_fit
from dlcli.training.distribution import synchronize_normalization
from dlcli.training.frozen import FrozenData, frozen_examples
from dlcli.training.gradient_accumulation import AccumulatingModel

ADAPT_EXAMPLES = 5_000
"""Train examples from which a layer such as PatchWhitening learns its statistics, as in airbench."""

ADAPT_BYTES = 256 * 2**20
"""Fewer of them, when they would be larger than this as float32."""


@dataclass(frozen=True)
class Models:
    """Two views of the same weights."""

    network: keras.Model
    """Images uint8 (B, H, W, C), preprocessed rows or frozen features (B, D), or tokens int32 (B, T) -> logits."""
    predictor: keras.Model
    """Raw inputs -> predictions: what `model.keras` holds."""
    task: Task
    parts: Mapping[str, keras.Model] = field(default_factory=dict)
    """Of a generative task: what is kept beside `model.keras`, by name."""


def build_task(recipe: Recipe, info: DataInfo, train_targets: np.ndarray) -> Task:
    """The recipe's task, which refuses data that it cannot learn from."""
    task: Task = pkgutil.resolve_name(TASKS[recipe.task.name])(info, train_targets, **recipe.task.arguments)
    if isinstance(task, GenerativeTask):
        task.measures = recipe.metrics
    return task


@weights_that_fit()
def build_models(recipe: Recipe, data: Data) -> Models:
    """Builds both models; nothing is trained yet.

    Raises:
        DlcliError: the architecture does not fit the data (an image too small for its depth), or the memory.
    """
    task = build_task(recipe, data.info, data.train.targets)
    if isinstance(task, GenerativeTask):
        return _generative_models(recipe, data, task)
    name = recipe.architecture.name
    if data.precomputed and data.preprocessing is not None:
        raw, preprocessed = data.preprocessing.input, data.preprocessing.output
        inputs = keras.Input(preprocessed.shape[1:], name="features")
        logits = _outputs(recipe, data, task, inputs)
        # A model of its own around the same layers: the network's loss, metrics and optimizer would be saved along.
        body = keras.Model(inputs, logits, name=name)
        predictor = keras.Model(raw, task.predictions(body(preprocessed)), name="predictor")
        return Models(_in_parts(AccumulatingModel(inputs, logits, name=name), recipe), predictor, task)
    if data.info.tokenizer is not None:
        raw = _token_inputs(task)
        tokens = Tokens(data.info.tokenizer.json, data.info.max_length, name="tokenizer")
        logits = _outputs(recipe, data, task, tree.map_structure(tokens, raw))
    elif data.preprocessing is not None:
        raw = data.preprocessing.input
        logits = _outputs(recipe, data, task, data.preprocessing.output)
    else:
        raise ValueError("Expected data with a preprocessing model or a tokenizer. Received: neither")
    network = _in_parts(AccumulatingModel(raw, logits, name=name), recipe)
    return Models(network, keras.Model(raw, task.predictions(logits), name="predictor"), task)


def _in_parts(network: AccumulatingModel, recipe: Recipe) -> AccumulatingModel:
    """The network, ready for several devices, and a word on what training in parts changes in it."""
    synchronize_normalization([network])
    parts = recipe.training.gradient_accumulation
    if parts > 1 and network.normalizes_batches:
        size = math.ceil(recipe.training.batch_size / parts)
        note(f"batch normalization sees parts of {size} examples (training.gradient_accumulation {parts})")
    return network


def _generative_models(recipe: Recipe, data: Data, task: GenerativeTask) -> Models:
    """The networks of a generative task within their trainer, and what of them is kept."""
    inputs = keras.Input(data.info.input_shape, name="images")
    networks = _architecture(recipe, (task.num_conditions,))(inputs)
    synchronize_normalization(networks.values())
    trainer = task.trainer(networks, recipe)
    kept = task.kept(networks)
    task.parts = {name: part for name, part in kept.items() if name != "model"}
    task.train_images = data.train
    return Models(trainer, kept["model"], task, task.parts)


def _token_inputs(task: Task) -> Any:
    """int32 (B, T) for one sequence, a dict of them for several; T is open."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in task.input_names}
    return inputs if len(inputs) > 1 else inputs[task.input_names[0]]


def _outputs(recipe: Recipe, data: Data, task: Task, inputs: Any) -> Any:
    of_tokens = (data.info.vocabulary_size, data.info.max_length) if data.info.tokenizer else ()
    return task.connect(_architecture(recipe, of_tokens), inputs)


def _architecture(recipe: Recipe, of_data: tuple[int, ...]) -> Build:
    """The recipe's architecture as a function of its inputs; `of_data` are the builder's other positional arguments."""
    builder = pkgutil.resolve_name(ARCHITECTURES[recipe.architecture.name])

    def build(inputs: Any, **changes: Any) -> Any:
        try:
            return builder(inputs, *of_data, **{**recipe.architecture.arguments, **changes})
        except DlcliError:
            raise
        except ValueError as error:  # builders refuse shapes that they cannot take; the sentence is theirs
            raise DlcliError(f"architecture {recipe.architecture.name}: {error}") from error

    build.arguments = recipe.architecture.arguments  # type: ignore[attr-defined]  # for a task that changes some
    return build


def network_examples(
    examples: Examples, task: Task, data: Data, *, training: bool = False, batch_size: int = 4096
) -> Examples:
    """Examples as the network reads them: tables go through the preprocessing once, texts through the tokenizer.

    Images stay raw. With frozen features all become vectors. Targets become what the loss compares with.
    """
    if isinstance(data, FrozenData):
        return frozen_examples(examples, task, data, training=training)
    if data.preprocessing is None:
        return task.sequences(examples, training=training)
    if not data.precomputed:
        examples = copy(examples)  # shares the pixels; the original keeps its class indices
        examples.targets = task.encode(examples.targets)
        return examples
    # Without a tf.data graph, whose tracing takes longer than a small table, and minutes for thousands of columns.
    parts = np.split(np.arange(len(examples)), range(batch_size, len(examples), batch_size))
    rows = [keras.ops.convert_to_numpy(data.preprocessing(examples.read(part))) for part in parts]
    return ArrayExamples(np.concatenate(rows), task.encode(examples.targets))


def adapt_layers(network: keras.Model, examples: Examples, data: Data, seed: int) -> None:
    """Lets layers that learn from data, not from gradients, see some of the network's train inputs.

    The examples are drawn at random: folders come sorted by class, so that the first ones are all alike.
    """
    layers = [layer for layer in network.layers if getattr(layer, "adapts_to_inputs", False)]
    if not layers:
        return
    fit_in_memory = max(1, ADAPT_BYTES // (4 * math.prod(data.info.input_shape or (1,))))
    count = min(ADAPT_EXAMPLES, fit_in_memory, len(examples))
    chosen = np.sort(np.random.default_rng(seed).choice(len(examples), count, replace=False))
    inputs = examples.read(chosen)
    if data.preprocessing is not None:
        inputs = data.preprocessing(inputs)
    for layer in layers:
        layer.adapt(keras.ops.convert_to_numpy(inputs))


def check_targets(data: Data) -> None:
    """Refuses targets that cannot teach: fewer than two classes in the train split."""
    if data.info.target == "classes" and len(np.unique(data.train.targets)) < 2:
        name = ", ".join(data.info.class_names) or "without a name: no class folders"
        raise DataError(f"the train split holds one class ({name}); classification needs two or more")
