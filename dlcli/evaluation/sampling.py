"""A saved generative model -> images, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.console import Counting
from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers  # noqa: F401

BATCH_SIZE = 100


def latents_of(model: keras.Model, count: int, seed: int) -> np.ndarray:
    """Standard normal latents (N, Z); those of a smaller count are the first of these."""
    return np.random.default_rng(seed).standard_normal((count, latent_dimension(model)), np.float32)


def latent_dimension(model: keras.Model) -> int:
    """Z of a model that draws from latents.

    Raises:
        DlcliError: it draws from something else.
    """
    inputs = model.input if isinstance(model.input, dict) else {model.input.name: model.input}
    if "latents" not in inputs:
        raise DlcliError(f"this model reads {', '.join(inputs)}, not latents, so nothing can be drawn with it")
    return int(inputs["latents"].shape[-1])


def labels_in_turn(model: keras.Model, count: int) -> np.ndarray | None:
    """Class indices 0, 1, ..., 0, 1, ... (N,) for a conditional model; None for another one."""
    classes = len(class_names(model))
    return np.arange(count, dtype=np.int32) % classes if classes else None


def class_names(model: keras.Model) -> tuple[str, ...]:
    """Of the labels that a generative model takes, in index order; empty when it takes none."""
    return tuple(getattr(model.layers[-1], "class_names", ()))


def draw_images(
    model: keras.Model,
    count: int,
    seed: int,
    labels: np.ndarray | None = None,
    latents: np.ndarray | None = None,
    progress: Counting | None = None,
) -> np.ndarray:
    """Draws with a model of latents.

    Args:
        model: latents (B, Z)[, labels (B,)] -> images (B, H, W, C) in [0, 1].
        count: N.
        seed: of the latents.
        labels: class indices (N,); of a conditional model they go in turn when left out.
        latents: (N, Z), in the place of random ones.
        progress: told of each batch.

    Returns:
        uint8 (N, H, W, C).
    """
    latents = latents_of(model, count, seed) if latents is None else latents
    labels = labels_in_turn(model, count) if labels is None else labels
    draw = _compiled(model)
    drawn = []
    for first in range(0, count, BATCH_SIZE):
        part = slice(first, first + BATCH_SIZE)
        inputs = tf.constant(latents[part])
        given: Any = inputs if labels is None else {"latents": inputs, "labels": tf.constant(labels[part])}
        drawn.append(as_pixels(draw(given).numpy()))
        if progress is not None:
            progress.add(len(drawn[-1]))
    return np.concatenate(drawn)


def as_pixels(images: np.ndarray) -> np.ndarray:
    """float (..., C) in [0, 1] -> uint8, rounded."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _compiled(model: keras.Model) -> Callable[[Any], tf.Tensor]:
    """`model.predict` costs 50 ms a call; this is kept with the model, since tracing takes a second."""
    found = getattr(model, "_dlcli_draw", None)
    if found is None:
        found = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
        model._dlcli_draw = found
    return found


def write_animation(folder: Path, path: Path) -> None:
    """One moving picture of the `epoch_*.png` of a folder, if there are at least two."""
