"""`dlcli generate RUN --input DIR`: image files -> translated image files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.console import Counting, note, warn
from dlcli.data.decode import BadImageError, decode_file
from dlcli.errors import DataError, DlcliError
from dlcli.evaluation.predict import find_images
from dlcli.evaluation.samples.generate_images import GRID
from dlcli.evaluation.samples.grid import Grid, write_grid, write_image
from dlcli.evaluation.samples.image_translation import BATCH_SIZE, translate
from dlcli.runs import Run

MOST_IN_GRID = 50
"""Rows of the picture; of more images the first ones."""
SHOWN = 5


def translate_images(
    run: Run, inputs: Sequence[Path], out: Path, reverse: bool = False, grid: bool = True
) -> dict[str, Any]:
    """Writes `NAME.png` for each image, of the size that the model was trained on, and `grid.png`, input beside output.

    Args:
        run: of task image_translation.
        inputs: image files, folders (all images below) or patterns.
        out: an empty folder.
        reverse: from B to A; of architecture cycle_gan alone.
        grid: whether one picture shows them.

    Returns:
        `run`, `folder`, `direction`, `images` (`input` and `file` of each), `unreadable` (path -> reason), `grid`.

    Raises:
        DataError: none of the inputs is an image that can be read.
        DlcliError: the run cannot translate back.
    """
    model, direction = _model_of(run, reverse)
    height, width, channels = model.input.shape[1:]
    found = list(find_images(inputs))
    unreadable = {str(path): reason for path, reason in found if reason is not None}
    paths = [path for path, reason in found if reason is None]
    written: list[dict[str, str]] = []
    shown: list[np.ndarray] = []
    taken: set[str] = set()
    out.mkdir(parents=True, exist_ok=True)
    with Counting("translating", "images", len(paths)) as progress:
        for start in range(0, len(paths), BATCH_SIZE):
            images = {}
            for path in paths[start : start + BATCH_SIZE]:
                try:
                    images[path] = decode_file(str(path), channels, (height, width))
                except BadImageError as error:
                    unreadable[str(path)] = str(error)
            if not images:
                continue
            before = np.stack(list(images.values()))
            after = translate(model, before)
            for path, source, image in zip(images, before, after, strict=True):
                name = _free_name(path, taken)
                write_image(image, out / name)
                written.append({"input": str(path), "file": name})
                if len(shown) < 2 * MOST_IN_GRID:
                    shown += [source, image]
            progress.add(len(images))
    _tell(unreadable, bool(written))
    if grid:
        write_grid(Grid(np.stack(shown), 2, column_names=("input", "output")), out / GRID)
        if len(written) > MOST_IN_GRID:
            note(f"{GRID} shows the first {MOST_IN_GRID} of {len(written):,} images")
    return {
        "run": str(run.path),
        "folder": str(out),
        "direction": direction,
        "images": written,
        "unreadable": unreadable,
        "grid": GRID if grid else None,
    }


def _model_of(run: Run, reverse: bool) -> tuple[Any, str]:
    if run.recipe.dataset.name == "image_pairs":
        if reverse:
            raise DlcliError(
                f"--reverse: {run.path} has architecture {run.recipe.architecture.name}, which learns one direction; "
                "train another run with dataset.direction: b_to_a"
            )
        return run.model, str(run.recipe.dataset.arguments.get("direction", "a_to_b"))
    return (run.part("b_to_a"), "b_to_a") if reverse else (run.model, "a_to_b")


def _free_name(path: Path, taken: set[str]) -> str:
    """`horse.png` of `horse.jpg`; `horse-2.png` when another folder has one too, or `grid-2.png` beside the picture."""
    for number in count(1):
        name = f"{path.stem}.png" if number == 1 else f"{path.stem}-{number}.png"
        # Some file systems do not tell upper from lower case.
        if name.lower() not in taken and name.lower() != GRID:
            break
    taken.add(name.lower())
    return name


def _tell(unreadable: dict[str, str], any_written: bool) -> None:
    if not unreadable and any_written:
        return
    lines = [f"  {path} {reason}" for path, reason in list(unreadable.items())[:SHOWN]]
    more = [f"  ... and {len(unreadable) - SHOWN} more"] if len(unreadable) > SHOWN else []
    listed = "\n".join([*lines, *more])
    if not any_written:
        raise DataError(f"--input: no image that can be read:\n{listed}")
    warn(f"{len(unreadable)} of the inputs cannot be read and were left out:\n{listed}")
