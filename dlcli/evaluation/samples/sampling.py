"""A saved generative model -> images, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from dlcli.console import Counting
from dlcli.errors import DlcliError
from dlcli.evaluation.samples.grid import Grid
from dlcli.files import atomic_path

BATCH_SIZE = 100
PREVIEW_COLUMNS, PREVIEW_ROWS = 8, 8
PATH_STEPS = 8
"""Images from one latent of a walk to the next."""
MOST_CLASS_ROWS = 16
"""Classes of a conditional model that a preview shows, a row for each."""
MOST_FRAMES = 50
"""Of a moving picture; of more epochs some are left out, evenly."""
FRAME_MILLISECONDS, SHORTEST_FRAME, LAST_MILLISECONDS = 300, 80, 2000


def latents_of(model: keras.Model, count: int, seed: int) -> np.ndarray:
    """Standard normal latents (N, Z); those of a smaller count are the first of these."""
    return np.random.default_rng(seed).standard_normal((count, latent_dimension(model)), np.float32)


def inputs_of(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Name -> input of a model."""
    return model.input if isinstance(model.input, dict) else {model.input.name: model.input}


def reads_latents(model: keras.Model) -> bool:
    """Whether a model draws in one step, from latents."""
    return "latents" in inputs_of(model)


def latent_dimension(model: keras.Model) -> int:
    """Z of a model that draws from latents.

    Raises:
        DlcliError: it draws from something else.
    """
    inputs = inputs_of(model)
    if "latents" not in inputs:
        raise DlcliError(
            f"this model reads {', '.join(inputs)}, not latents, so nothing can be drawn with it"
        )
    return int(inputs["latents"].shape[-1])


def path_of(corners: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A closed walk through random latents or noise, evenly, by spherical interpolation.

    White 2016, "Sampling Generative Networks", section 2.1: on a straight line latents would be shorter than any that
    the model has seen.

    Args:
        corners: float32 (S, ...), two or more.
        count: N, of steps.

    Returns:
        float32 (N, ...), and the number (N,) of the stretch that each belongs to.
    """
    stretches = len(corners)
    flat = corners.reshape(stretches, -1)
    place = np.arange(count) * (stretches / count)
    stretch = place.astype(np.int64)
    share = (place - stretch).astype(np.float32)[:, None]
    walked = spherical(flat[stretch], flat[(stretch + 1) % stretches], share)
    return walked.reshape(count, *corners.shape[1:]), stretch


def stretches_of(count: int) -> int:
    """Corners of a walk of so many images: `PATH_STEPS` from each to the next."""
    return max(2, round(count / PATH_STEPS))


def spherical(begin: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Between vectors (N, Z): directions along the great circle, lengths in proportion.

    Args:
        begin: where `share` is 0.
        end: where it is 1.
        share: (N, 1).
    """
    first, last = (np.linalg.norm(each, axis=1, keepdims=True) for each in (begin, end))
    cosine = (begin * end).sum(axis=1, keepdims=True) / (first * last)
    angle = np.arccos(np.clip(cosine, -1, 1))
    sine = np.sin(angle)
    near = sine < 1e-4  # parallel: a straight line is as good
    safe = np.where(near, 1, sine)
    weights = [np.where(near, part, np.sin(part * angle) / safe) for part in (1 - share, share)]
    direction = weights[0] * begin / first + weights[1] * end / last
    return (((1 - share) * first + share * last) * direction).astype(np.float32)


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
    """Values (..., C) in [0, 1] -> uint8, rounded."""
    # A network that has become NaN is refused elsewhere; its picture is black.
    return np.round(np.clip(np.nan_to_num(images, nan=0.0), 0, 1) * 255).astype(np.uint8)


def preview(model: keras.Model, seed: int) -> Grid:
    """The same draws each time: of a conditional model a row for each class, the same latents in all rows."""
    names = class_names(model)[:MOST_CLASS_ROWS]
    if not names:
        return Grid(draw_images(model, PREVIEW_COLUMNS * PREVIEW_ROWS, seed), PREVIEW_COLUMNS)
    latents = np.tile(latents_of(model, PREVIEW_COLUMNS, seed), (len(names), 1))
    labels = np.repeat(np.arange(len(names), dtype=np.int32), PREVIEW_COLUMNS)
    return Grid(draw_images(model, len(labels), seed, labels, latents), PREVIEW_COLUMNS, names)


def _compiled(model: keras.Model) -> Callable[[Any], tf.Tensor]:
    """`model.predict` costs 50 ms a call; this is kept with the model, since tracing takes a second."""
    found = getattr(model, "_dlcli_draw", None)
    if found is None:
        found = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
        model._dlcli_draw = found
    return found


def write_animation(folder: Path, path: Path) -> None:
    """One moving picture (GIF) of the `epoch_*.png` of a folder, if two or more; the last one stays longer."""
    found = sorted(folder.glob("epoch_*.png"), key=lambda file: (len(file.name), file.name))
    if len(found) < 2:
        return
    chosen = np.unique(np.linspace(0, len(found) - 1, min(len(found), MOST_FRAMES)).round().astype(int))
    pictures = []
    for index in chosen:
        with Image.open(found[index], formats=("PNG",)) as picture:
            pictures.append(np.asarray(picture))
    # About ten seconds in all, unless the epochs are few.
    each = min(FRAME_MILLISECONDS, max(SHORTEST_FRAME, 10_000 // len(pictures)))
    write_frames(pictures, path, [each] * (len(pictures) - 1) + [LAST_MILLISECONDS])


def write_frames(pictures: Sequence[np.ndarray], path: Path, milliseconds: int | list[int]) -> None:
    """A moving picture (GIF) that begins anew at its end: uint8 (H, W) or (H, W, C), each shown so long."""
    frames = []
    for pixels in pictures:
        picture = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
        # One palette a frame: colours change over a training.
        frames.append(picture if picture.mode == "L" else picture.convert("RGB").quantize(256))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=False
        )
