"""The data set `image_folder`: any folder of class folders, or of images that a CSV labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from dlcli.data.cache import NewEntry, keep_verdict, memory_budget, read_entry, read_verdict
from dlcli.data.examples import ArrayExamples, DataInfo, Examples, Source
from dlcli.data.image_files import (
    FileExamples,
    Survey,
    cache_key,
    check_bad,
    conversions,
    decode_all,
    find_damaged,
    survey,
)
from dlcli.data.image_listing import SPLITS, Listing, list_class_folders, list_labelled_files
from dlcli.data.images import PixelScaling, image_preprocessing
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize

_SHOWN = 5


def image_folder(
    *,
    path: Path,
    image_size: ImageSize | None = None,
    color_mode: Literal["auto", "rgb", "grayscale"] = "auto",
    labels: Path | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """Images in class folders (`CLASS/*`, or `train/CLASS/*` and `test/CLASS/*`), or labelled by a CSV.

    JPEG, PNG, BMP, GIF, WebP and TIFF, by content. The rules for unusual files stand in `dlcli.data.decode`.

    Args:
        path: the folder; beside a `train/` in it, `test/` and `val/` (or `valid/`, `validation/`) are splits.
        image_size: one side or [height, width] that every image is resized to (bilinear, antialiased, aspect
            ratio not kept); needed when the images differ in size.
        color_mode: `rgb`, `grayscale`, or `auto`: grey when all images are.
        labels: CSV with the columns path, label and perhaps split (train, validation, test); its paths are
            relative to `path`.
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation of each channel, or `none`.
        on_bad_file: `error` refuses to start while a file cannot be read; `skip` leaves those out and counts
            them.
    """
    root = Path(path).expanduser()
    listing = list_labelled_files(root, Path(labels).expanduser()) if labels else list_class_folders(root)
    return source_of_files(listing, image_size, color_mode, normalization, on_bad_file)


def source_of_files(
    listing: Listing,
    image_size: ImageSize | None,
    color_mode: Literal["auto", "rgb", "grayscale"],
    normalization: PixelScaling,
    on_bad_file: Literal["error", "skip"],
) -> Source:
    """The examples of listed files: from the cache, decoded into it, or streamed when memory is too small.

    Raises:
        DataError: files cannot be read, or differ in size and no `image_size` is given.
    """
    size = height_and_width(image_size)
    skip = on_bad_file == "skip"
    key = cache_key(listing, (size, color_mode))
    cached = read_entry(key)
    if cached is not None and cached[0].nbytes <= memory_budget():
        pixels, facts = cached
        bad = {int(index): reason for index, reason in facts["bad"].items()}
        notes = [*facts["notes"], *check_bad(listing, bad, skip)]
        return _in_memory(listing, pixels, bad, notes=notes, normalization=normalization)
    found = survey(listing)
    check_bad(listing, found.bad, skip)  # before the work of decoding
    shape = image_shape(found, size, color_mode)
    notes = [*listing.notes, *conversions(listing, found, shape[2], shape[:2])]
    if ignored := sum(listing.ignored.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(listing.ignored.items()))
        notes.append(f"{ignored} files ignored ({reasons})")
    if len(listing) * int(np.prod(shape)) > memory_budget():
        bad = {**found.bad, **_damaged(listing, found, shape, key)}
        notes += check_bad(listing, bad, skip)
        return _streamed(listing, bad, shape, notes=notes, normalization=normalization)
    entry = NewEntry(key, (len(listing), *shape))
    try:
        _, late = decode_all(listing, found, shape, entry)
    except BaseException:
        entry.discard()
        raise
    bad = {**found.bad, **late}
    pixels = entry.finish({"bad": bad, "notes": notes})
    if entry.problem:
        notes.append(f"decoded images are not kept for the next run: {entry.problem}")
    notes += check_bad(listing, bad, skip)
    return _in_memory(listing, pixels, bad, notes=notes, normalization=normalization)


def height_and_width(image_size: ImageSize | None) -> tuple[int, int] | None:
    """(height, width) of a recipe's `image_size`."""
    if image_size is None:
        return None
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


def image_shape(
    found: Survey, size: tuple[int, int] | None, color_mode: Literal["auto", "rgb", "grayscale"]
) -> tuple[int, int, int]:
    """(height, width, channels) of the decoded images, of which at least one has a header in order.

    Raises:
        DataError: they differ in size and none is given.
    """
    sizes = found.sizes()
    if size is None and len(sizes) > 1:
        common = sizes.most_common(_SHOWN)
        shown = ", ".join(f"{height} x {width} ({count})" for (height, width), count in common)
        more = f" and {len(sizes) - _SHOWN} other sizes" if len(sizes) > _SHOWN else ""
        height, width = common[0][0]
        raise DataError(
            f"the images differ in size, height x width (count): {shown}{more}. "
            f"Give the size to work with, for example image_size: [{height}, {width}]"
        )
    height, width = size or next(iter(sizes))
    all_grey = all(header.grey for header in found.headers if header is not None)
    grey = color_mode == "grayscale" or (color_mode == "auto" and all_grey)
    return height, width, 1 if grey else 3


def _in_memory(
    listing: Listing,
    pixels: np.ndarray,
    bad: dict[int, str],
    *,
    notes: list[str],
    normalization: PixelScaling,
) -> Source:
    good = _good(listing, bad)
    pixels = pixels[: int(good.sum())]
    targets, splits = listing.targets[good], listing.splits[good]

    def part(split: int) -> ArrayExamples | None:
        first, last = np.searchsorted(splits, (split, split + 1))  # the listing is sorted by split
        return ArrayExamples(pixels[first:last], targets[first:last]) if last > first else None

    return _source(listing, tuple(pixels.shape[1:]), part, notes, normalization)


def _damaged(listing: Listing, found: Survey, shape: tuple[int, int, int], key: str) -> dict[int, str]:
    """Files that only decoding finds to be bad; looked for once, so that training does not stop at one."""
    known = read_verdict(key)
    if known is None:
        known = find_damaged(listing, found, shape)
        keep_verdict(key, known)
    return known


def _streamed(
    listing: Listing,
    bad: dict[int, str],
    shape: tuple[int, int, int],
    *,
    notes: list[str],
    normalization: PixelScaling,
) -> Source:
    good = _good(listing, bad)
    paths, targets, splits = listing.paths[good], listing.targets[good], listing.splits[good]

    def part(split: int) -> FileExamples | None:
        chosen = splits == split
        return FileExamples(listing.root, paths[chosen], targets[chosen], shape) if chosen.any() else None

    size = len(paths) * int(np.prod(shape)) / 2**30
    notes = [
        *notes,
        f"{len(paths)} images ({size:.1f} GiB of pixels) are read from their files in every epoch: "
        f"more than a quarter of the free memory",
    ]
    return _source(listing, shape, part, notes, normalization)


def _good(listing: Listing, bad: dict[int, str]) -> np.ndarray:
    good = np.ones(len(listing), dtype=bool)
    good[list(bad)] = False
    return good


def _source(
    listing: Listing,
    shape: tuple[int, ...],
    part: Callable[[int], Examples | None],
    notes: list[str],
    normalization: PixelScaling,
) -> Source:
    train, validation, test = (part(split) for split in range(len(SPLITS)))
    if train is None:
        raise DataError(f"{listing.root}: no images of the train split")
    if test is None:
        notes = [*notes, "there is no test split: `dlcli evaluate` needs `--split validation`"]
    info = DataInfo(
        kind="image",
        input_shape=shape,
        target="classes",
        class_names=listing.class_names,
        notes=tuple(notes),
        fingerprint=listing.fingerprint(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, shape, normalization)

    return Source(train, info, preprocess, test=test, validation=validation)
