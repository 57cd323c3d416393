"""Files under a folder, and the splits among its folders: what sources of images and of texts have in common."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dlcli.errors import DataError

SHOWN = 10
"""Files or folders of one kind that a message names; the rest is counted."""

SPLIT_FOLDERS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
_IGNORED_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


class Found(NamedTuple):
    """A file."""

    path: str
    """Relative to the root."""
    size: int
    time: int


class FolderWalker:
    """Finds files under a folder; counts what it passes over and collects what it refuses.

    Hidden and system files are passed over, and so are files that are not wanted. Links out of the root, links to
    folders (which may be loops), pipes and devices are refused.

    Args:
        root: the folder that nothing may lead out of.
        wants: whether a file, by its full path, is one to find.
        otherwise: how those that are not are counted: `no image`, `not named .txt`.
    """

    def __init__(self, root: Path, wants: Callable[[str], bool], otherwise: str) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self.ignored: Counter[str] = Counter()
        self.refused: dict[str, str] = {}
        """Reason by path; a folder may be listed more than once."""
        self._wants, self._otherwise = wants, otherwise
        self._prefix = len(os.path.join(root, ""))  # noqa: PTH118 - a count of characters

    def folders(self, folder: Path) -> list[Path]:
        """Visible folders in `folder`, by name; links to folders are refused."""
        found = []
        for entry in _entries(folder):
            if _is_ignored(entry.name):
                continue
            if entry.is_symlink() and Path(entry.path).is_dir():
                self.refused[entry.path] = "a link to a folder"
            elif entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
        return found

    def files(self, folder: str | Path) -> Iterator[Found]:
        """Wanted files in `folder` and below, by name."""
        for entry in _entries(folder):
            if _is_ignored(entry.name):
                self.ignored["hidden or system file"] += 1
            elif entry.is_symlink():
                yield from self._linked(entry)
            elif entry.is_dir(follow_symlinks=False):
                yield from self.files(entry.path)
            else:
                yield from self._file(entry.path, entry.stat(follow_symlinks=False))

    def check_refused(self) -> None:
        """Raises a DataError for links that leave the folder, pipes and devices."""
        if self.refused:
            listed = indented([f"{path}: {reason}" for path, reason in self.refused.items()])
            raise DataError(
                f"{len(self.refused)} entries under {self.root} are refused, because they are "
                f"not plain files in that folder:\n{listed}\nRemove them, or copy the files in"
            )

    def notes(self) -> list[str]:
        """How many files were passed over, and why."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.ignored.items()))
        return [f"{self.ignored.total():,} files ignored ({reasons})"] if self.ignored else []

    def _linked(self, entry: os.DirEntry[str]) -> Iterator[Found]:
        target = os.path.realpath(entry.path)
        if not Path(target).is_file():
            self.refused[entry.path] = "a link to a folder, to a device or to nothing"
        elif not target.startswith(self.real_root + os.sep):
            self.refused[entry.path] = f"a link to {target}, outside {self.root}"
        else:
            yield from self._file(entry.path, entry.stat())

    def _file(self, path: str, status: os.stat_result) -> Iterator[Found]:
        if not stat.S_ISREG(status.st_mode):
            self.refused[path] = "not a regular file (pipe, socket or device)"
        elif self._wants(path):
            yield Found(path[self._prefix :], status.st_size, status.st_mtime_ns)
        else:
            self.ignored[self._otherwise] += 1


def split_folders(walker: FolderWalker, root: Path) -> tuple[dict[int, Path], list[str]]:
    """Folders of the splits (0 train, 1 validation, 2 test), empty when `root` holds the classes themselves; notes.

    Raises:
        DataError: two folders are the validation split.
    """
    folders = {folder.name: folder for folder in walker.folders(root)}
    train = folders.get("train")
    if train is None or not walker.folders(train):
        return {}, []  # a folder `train` with only files in it is a class (bus, plane, train)
    splits: dict[int, Path] = {}
    for name, folder in folders.items():
        split = SPLIT_FOLDERS.get(name)
        if split is not None and split in splits:
            raise DataError(f"{root}: {splits[split].name} and {name} are both validation folders; keep one")
        if split is not None:
            splits[split] = folder
    others = sorted(set(folders) - set(SPLIT_FOLDERS))
    notes = [f"folders beside the splits were not read: {', '.join(others[:SHOWN])}"] if others else []
    return splits, notes


def check_folder(root: Path) -> None:
    """Raises a DataError when `root` is no folder."""
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"dataset.path {root}: there is no such folder (looked in {Path.cwd()})") from None
    except OSError as error:  # without permission, a name that is too long, links in a circle
        raise DataError(f"dataset.path {root}: cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise DataError(f"dataset.path {root}: not a folder")


def indented(lines: Sequence[str]) -> str:
    """A line each, the first SHOWN of them."""
    more = [f"  ... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return "\n".join([*(f"  {line}" for line in lines[:SHOWN]), *more])


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED_NAMES
