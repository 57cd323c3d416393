"""Decoded images on disk: each folder is decoded once, and later runs map the pixels into memory.

An entry is `<key>.npy` (uint8, (N, H, W, C)) and `<key>.json` (what was converted and skipped), written
atomically, the JSON last, so an entry without it does not count. The key covers names, sizes and times of the
files and the decode settings: a changed file makes a new entry. The folder is kept under
`DLCLI_CACHE_LIMIT` bytes (20 GiB): a new entry pushes out those that were not used for longest, and a larger
data set is not cached at all. Deleting the folder is always safe.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlcli.errors import OutputError
from dlcli.files import write_text

_GIBIBYTE = 1 << 30
_DEFAULT_LIMIT = 20 * _GIBIBYTE
_MEMORY_SHARE = 0.25
_ABANDONED_SECONDS = 24 * 60 * 60
"""A temporary file of this age belongs to a process that was killed."""


def cache_folder(kind: str = "images") -> Path:
    """Where decoded images (or `tokens`, `features`) lie: `$DLCLI_CACHE/images`, or the user's cache folder."""
    if given := os.environ.get("DLCLI_CACHE"):
        return Path(given).expanduser() / kind
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dlcli" / kind


def read_entry(
    key: str, kind: str = "images", dtype: npt.DTypeLike = np.uint8
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The pixels (or `features`), mapped from the disk, and their description; None when there is no whole entry."""
    pixels_path, facts_path = _paths(key, kind)
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        # Copy on write, not read-only: only a writable array can share its memory with a tensor. Nobody writes to it.
        pixels = np.load(pixels_path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(facts, dict) or list(pixels.shape) != facts.get("shape") or pixels.dtype != dtype:
        return None
    with contextlib.suppress(OSError):
        os.utime(facts_path)  # the time of last use, which decides what is pushed out
    return pixels, facts


def read_verdict(key: str) -> dict[int, str] | None:
    """What `keep_verdict` kept; None when there is nothing."""
    try:
        verdict = json.loads(_verdict_path(key).read_text(encoding="utf-8"))
        return {int(index): str(reason) for index, reason in verdict.items()}
    except (OSError, ValueError, AttributeError):
        return None


def keep_verdict(key: str, bad: dict[int, str]) -> None:
    """Remembers which files cannot be decoded, of a data set whose pixels are not kept."""
    with contextlib.suppress(OSError, OutputError):
        write_text(_verdict_path(key), json.dumps(bad))


class NewEntry:
    """Room for the pixels (or `features`) of a new entry: on disk where that works, else in memory.

    `pixels` can be written to by several threads. `finish` puts the entry in place; `discard` removes it.
    """

    def __init__(
        self, key: str, shape: tuple[int, ...], kind: str = "images", dtype: npt.DTypeLike = np.uint8
    ) -> None:
        self.key, self.kind = key, kind
        self.problem: str | None = None
        """Why nothing is kept on disk, or None."""
        self._temporary: Path | None = None
        size = math.prod(shape) * np.dtype(dtype).itemsize
        pixels_path, _ = _paths(key, kind)
        try:
            if not make_room(pixels_path.parent, size):
                raise OSError(0, f"{size:,} bytes are more than the cache's limit of {cache_limit():,}")
            temporary = pixels_path.with_name(f".{os.getpid()}.{pixels_path.name}")
            self._temporary = temporary
            self.pixels: np.ndarray = _mapped(temporary, shape, dtype)
        except OSError as error:
            self.discard()
            self.problem = error.strerror or str(error)
            self.pixels = np.empty(shape, dtype)

    def finish(self, facts: dict[str, Any]) -> np.ndarray:
        """Keeps the entry and returns its pixels, mapped from the disk."""
        if self._temporary is None:
            return self.pixels
        pixels_path, facts_path = _paths(self.key, self.kind)
        self.pixels.flush()  # type: ignore[attr-defined]  # it is a memmap here
        shape = list(self.pixels.shape)
        try:
            self._temporary.replace(pixels_path)
            write_text(facts_path, json.dumps({**facts, "shape": shape}))
        except (OSError, OutputError) as error:
            self.problem = str(error)
            return self.pixels
        entry = read_entry(self.key, self.kind, self.pixels.dtype)
        return self.pixels if entry is None else entry[0]

    def discard(self) -> None:
        """Removes what was written."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            self._temporary = None


def cache_limit() -> int:
    """Bytes that the cache may hold."""
    return _bytes_from("DLCLI_CACHE_LIMIT", _DEFAULT_LIMIT)


def memory_budget() -> int:
    """Bytes of pixels that are held in memory; more are streamed from the files.

    `$DLCLI_IMAGE_MEMORY`, or a quarter of the memory that is available now.
    """
    return _bytes_from("DLCLI_IMAGE_MEMORY", int(available_memory() * _MEMORY_SHARE))


def available_memory() -> int:
    """Bytes that new data can take without swapping: the machine's, or the container's when that is less."""
    available = 4 * _GIBIBYTE
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with contextlib.suppress(OSError, ValueError):  # "max" means no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        available = min(available, max(limit - used, 0))
    return available


def _bytes_from(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default


def _paths(key: str, kind: str) -> tuple[Path, Path]:
    folder = cache_folder(kind)
    return folder / f"{key}.npy", folder / f"{key}.json"


def _verdict_path(key: str) -> Path:
    return cache_folder() / f"{key}.bad.json"


def _mapped(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Without its blocks a full disk would kill the process (SIGBUS) when a page is written.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def make_room(folder: Path, size: int) -> bool:
    """Removes the longest unused entries until `size` more bytes fit; False when they never can."""
    folder.mkdir(parents=True, exist_ok=True)
    limit = cache_limit()
    if size > limit:
        return False
    _remove_abandoned(folder)
    entries = []
    for pixels_path in folder.glob("*.npy"):
        facts_path = pixels_path.with_suffix(".json")
        used = facts_path if facts_path.exists() else pixels_path
        with contextlib.suppress(OSError):
            entries.append((used.stat().st_mtime, pixels_path.stat().st_size, pixels_path, facts_path))
    total = sum(entry[1] for entry in entries)
    for _, bytes_held, pixels_path, facts_path in sorted(entries):
        if total + size <= limit:
            break
        if pixels_path.name.startswith("."):
            continue  # another process is at work on it: it takes room, but is not ours to remove
        facts_path.unlink(missing_ok=True)
        pixels_path.unlink(missing_ok=True)  # a process that has it mapped keeps it until it ends
        total -= bytes_held
    return True


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of processes that were killed."""
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
