"""Listed image files -> examples: from the cache, decoded into it, or streamed when memory is too small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dlcli.data.cache import NewEntry, keep_verdict, memory_budget, read_entry, read_verdict
from dlcli.data.examples import ArrayExamples, Examples
from dlcli.data.image_copies import notes_on_copies
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
from dlcli.data.image_listing import Listing
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize

_SHOWN = 5


@dataclass(frozen=True)
class Files:
    """Image files that can be read."""

    listing: Listing
    """The good ones, in the order of all."""
    shape: tuple[int, int, int]
    """(H, W, C) of a decoded image."""
    pixels: np.ndarray | None
    """uint8 (N, H, W, C); None when they do not fit into memory and are read from the files."""
    notes: tuple[str, ...]
    skipped: int
    """Files that are bad and were left out."""

    def part(self, chosen: np.ndarray) -> Examples | None:
        """The examples where `chosen` (N,) is true; None when there are none."""
        rows = np.flatnonzero(chosen)
        return self.rows(rows) if len(rows) else None

    def rows(self, rows: np.ndarray) -> Examples:
        """The examples at `rows`, at least one, in their order."""
        targets = self.listing.targets
        if self.pixels is None:
            return FileExamples(self.listing.where(rows), self.shape)
        first, end = int(rows[0]), int(rows[-1]) + 1
        if np.array_equal(
            rows, np.arange(first, end)
        ):  # a view, so that its pixels are shared with the cache
            return ArrayExamples(self.pixels[first:end], targets[first:end])
        return ArrayExamples(self.pixels, targets).subset(rows)


def read_files(
    listing: Listing,
    image_size: ImageSize | None,
    color_mode: Literal["auto", "rgb", "grayscale"],
    on_bad_file: Literal["error", "skip"],
) -> Files:
    """Decodes listed files, or finds them in the cache.

    Args:
        listing: of the files.
        image_size: one side or [height, width] that all are resized to; None when they have one size.
        color_mode: `auto` is grey when all images are.
        on_bad_file: whether one that cannot be read stops the work.

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
        return _good_files(listing, bad, pixels.shape[1:], pixels, notes)
    found = survey(listing)
    check_bad(listing, found.bad, skip)  # before the work of decoding
    shape = image_shape(found, size, color_mode)
    notes = [*notes_on_copies(listing), *listing.notes, *conversions(listing, found, shape[2], shape[:2])]
    if ignored := sum(listing.ignored.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(listing.ignored.items()))
        notes.append(f"{ignored} files ignored ({reasons})")
    size_of_all = len(listing) * int(np.prod(shape))
    if size_of_all > memory_budget():
        bad = {**found.bad, **_damaged(listing, found, shape[2], key)}
        notes += check_bad(listing, bad, skip)
        count = len(listing) - len(bad)
        size_of_good = count * int(np.prod(shape)) / 2**30
        notes.append(
            f"{count} images ({size_of_good:.1f} GiB of pixels) are read from their files in every epoch: "
            f"more than a quarter of the free memory"
        )
        return _good_files(listing, bad, shape, None, notes)
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
    return _good_files(listing, bad, shape, pixels, notes)


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


def _good_files(
    listing: Listing,
    bad: dict[int, str],
    shape: tuple[int, ...],
    pixels: np.ndarray | None,
    notes: list[str],
) -> Files:
    good = np.ones(len(listing), dtype=bool)
    good[list(bad)] = False
    height, width, channels = shape
    pixels = None if pixels is None else pixels[: int(good.sum())]
    chosen = listing if good.all() else listing.where(good)
    return Files(chosen, (height, width, channels), pixels, tuple(notes), len(bad))


def _damaged(listing: Listing, found: Survey, channels: int, key: str) -> dict[int, str]:
    """Files that only decoding finds to be bad; looked for once, so that training does not stop at one."""
    known = read_verdict(key)
    if known is None:
        known = find_damaged(listing, found, channels)
        keep_verdict(key, known)
    return known
