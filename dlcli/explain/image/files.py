"""Image files -> Subjects, in a stream: while one is explained, threads decode the next ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from dlcli.data.decode import BadImageError, decode_file, inspect_file
from dlcli.evaluation.predict import find_images
from dlcli.explain.attribution import Subject, Unreadable
from dlcli.explain.journal import JOURNAL

AHEAD = 64
"""Images that wait decoded at most."""

LARGEST_SHOWN = 512
"""Pixels of the longer side that a picture shows of a larger original."""


def subjects_of_images(model: keras.Model, inputs: Iterable[str]) -> Iterator[Subject | Unreadable]:
    """What a user names, as the model reads it.

    Args:
        model: takes uint8 (B, H, W, C); H and W may be open, then each image keeps its size.
        inputs: files, folders (all images below, by name) or patterns such as `*.jpg`.

    Yields:
        One for each image, in order; what cannot be read says why.
    """
    height, width, channels = model.inputs[0].shape[1:]
    size = None if height is None or width is None else (height, width)
    given = [Path(each) for each in inputs]
    unfit: dict[tuple[int, ...], str | None] = {}
    waiting: deque[Unreadable | Future[Subject | Unreadable]] = deque()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for path, error in find_images(given):
            if path not in given and (path.parent / JOURNAL).exists():
                continue  # a picture of ours
            if error is not None:
                waiting.append(Unreadable(str(path), error))
            else:
                waiting.append(pool.submit(_read, path, channels, size))
            if len(waiting) > AHEAD:
                yield _result(waiting.popleft(), model, unfit)
        while waiting:
            yield _result(waiting.popleft(), model, unfit)


def _result(
    each: Unreadable | Future[Subject | Unreadable],
    model: keras.Model,
    unfit: dict[tuple[int, ...], str | None],
) -> Subject | Unreadable:
    """What was read, unless the model takes images of any size but not of this one."""
    found = each if isinstance(each, Unreadable) else each.result()
    if isinstance(found, Unreadable):
        return found
    shape = found.inputs.shape
    if shape not in unfit:
        unfit[shape] = _unfit(model, shape)
    return found if unfit[shape] is None else Unreadable(found.name, str(unfit[shape]))


def _unfit(model: keras.Model, shape: tuple[int, ...]) -> str | None:
    """Why the model cannot read images of a shape; None when it can."""
    if None not in model.inputs[0].shape[1:3]:
        return None
    try:
        model.compute_output_shape((1, *shape))
    except ValueError:  # a convolution or a pooling that is larger than what is left
        return f"{shape[1]}x{shape[0]} pixels are too few for this model; enlarge the image"
    return None


def _read(path: Path, channels: int, size: tuple[int, int] | None) -> Subject | Unreadable:
    try:
        header = inspect_file(path)
        pixels = decode_file(path, channels, size)
        resized = size is not None and (header.height, header.width) != size
        shown = decode_file(path, channels, _shown(header.height, header.width)) if resized else None
    except BadImageError as error:
        return Unreadable(str(path), str(error))
    notes = []
    if resized:
        notes.append(f"resized from {header.width}x{header.height} to {pixels.shape[1]}x{pixels.shape[0]}")
    if "A" in header.mode or "a" in header.mode or "transparency" in header.mode:
        notes.append("transparent parts laid over white")
    if channels == 3 and header.grey:
        notes.append("grey turned into colour channels")
    if channels == 1 and not header.grey:
        notes.append("colour turned into grey")
    return Subject(str(path), pixels, original=shown, notes=tuple(notes))


def _shown(height: int, width: int) -> tuple[int, int] | None:
    """The size at which a picture shows an original; None for its own."""
    longer = max(height, width)
    if longer <= LARGEST_SHOWN:
        return None
    return max(1, height * LARGEST_SHOWN // longer), max(1, width * LARGEST_SHOWN // longer)


def subjects_of_arrays(images: np.ndarray, names: Iterable[str]) -> list[Subject]:
    """Images of a data set, uint8 (N, H, W, C), as Subjects."""
    return [Subject(name, image) for name, image in zip(names, images, strict=True)]
