"""Recipe + data -> the network that trains and the model that is saved, which share their weights."""

from __future__ import annotations

import math
import pkgutil
from copy import copy
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dlcli.architectures import ARCHITECTURES
from dlcli.data.examples import ArrayExamples, Data, Examples
from dlcli.data.stream import evaluation_stream
from dlcli.errors import DataError, DlcliError
from dlcli.recipe.schema import Recipe
from dlcli.tasks import TASKS

ADAPT_EXAMPLES = 5_000
"""Train examples from which a layer such as PatchWhitening learns its statistics, as in airbench."""

ADAPT_BYTES = 256 * 2**20
"""Fewer of them, when they would be larger than this as float32."""


@dataclass(frozen=True)
class Models:
    """Two views of the same weights."""

    network: keras.Model
    """Images uint8 (B, H, W, C) or preprocessed rows (B, D) -> logits (B, K)."""
    predictor: keras.Model
    """Raw inputs -> predictions: what `model.keras` holds."""
    task: Any


def build_models(recipe: Recipe, data: Data) -> Models:
    """Builds both models; nothing is trained yet.

    Raises:
        DlcliError: the architecture does not fit the data (an image too small for its depth).
    """
    task = pkgutil.resolve_name(TASKS[recipe.task.name])(
        data.info, data.train.targets, **recipe.task.arguments
    )
    builder = pkgutil.resolve_name(ARCHITECTURES[recipe.architecture.name])
    preprocessing = data.preprocessing
    raw = preprocessing.input
    if data.info.kind == "image":
        inputs = raw
        features = _features(builder, preprocessing.output, recipe)
    else:
        inputs = keras.Input(preprocessing.output.shape[1:], name="features")
        features = _features(builder, inputs, recipe)
    logits = task.outputs(features)
    network = keras.Model(inputs, logits, name=recipe.architecture.name)
    if data.info.kind == "image":
        predictor = keras.Model(raw, task.predictions(logits), name="predictor")
    else:
        raw = preprocessing.input
        # A model of its own around the same layers: the network's loss, metrics and optimizer would be saved along.
        body = keras.Model(inputs, logits, name=recipe.architecture.name)
        predictor = keras.Model(raw, task.predictions(body(preprocessing.output)), name="predictor")
    return Models(network, predictor, task)


def _features(builder: Any, inputs: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    try:
        return builder(inputs, **recipe.architecture.arguments)
    except DlcliError:
        raise
    except ValueError as error:  # builders refuse shapes that they cannot take; the sentence is theirs
        raise DlcliError(f"architecture {recipe.architecture.name}: {error}") from error


def network_examples(examples: Examples, task: Any, data: Data, *, batch_size: int = 4096) -> Examples:
    """Examples as the network reads them: tables go through the preprocessing once, images stay raw.

    Targets become what the loss compares with.
    """
    if data.info.kind == "image":
        examples = copy(examples)  # shares the pixels; the original keeps its class indices
        examples.targets = task.encode(examples.targets)
        return examples
    rows = [
        keras.ops.convert_to_numpy(data.preprocessing(inputs))
        for inputs, _ in evaluation_stream(examples, batch_size)
    ]
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
    if data.info.kind == "image":
        inputs = data.preprocessing(inputs)
    for layer in layers:
        layer.adapt(keras.ops.convert_to_numpy(inputs))


def check_targets(data: Data) -> None:
    """Refuses targets that cannot teach: fewer than two classes in the train split."""
    if data.info.target == "classes" and len(np.unique(data.train.targets)) < 2:
        raise DataError(
            f"the train split holds one class ({', '.join(data.info.class_names)}); classification needs two or more"
        )
