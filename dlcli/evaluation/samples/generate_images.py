"""`dlcli generate` of images: files of what a run draws, and one picture of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli.console import Counting, note
from dlcli.errors import DlcliError, OutputError
from dlcli.evaluation.samples.grid import Grid, columns_for, write_grid, write_image
from dlcli.evaluation.samples.sampling import (
    BATCH_SIZE,
    PATH_STEPS,
    class_names,
    draw_images,
    labels_in_turn,
    latents_of,
    path_of,
    reads_latents,
    stretches_of,
    write_frames,
)
from dlcli.files import new_folder
from dlcli.runs import Run

MOST_IN_GRID = 400
"""Images in one picture; of more the first ones."""
GRID, ANIMATION = "grid.png", "interpolation.gif"
FRAME_MILLISECONDS = 80


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    count: int = 64
    seed: int = 0
    class_name: str | None = None
    """A name or an index; None: all classes in turn."""
    grid: bool = True
    """Whether one picture shows them."""
    interpolate: bool = False
    """Whether the images walk from one random latent to the next, and back to the first."""


def generate_images(run: Run, wanted: Wanted, out: Path | None = None) -> dict[str, Any]:
    """Writes `0001.png`, ... and `grid.png`; of a walk also `interpolation.gif`.

    Args:
        run: of task gan, autoencoding or diffusion.
        wanted: what to draw.
        out: a new or empty folder; None: `RUN/generated`, `RUN/generated-2`, ...

    Returns:
        `run`, `seed`, `folder`, `images` (`file` and, of a conditional model, `class` of each), `grid`, `animation`.

    Raises:
        DlcliError: the run cannot do it, or there is something at `out` already.
    """
    model = run.model
    names = class_names(model)
    labels = _labels(model, wanted)
    beginnings = None
    if wanted.interpolate:
        beginnings, stretch = _walk(model, wanted)
        labels = stretch % len(names) if names and wanted.class_name is None else labels
    with results_folder(run, out) as folder:
        images = _written(_drawn(run, wanted, labels, beginnings), folder, labels, names, wanted)
    report: dict[str, Any] = {"run": str(run.path), "seed": wanted.seed, "folder": str(folder), **images}
    return report


def free_folder(run: Run, out: Path | None) -> Path:
    """An empty folder for results: nothing is overwritten.

    Raises:
        DlcliError: there is something at `out`.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DlcliError(f"--out {out}: is there already, and nothing is overwritten; give another folder")
    try:
        if out is None:
            return new_folder(run.path / "generated")
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"--out {out}: cannot be made: a file is in its way") from None
    except OSError as error:
        raise OutputError(f"--out {out or error.filename}: cannot be made: {error.strerror}") from error
    return out


@contextmanager
def results_folder(run: Run, out: Path | None) -> Iterator[Path]:
    """As `free_folder`; the folder goes again when what is inside fails before it has written a file.

    Raises:
        DlcliError: there is something at `out`.
    """
    existed = out is not None and out.is_dir()
    folder = free_folder(run, out)
    try:
        yield folder
    except BaseException:
        if not existed:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def label_of(names: tuple[str, ...], given: str) -> int:
    """Index of a class that was named, or given as an index.

    Raises:
        DlcliError: there is no such class, or the model knows none.
    """
    if not names:
        raise DlcliError(
            f"--class {given}: this model was not told of classes; leave it out, or train with task.conditional: true"
        )
    if given in names:
        return names.index(given)
    if given.isascii() and given.isdigit() and int(given) < len(names):
        return int(given)
    # `-1` and `10` are meant as indices: a class that is written alike is no guess at what was meant.
    near = [] if given.lstrip("-").isdecimal() else difflib.get_close_matches(given, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    raise DlcliError(f"--class {given}: no such class; {hint}allowed: {shown}, or an index from 0")


def _labels(model: keras.Model, wanted: Wanted) -> np.ndarray | None:
    if wanted.class_name is None:
        return labels_in_turn(model, wanted.count)
    return np.full(wanted.count, label_of(class_names(model), wanted.class_name), np.int32)


def _walk(model: keras.Model, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Latents, or noise, of each image of a walk, and the stretch that it belongs to."""
    if wanted.count < 2:
        raise DlcliError(
            f"--interpolate --count {wanted.count}: a walk has 2 images or more; 64 are 8 stretches"
        )
    count = stretches_of(wanted.count)
    if reads_latents(model):
        return path_of(latents_of(model, count, wanted.seed), wanted.count)
    shape = (count, *model.output_shape[1:])
    return path_of(np.random.default_rng(wanted.seed).standard_normal(shape, np.float32), wanted.count)


def _drawn(
    run: Run, wanted: Wanted, labels: np.ndarray | None, beginnings: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Images, block by block; `beginnings` are latents or noise in the place of random ones."""
    model, count = run.model, wanted.count
    if not reads_latents(model):
        from dlcli.evaluation.samples.ddim import sample_images

        yield sample_images(model, count, wanted.seed, labels, beginnings)  # tells its own progress
        return
    latents = latents_of(model, count, wanted.seed) if beginnings is None else beginnings
    with Counting("generating", "images", count) as progress:
        for first in range(0, count, BATCH_SIZE):
            part = slice(first, first + BATCH_SIZE)
            chosen = None if labels is None else labels[part]
            yield draw_images(model, len(latents[part]), wanted.seed, chosen, latents[part], progress)


def _written(
    blocks: Iterator[np.ndarray],
    folder: Path,
    labels: np.ndarray | None,
    names: tuple[str, ...],
    wanted: Wanted,
) -> dict[str, Any]:
    """Writes files as the images come."""
    files: list[dict[str, str]] = []
    shown: list[np.ndarray] = []
    digits = max(4, len(str(wanted.count)))
    for block in blocks:
        for image in block:
            number = len(files)
            about = {} if labels is None else {"class": names[labels[number]]}
            name = f"{number + 1:0{digits}d}{_suffix(about)}.png"
            write_image(image, folder / name)
            files.append({"file": name, **about})
            if number < MOST_IN_GRID or wanted.interpolate:
                shown.append(image)
    result: dict[str, Any] = {"images": files, "grid": None, "animation": None}
    if wanted.grid:
        write_grid(_grid(np.stack(shown[:MOST_IN_GRID]), labels, names, wanted), folder / GRID)
        result["grid"] = GRID
        if len(files) > MOST_IN_GRID:
            note(f"{GRID} shows the first {MOST_IN_GRID} of {len(files):,} images")
    if wanted.interpolate:
        write_frames([_enlarged(image) for image in shown], folder / ANIMATION, FRAME_MILLISECONDS)
        result["animation"] = ANIMATION
    return result


def _suffix(about: dict[str, str]) -> str:
    """`_cat`: the class, in letters that every file system takes."""
    return "".join("_" + re.sub(r"[^\w-]+", "-", name)[:40] for name in about.values())


def _grid(images: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...], wanted: Wanted) -> Grid:
    """Columns of classes where they come in turn; rows of stretches of a walk; else a square."""
    count = len(images)
    if wanted.interpolate:
        return Grid(images, PATH_STEPS if count >= PATH_STEPS else count)
    if labels is not None and wanted.class_name is None and len(names) <= min(count, 20):
        return Grid(images, len(names), column_names=names)
    return Grid(images, columns_for(count))


def _enlarged(image: np.ndarray) -> np.ndarray:
    """At least 128 pixels high, by repeating pixels."""
    factor = max(1, round(128 / max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
