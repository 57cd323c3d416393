"""Image files -> examples: looked at in parallel, then decoded once into a cache, or streamed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from dlcli.data.cache import NewEntry
from dlcli.data.decode import SUFFIXES, BadImageError, Header, decode_file, inspect_file, plain_header
from dlcli.data.image_listing import Listing
from dlcli.errors import DataError

_CHUNK = 1024  # files that one thread takes at a time; fewer where they are large
_CHUNK_BYTES = 8 << 20
_GROUP = 32
_GAP_ROWS = 64
_MAX_THREADS = 16
_SHOWN = 10
_CACHE_VERSION = 2  # raise it when a conversion rule changes
Result = TypeVar("Result")


@dataclass(frozen=True)
class Survey:
    """What the headers of all files say."""

    headers: tuple[Header | None, ...]
    """In the listing's order; None for a file that cannot be used."""
    bad: dict[int, str]
    """Reason by index."""

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many pictures have each (height, width)."""
        return Counter((header.height, header.width) for header in self.headers if header is not None)

    def modes(self) -> Counter[str]:
        """How many pictures have each of Pillow's modes."""
        return Counter(header.mode for header in self.headers if header is not None)


def survey(listing: Listing) -> Survey:
    """Reads the header of every file, in parallel."""
    known: dict[Header, Header] = {}  # a million equal headers are one object

    def look(indices: range) -> list[Header | str]:
        found: list[Header | str] = []
        for index in indices:
            try:
                header = inspect_file(listing.path(index))
                found.append(known.setdefault(header, header))
            except BadImageError as error:
                found.append(str(error))
        return found

    results = [result for part in _in_parallel(look, len(listing)) for result in part]
    return Survey(
        headers=tuple(result if isinstance(result, Header) else None for result in results),
        bad={index: result for index, result in enumerate(results) if isinstance(result, str)},
    )


def conversions(listing: Listing, found: Survey, channels: int, size: tuple[int, int]) -> list[str]:
    """What becomes of the unusual files, one line a kind with its count."""
    counts: Counter[str] = Counter()
    for index, header in enumerate(found.headers):
        if header is None:
            continue
        if (header.height, header.width) != size:
            counts[f"resized to {size[0]} x {size[1]} (bilinear, antialiased, aspect ratio not kept)"] += 1
        if header.rotated:
            counts["turned upright by their EXIF orientation"] += 1
        if header.frames:
            counts["have several frames; the first is used"] += 1
        if what := _mode_conversion(header, channels):
            counts[what] += 1
        suffix = os.path.splitext(listing.paths[index])[1].lower()  # noqa: PTH122 - every file
        if header.format and SUFFIXES.get(suffix) != header.format:
            counts[f"are {header.format} by content, whatever their suffix says"] += 1
    return [f"{count} of {len(listing)} images {what}" for what, count in sorted(counts.items())]


def check_bad(listing: Listing, bad: dict[int, str], skip: bool) -> list[str]:
    """Refuses files that cannot be read, or says how many are skipped.

    Raises:
        DataError: there are some and `skip` is off, or more than half are bad, or a class has none left.
    """
    if not bad:
        return []
    lines = [f"  {listing.path(index)} {bad[index]}" for index in sorted(bad)[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  ... and {len(bad) - _SHOWN} more")
    listed = "\n".join(lines)
    share = f"{len(bad)} of {len(listing)} images"
    if not skip:
        raise DataError(
            f"{share} cannot be used:\n{listed}\nRepair or remove them, or set dataset.on_bad_file: skip"
        )
    if len(bad) * 2 > len(listing):
        raise DataError(f"{share} cannot be used, more than half, so they are not skipped:\n{listed}")
    good = np.ones(len(listing), dtype=bool)
    good[list(bad)] = False
    for split in np.unique(listing.splits):
        inside = listing.splits == split
        left = set(listing.targets[inside & good].tolist())
        gone = sorted(set(listing.targets[inside].tolist()) - left)
        if gone:
            raise DataError(f"class {listing.class_names[gone[0]]!r} has no readable image left:\n{listed}")
    return [f"skipped {share} that cannot be read:\n{listed}"]


def cache_key(listing: Listing, settings: Sequence[Any]) -> str:
    """The cache entry of these files, decoded with these settings."""
    text = repr((_CACHE_VERSION, os.path.realpath(listing.root), listing.fingerprint(), *settings))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def decode_all(
    listing: Listing, found: Survey, shape: tuple[int, int, int], entry: NewEntry
) -> tuple[int, dict[int, str]]:
    """Decodes every good file into `entry.pixels`, in parallel; memory stays that of the chunks at work.

    Plain files of the right size go through TensorFlow's decoders (the pixels are Pillow's,
    for a third of the CPU time); all others, and those that fail there, through Pillow.

    Returns:
        How many images there are, in the listing's order without the bad ones, and what is wrong with files
        that only decoding found to be bad.
    """
    channels = shape[2]
    bad: dict[int, str] = {}

    def decode(indices: range) -> None:
        slow: list[int] = []
        groups: dict[str, list[int]] = {"JPEG": [], "PNG": []}
        for index in indices:
            header = found.headers[index]
            if header is not None:
                plain = header.plain and (header.height, header.width) == shape[:2]
                to_grey = channels == 1 and not header.grey  # TensorFlow's luma differs by a level
                (groups[header.format] if plain and not to_grey else slow).append(index)
        for name, members in groups.items():
            slow += _decode_natively(name, listing, members, shape, entry.pixels)
        for index in slow:
            try:
                entry.pixels[index] = decode_file(listing.path(index), channels, shape[:2])
            except BadImageError as error:
                bad[index] = str(error)

    _in_parallel(decode, len(listing), chunk=max(1, min(_CHUNK, _CHUNK_BYTES // int(np.prod(shape)))))
    unusable = sorted({*found.bad, *bad})
    return _close_gaps(entry.pixels, unusable), bad


def find_damaged(listing: Listing, found: Survey, channels: int) -> dict[int, str]:
    """Decodes every good file, in parallel, and keeps nothing but the reasons of those that fail."""
    bad: dict[int, str] = {}

    def decode(indices: range) -> None:
        for index in indices:
            if found.headers[index] is not None:
                try:
                    decode_file(listing.path(index), channels)
                except BadImageError as error:
                    bad[index] = str(error)

    _in_parallel(decode, len(listing), chunk=_GROUP)
    return bad


class FileExamples:
    """Examples in files, decoded when they are read: memory does not grow with their number.

    Args:
        files: that are read, as they were when they were listed.
        shape: (H, W, C) that each is brought to.
    """

    def __init__(self, files: Listing, shape: tuple[int, int, int]) -> None:
        self.files = files
        self.targets = files.targets
        self.shape = shape
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def paths(self) -> np.ndarray:
        """Of the files, relative to their root."""
        return self.files.paths

    def subset(self, indices: np.ndarray) -> FileExamples:
        """The examples at `indices`, without reading them."""
        part = FileExamples(self.files.where(indices), self.shape)
        part.targets = self.targets[indices]
        return part

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """uint8 (B, H, W, C); a file that went bad or changed meanwhile raises a DataError with its name."""
        images = tf.numpy_function(self._decode, [indices], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (indices.shape[0], *self.shape))

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_threads())
        images = np.empty((len(indices), *self.shape), dtype=np.uint8)

        def decode(position: int) -> None:
            index = indices[position]
            path = self.files.path(index)
            try:
                status = os.stat(path)  # noqa: PTH116 - called for every file
                if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                    raise DataError(f"{path} is no file any more; put it back, or train the recipe anew")
                images[position] = decode_file(path, self.shape[2], self.shape[:2])
            except BadImageError as error:
                raise DataError(f"{path} {error}") from None
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}") from None
            if (status.st_size, status.st_mtime_ns) != (self.files.sizes[index], self.files.times[index]):
                raise DataError(
                    f"{path} has changed since the work began; put the file back, or train the recipe anew"
                )

        list(self._pool.map(decode, range(len(indices))))
        return images


def _mode_conversion(header: Header, channels: int) -> str:
    if header.mode.startswith(("I;16", "I")):
        return "16-bit, scaled to 8 bit"
    if "transparency" in header.mode or header.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        return f"{header.mode.split('+')[0]} with transparency, laid over white"
    if header.mode not in {"L", "RGB"}:
        return f"{header.mode}, converted to {'grey' if channels == 1 else 'RGB'}"
    if header.grey != (channels == 1):
        return "grey, repeated to three channels" if header.grey else "colour, reduced to grey"
    return ""


def _threads() -> int:
    # More threads than cores cost more in handing Python's lock around than they gain.
    return min(_MAX_THREADS, os.cpu_count() or 1)


def _in_parallel(work: Callable[[range], Result], count: int, chunk: int = _CHUNK) -> list[Result]:
    chunks = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    with ThreadPoolExecutor(_threads()) as pool:
        return list(pool.map(work, chunks))


@tf.function(reduce_retracing=True)
def _decode_contents(contents: tf.Tensor, name: str, channels: int, group: int) -> tf.Tensor:
    """Contents (N,) of files of one size -> uint8 (N, H, W, channels); N is a multiple of `group`.

    A group is decoded without a loop step for each file, which would cost as much as a small picture does.
    """

    def decode(content: tf.Tensor) -> tf.Tensor:
        if name == "PNG":
            return tf.io.decode_png(content, channels)
        # The settings of Pillow's own JPEG reader; with them the pixels are equal.
        return tf.io.decode_jpeg(content, channels, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)

    images = tf.map_fn(
        lambda row: tf.stack([decode(content) for content in tf.unstack(row)]),
        tf.reshape(contents, (-1, group)),
        fn_output_signature=tf.TensorSpec((group, None, None, channels), tf.uint8),
        parallel_iterations=4,
    )
    return tf.reshape(images, tf.concat(([-1], tf.shape(images)[2:]), axis=0))


def _decode_natively(
    name: str, listing: Listing, indices: list[int], shape: tuple[int, int, int], pixels: np.ndarray
) -> list[int]:
    """Decodes plain files of one format with TensorFlow; returns those that have to go through Pillow."""
    if not indices:
        return []
    group = _GROUP if len(indices) >= 8 * _GROUP else 1
    try:
        contents = []
        for index in indices:
            with open(listing.path(index), "rb", buffering=0) as file:  # noqa: PTH123 - called for every file
                contents.append(file.read())
            # Files may have changed since they were looked at, and TensorFlow knows no limit on pixels.
            header = plain_header(name, contents[-1])
            if header is None or (header.height, header.width) != shape[:2]:
                return indices
        contents += contents[-1:] * (-len(contents) % group)
        images = _decode_contents(tf.constant(contents), name, shape[2], group).numpy()[: len(indices)]
    except (OSError, tf.errors.OpError):
        return indices
    if images.shape[1:] != shape:
        return indices
    if indices[-1] - indices[0] == len(indices) - 1:
        pixels[indices[0] : indices[-1] + 1] = images
    else:
        pixels[indices] = images
    return []


def _close_gaps(pixels: np.ndarray, gaps: list[int]) -> int:
    """Moves rows up over the rows in `gaps`, in place; returns how many remain."""
    if not gaps:
        return len(pixels)
    kept = np.delete(np.arange(len(pixels)), gaps)
    for start in range(gaps[0], len(kept), _GAP_ROWS):
        rows = kept[start : start + _GAP_ROWS]
        moved = pixels[rows]  # a copy; these rows lie at or behind those that they replace
        pixels[start : start + len(rows)] = moved
    return len(kept)
