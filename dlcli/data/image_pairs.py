"""The data set `image_pairs`: images that belong together two by two, such as a map and an aerial photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import DataInfo, Examples, Source
from dlcli.data.image_listing import SPLITS, has_two_sides, list_two_sides, list_unlabelled
from dlcli.data.images import image_preprocessing
from dlcli.data.listed_images import Files, height_and_width, read_files
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize

_SHOWN = 5


def image_pairs(
    *,
    path: Path,
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b",
    image_size: ImageSize | None = None,
    color_mode: Literal["auto", "rgb", "grayscale"] = "auto",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """Pairs (A, B): `trainA/NAME.*` with `trainB/NAME.*`, or files that hold A left and B right, as pix2pix's own data.

    Args:
        path: a folder with `trainA` and `trainB`, and perhaps `testA`, `testB`, `valA` and `valB`, where the files of a
            pair have one name up to the suffix; or one with `train/*` and perhaps `val/*` and `test/*`, each file with
            both images side by side.
        direction: `a_to_b` learns to draw B from A, `b_to_a` the reverse.
        image_size: one side or [height, width] of each of the two images; needed when the files differ in size.
        color_mode: `rgb`, `grayscale`, or `auto`: grey when all images are.
        on_bad_file: `error` refuses to start while a file cannot be read; `skip` leaves its pair out and counts it.
    """
    root = Path(path).expanduser()
    if has_two_sides(root):
        files = read_files(list_two_sides(root), image_size, color_mode, on_bad_file)
        parts, shape, notes = _by_name(files, root)
    else:
        size = height_and_width(image_size)
        whole = None if size is None else (size[0], 2 * size[1])
        files = read_files(list_unlabelled(root), whole, color_mode, on_bad_file)
        parts, shape, notes = _side_by_side(files, root)
    if direction == "b_to_a":
        parts = [None if part is None else part.reversed() for part in parts]
    train, validation, test = parts
    if train is None:
        raise DataError(f"{root}: no pairs of the train split")
    if test is None:
        notes.append("there is no test split: `dlcli evaluate` needs `--split` validation or train")
    info = DataInfo(
        kind="image_pairs",
        input_shape=shape,
        target="images",
        notes=(*files.notes, *notes),
        fingerprint=files.listing.fingerprint(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, shape)

    return Source(train, info, preprocess, test=test, validation=validation)


class PairExamples:
    """Pairs of images, read as `source` and `target`.

    Args:
        source: what is translated.
        target: what it should become, in the same order; None when `source` holds both, side by side.
        swapped: whether the images stand the other way round.
    """

    def __init__(self, source: Examples, target: Examples | None = None, swapped: bool = False) -> None:
        if target is not None and len(source) != len(target):
            raise ValueError(
                f"Expected as many targets as sources. Received: {len(target)} and {len(source)}"
            )
        self._images, self._others, self._swapped = source, target, swapped
        self.targets = np.zeros(len(source), np.int32)

    def __len__(self) -> int:
        return len(self.targets)

    def reversed(self) -> PairExamples:
        """The same pairs, the other way round."""
        return PairExamples(self._images, self._others, not self._swapped)

    def subset(self, indices: np.ndarray) -> PairExamples:
        """The pairs at `indices`, without reading them."""
        others = None if self._others is None else self._others.subset(indices)
        return PairExamples(self._images.subset(indices), others, self._swapped)

    def read(self, indices: tf.Tensor) -> dict[str, Any]:
        """`source` and `target`, each uint8 (B, H, W, C)."""
        first = self._images.read(indices)
        if self._others is None:
            middle = first.shape[2] // 2
            first, second = first[:, :, :middle], first[:, :, middle:]
        else:
            second = self._others.read(indices)
        return {"source": second, "target": first} if self._swapped else {"source": first, "target": second}


Parts = tuple[list[PairExamples | None], tuple[int, int, int], list[str]]
"""Train, validation and test; (H, W, C) of one image; notes."""


def _by_name(files: Files, root: Path) -> Parts:
    """Pairs of equal stems below `trainA` and `trainB`, and so on."""
    listing = files.listing
    parts: list[PairExamples | None] = []
    notes: list[str] = []
    for split, split_name in enumerate(SPLITS):
        rows = [_stems(files, root, split, side) for side in (0, 1)]
        common = sorted(rows[0].keys() & rows[1].keys())
        alone = [(side, stem) for side in (0, 1) for stem in sorted(rows[side].keys() - set(common))]
        if alone and not files.skipped:
            shown = ", ".join(listing.paths[rows[side][stem]] for side, stem in alone[:_SHOWN])
            raise DataError(
                f"{root}: {len(alone)} images of the {split_name} split have no partner of the same name on the other "
                f"side: {shown}; add it, or remove them"
            )
        if alone:
            notes.append(f"{len(alone)} {split_name} images were left out with the file that they belong to")
        if not common:
            parts.append(None)
            continue
        first, second = (files.rows(np.array([side[stem] for stem in common], np.int64)) for side in rows)
        parts.append(PairExamples(first, second))
    return parts, files.shape, notes


def _stems(files: Files, root: Path, split: int, side: int) -> dict[str, int]:
    """Path below the side's folder without its suffix -> row."""
    listing = files.listing
    found: dict[str, int] = {}
    for row in np.flatnonzero((listing.splits == split) & (listing.targets == side)):
        path = Path(listing.paths[row])
        stem = str(path.relative_to(path.parts[0]).with_suffix(""))
        if stem in found:
            raise DataError(
                f"{root}: {listing.paths[found[stem]]} and {path} have one name; keep one of them"
            )
        found[stem] = int(row)
    return found


def _side_by_side(files: Files, root: Path) -> Parts:
    height, width, channels = files.shape
    if width % 2:
        raise DataError(
            f"{root}: each file should hold two images side by side, and these are {width} pixels wide, an odd number; "
            "or use the folders trainA and trainB"
        )
    parts: list[PairExamples | None] = []
    for split in range(len(SPLITS)):
        examples = files.part(files.listing.splits == split)
        parts.append(None if examples is None else PairExamples(examples))
    return parts, (height, width // 2, channels), []
