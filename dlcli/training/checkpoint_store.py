"""A folder of checkpoints, each whole or not there at all.

checkpoints/epoch-0003-step-0000000120/
    state.npz       arrays
    progress.json   everything else
    manifest.json   sha256 of both: written last, and what it does not confirm is no checkpoint
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.errors import OutputError
from dlcli.files import sha256_of, sync_file, sync_folder, written_or_explained

ARRAYS, PROGRESS, MANIFEST = "state.npz", "progress.json", "manifest.json"
_NAME = re.compile(r"epoch-(\d{4,})-step-(\d{10,})(?:-(\d+))?")


@dataclass(frozen=True)
class Place:
    """How far a training has come."""

    stage: int = 0
    """Index of the stage that is on."""
    stage_began: int = 0
    """Epochs that were done when it began."""
    epochs_done: int = 0
    step: int = 0
    """Steps of the next epoch that are done, up to all of them: then its validation is to come."""
    stopped: bool = False
    """Whether early stopping has ended the stage."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that its manifest confirms."""

    path: Path
    progress: dict[str, Any]

    @property
    def place(self) -> Place:
        """How far the training had come."""
        return Place(**self.progress["place"])

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        with (self.path / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they stand.
        keep: newest ones that stay.
    """

    folder: Path
    keep: int = 2
    broken: list[str] = field(default_factory=list)
    """What `newest` passed over, each with the reason."""

    def write(
        self, epochs_done: int, step: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]
    ) -> Path:
        """Saves a state, and removes what is older than the newest `keep`, or of a future that is no more.

        Args:
            epochs_done: complete epochs.
            step: steps of the training in all.
            arrays: by name.
            progress: what JSON can hold.

        Raises:
            OutputError: the disk is full, or the folder is gone; the checkpoints that were there stay.
        """
        path = self._free_path(f"epoch-{epochs_done:04d}-step-{step:010d}")
        temporary = self.folder / f".{secrets.token_hex(8)}.checkpoint"
        with written_or_explained(path, temporary):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            try:
                _write_files(temporary, arrays, progress)
                temporary.replace(path)
                sync_folder(self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        found = self._paths()
        if path not in found:
            raise OutputError(f"{path}: is gone, just after it was written")
        for old in found[found.index(path) + 1 :]:
            _remove(old)
        self.remove_older(path)
        return path

    def remove_older(self, newest: Path) -> None:
        """Keeps as many as there shall be, up to `newest`: a kill may have come before this was done."""
        found = self._paths()
        for old in found[: max(0, found.index(newest) + 1 - self.keep)]:
            _remove(old)

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole; None without any. `broken` then names those that are not."""
        self.broken.clear()
        for path in reversed(self._paths()):
            try:
                return Saved(path, _checked(path))
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                self.broken.append(f"{path}: {error}")
        return None

    def _free_path(self, name: str) -> Path:
        """Not that of an earlier try at the same step: it stays until the new one is there."""
        names = (name if number == 1 else f"{name}-{number}" for number in count(1))
        return next(path for path in map(self.folder.joinpath, names) if not path.exists())

    def _paths(self) -> list[Path]:
        """Oldest first, by what their names say: a clock can go back."""
        if not self.folder.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir() if path.is_dir()]
        return [
            path
            for _, path in sorted(
                (tuple(int(number or 1) for number in name.groups()), path)
                for name, path in named
                if name is not None
            )
        ]


def _write_files(folder: Path, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> None:
    """Writes into a folder that has no name of a checkpoint yet."""
    with (folder / ARRAYS).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes every keyword for allow_pickle
        sync_file(file)
    with (folder / PROGRESS).open("w", encoding="utf-8") as file:
        json.dump(progress, file)
        sync_file(file)
    files = {
        name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        for name in (ARRAYS, PROGRESS)
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=2)
        sync_file(file)
    sync_folder(folder)


def _checked(path: Path) -> dict[str, Any]:
    """What progress.json says, once the manifest has confirmed it and the arrays.

    Raises:
        OSError, ValueError, KeyError, TypeError: something is missing or not as it was written.
    """
    if not (path / MANIFEST).is_file():
        raise ValueError(f"it has no {MANIFEST}")
    files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name in (ARRAYS, PROGRESS):
        if not (path / name).is_file():
            raise ValueError(f"it has no {name}")
        if sha256_of(path / name) != files[name]["sha256"]:
            raise ValueError(f"{name} is not what was written (its sha256 differs)")
    progress: dict[str, Any] = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
    return progress


def _remove(path: Path) -> None:
    """Takes the name away first: half a folder shall not look like a damaged checkpoint."""
    if not path.exists():
        return
    hidden = path.with_name(f".{secrets.token_hex(8)}.checkpoint")
    path.replace(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
