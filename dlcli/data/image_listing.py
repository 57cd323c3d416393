"""Which image files there are, and the class and split of each: from class folders, or from a CSV."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dlcli.data.csv_reading import quoted_rows
from dlcli.data.decode import SUFFIXES, sniff
from dlcli.data.folder_walk import (
    SHOWN,
    SPLIT_FOLDERS,
    FolderWalker,
    Found,
    check_folder,
    indented,
    split_folders,
)
from dlcli.data.text.reading import check_regular
from dlcli.errors import DataError

SPLITS = ("train", "validation", "test")
SIDES = ("A", "B")
"""Of data for image translation."""
_SPLIT_NAMES = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2,
}  # fmt: skip
_PATH_COLUMNS = ("path", "file", "filename", "image")
_LABEL_COLUMNS = ("label", "class")


@dataclass(frozen=True)
class Listing:
    """Image files in a fixed order: train, then validation, then test; by class and name within."""

    root: Path
    class_names: tuple[str, ...]
    paths: np.ndarray
    """Object array (N,) of paths relative to `root`."""
    sizes: np.ndarray
    """int64 (N,) bytes."""
    times: np.ndarray
    """int64 (N,) modification times in nanoseconds."""
    targets: np.ndarray
    """int32 (N,) class indices."""
    splits: np.ndarray
    """int8 (N,) indices into SPLITS."""
    ignored: dict[str, int] = field(default_factory=dict)
    """How many files were passed over, by reason."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """The full path of file `index`."""
        return os.path.join(self.root, self.paths[index])  # noqa: PTH118 - called for every file

    def where(self, chosen: np.ndarray) -> Listing:
        """The files where `chosen` (N,) is true."""
        names = ("paths", "sizes", "times", "targets", "splits")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def fingerprint(self) -> str:
        """sha256 over names, sizes, times, classes and splits."""
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        digest.update("\0".join(self.paths).encode("utf-8", "surrogateescape"))
        for array in (self.sizes, self.times, self.targets, self.splits):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def list_class_folders(root: Path) -> Listing:
    """Files of `CLASS/*`, or of `train/CLASS/*`, `test/CLASS/*` and perhaps `val|valid|validation/CLASS/*`.

    Images that lie in no class folder, in `root` itself or in `train/` and its like, are of one class without a name.

    Args:
        root: the folder.

    Raises:
        DataError: it is missing, empty, holds an empty class, or entries that are refused.
    """
    check_folder(root)
    if _without_classes(root):
        return list_unlabelled(root)
    walker = FolderWalker(root, looks_like_image, "no image")
    folders, notes = split_folders(walker, root)
    classes = {folder.name for folder in walker.folders(folders.get(0, root))}
    class_names = tuple(sorted(classes))
    found: list[Found] = []
    targets: list[int] = []
    splits: list[int] = []
    for split in sorted(folders) or [0]:
        parent = folders.get(split, root)
        counts = {}
        for folder in walker.folders(parent):
            if folder.name not in classes:
                raise DataError(f"{folder}: the class {folder.name!r} is not under {folders[0]}")
            files = list(walker.files(folder))
            counts[folder.name] = len(files)
            found += files
            targets += [class_names.index(folder.name)] * len(files)
            splits += [split] * len(files)
        if split in folders and split != 0 and (missing := sorted(classes - set(counts))):
            notes.append(
                f"{parent.name}: no folder for {len(missing)} classes ({', '.join(missing[:SHOWN])})"
            )
        empty = [name for name, count in counts.items() if count == 0]
        if empty:
            walker.check_refused()
            raise DataError(
                f"{parent}: no images for the class {_names(empty)}; add some, or remove the folder"
            )
    walker.check_refused()
    if not class_names:
        raise DataError(
            f"{root}: no images; expected CLASS/*.png, train/CLASS/*.png or, without classes, *.png"
        )
    return _listing(
        root, class_names, found=found, targets=targets, splits=splits, ignored=walker.ignored, notes=notes
    )


def list_unlabelled(root: Path) -> Listing:
    """Files that lie in `root` itself, or in `train/` and perhaps `val|valid|validation/` and `test/`: one class, "".

    Raises:
        DataError: there are none, or entries are refused.
    """
    check_folder(root)
    walker = FolderWalker(root, looks_like_image, "no image")
    folders = {
        SPLIT_FOLDERS[folder.name]: folder for folder in walker.folders(root) if folder.name in SPLIT_FOLDERS
    }
    if 0 not in folders:
        folders = {0: root}
    files = {split: list(walker.files(folders[split])) for split in sorted(folders)}
    walker.check_refused()
    if not files[0]:
        raise DataError(f"{folders[0]}: no images; expected *.png, *.jpg and the like")
    return _of_groups(root, ("",), {(split, 0): found for split, found in files.items()}, walker)


def has_two_sides(root: Path) -> bool:
    """Whether a folder has the layout of CycleGAN's data: `trainA`, `trainB`, ..."""
    return any((root / f"train{side}").is_dir() for side in SIDES)


def list_two_sides(root: Path) -> Listing:
    """Files of `trainA`, `trainB` and perhaps `testA`, `testB`, `valA`, `valB`: A is class 0, B is class 1.

    Raises:
        DataError: a folder is missing or empty, or entries are refused.
    """
    check_folder(root)
    walker = FolderWalker(root, looks_like_image, "no image")
    groups: dict[tuple[int, int], list[Found]] = {}
    for name, split in SPLIT_FOLDERS.items():
        folders = [root / f"{name}{side}" for side in SIDES]
        there = [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]
        if not there and split:
            continue
        for side, folder in enumerate(folders):
            files = list(walker.files(folder)) if folder in there else []
            if not files:
                walker.check_refused()
                what = "no images" if folder in there else "there is no such folder"
                raise DataError(
                    f"{folder}: {what}; expected trainA and trainB, and perhaps testA and testB, with images of "
                    "the two kinds"
                )
            if (split, side) in groups:
                raise DataError(f"{folder}: there is another validation folder already; keep one")
            groups[split, side] = files
    walker.check_refused()
    return _of_groups(root, SIDES, groups, walker)


def _without_classes(root: Path) -> bool:
    """Whether images lie in `root` itself, or in split folders, with no class folders beside or below them."""
    walker = FolderWalker(root, looks_like_image, "no image")
    folders = walker.folders(root)
    if not folders:
        return True
    splits = {folder.name for folder in folders} <= SPLIT_FOLDERS.keys()
    return splits and (root / "train") in folders and not any(walker.folders(folder) for folder in folders)


def _of_groups(
    root: Path, class_names: tuple[str, ...], groups: dict[tuple[int, int], list[Found]], walker: FolderWalker
) -> Listing:
    """A listing of {(split, class): files}."""
    ordered = sorted(groups.items())
    return _listing(
        root,
        class_names,
        found=[found for _, files in ordered for found in files],
        targets=[place[1] for place, files in ordered for _ in files],
        splits=[place[0] for place, files in ordered for _ in files],
        ignored=walker.ignored,
        notes=[],
    )


def list_labelled_files(root: Path, labels: Path) -> Listing:
    """Files named by the rows of a CSV.

    Args:
        root: the folder that the paths in the CSV are relative to.
        labels: CSV with a column `path` (or file, filename, image), a column `label` (or class) and perhaps a
            column `split` (train, validation or test).

    Raises:
        DataError: the message names `file:row`.
    """
    check_folder(root)
    rows = _read_labels(labels)
    walker = FolderWalker(root, looks_like_image, "no image")
    problems: list[str] = []
    records: list[tuple[int, str, Found]] = []
    seen: dict[str, int] = {}
    for number, path, label, split in rows:
        place = f"{labels}:{number}"
        if not label:
            problems.append(f"{place}: the label is missing")
        elif split.lower() not in _SPLIT_NAMES and split:
            problems.append(f"{place}: the split {split!r} is none of train, validation, test")
        elif (reason := _unusable(walker, path)) is not None:
            problems.append(f"{place}: {reason}")
        elif (name := os.path.normpath(path)) in seen:
            problems.append(f"{place}: {path} stands in row {seen[name]} already")
        else:
            seen[name] = number
            status = (root / name).stat()
            found = Found(name, status.st_size, status.st_mtime_ns)
            records.append((_SPLIT_NAMES[split.lower()] if split else 0, label, found))
    if problems:
        raise DataError(f"{len(problems)} rows of {labels} cannot be used:\n{indented(problems)}")
    class_names = _sorted_labels({label for _, label, _ in records})
    unseen = {label for _, label, _ in records} - {label for split, label, _ in records if split == 0}
    if unseen:
        raise DataError(f"{labels}: no row of the train split has the class {_names(sorted(unseen))}")
    records.sort(key=lambda record: (record[0], class_names.index(record[1]), record[2].path))
    notes = _unlisted(walker, root, labels, set(seen))
    return _listing(
        root,
        class_names,
        found=[found for _, _, found in records],
        targets=[class_names.index(label) for _, label, _ in records],
        splits=[split for split, _, _ in records],
        ignored=walker.ignored,
        notes=notes,
    )


def looks_like_image(path: str) -> bool:
    """By its suffix, else by its first bytes."""
    if os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122 - called for every file
        return True
    try:
        with Path(path).open("rb") as file:
            return sniff(file.read(64)) is not None
    except OSError:
        return False


def _read_labels(labels: Path) -> list[tuple[int, str, str, str]]:
    """(line number, path, label, split) of each row."""
    check_regular(labels, "a CSV file")
    try:
        text = labels.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{labels}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"dataset.labels {labels}: {error.strerror}") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines = quoted_rows(io.StringIO(text, newline=""), labels, delimiter)
    header = [name.strip().lower() for name in next(lines, (1, []))[1]]
    path_column = _column(labels, header, _PATH_COLUMNS)
    label_column = _column(labels, header, _LABEL_COLUMNS)
    split_column = header.index("split") if "split" in header else None
    rows = []
    for line, row in lines:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(f"{labels}:{line}: {len(row)} cells where the header has {len(header)}")
        split = row[split_column].strip() if split_column is not None else ""
        rows.append((line, row[path_column].strip(), row[label_column].strip(), split))
    if not rows:
        raise DataError(f"{labels}: no rows below the header")
    return rows


def _column(labels: Path, header: list[str], names: tuple[str, ...]) -> int:
    found = [name for name in names if name in header]
    if len(found) != 1:
        what = (
            f"columns {', '.join(found)}" if found else f"no such column among {', '.join(header) or 'none'}"
        )
        raise DataError(f"{labels}:1: expected one column named {' or '.join(names)}; found {what}")
    return header.index(found[0])


def _unusable(walker: FolderWalker, path: str) -> str | None:
    """Why a CSV's path is refused, or None."""
    if not path or "\0" in path:
        return "the path is missing"
    full = walker.root / path
    real = os.path.realpath(full)
    if not real.startswith(walker.real_root + os.sep):
        return f"{path} leads outside {walker.root}"
    if not os.path.lexists(full):
        return f"{path} does not exist under {walker.root}"
    if not Path(real).is_file():
        return f"{path} is not a regular file"
    return None


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """By name, or by value where all are whole numbers, so that 10 follows 9."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _unlisted(walker: FolderWalker, root: Path, labels: Path, listed: set[str]) -> list[str]:
    count = sum(found.path not in listed for found in walker.files(root))
    walker.refused.clear()  # what no row names is not read, so it need not be refused
    walker.ignored.clear()
    return [f"{count} images under {root} have no row in {labels.name} and were not read"] if count else []


def _listing(
    root: Path,
    class_names: tuple[str, ...],
    *,
    found: list[Found],
    targets: list[int],
    splits: list[int],
    ignored: Counter[str],
    notes: list[str],
) -> Listing:
    paths = np.empty(len(found), dtype=object)
    paths[:] = [file.path for file in found]
    return Listing(
        root=root,
        class_names=class_names,
        paths=paths,
        sizes=np.array([file.size for file in found], dtype=np.int64),
        times=np.array([file.time for file in found], dtype=np.int64),
        targets=np.array(targets, dtype=np.int32),
        splits=np.array(splits, dtype=np.int8),
        ignored=dict(ignored),
        notes=tuple(notes),
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
