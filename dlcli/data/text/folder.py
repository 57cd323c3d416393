"""The data set `text_folder`: class folders of .txt files, one document each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dlcli.console import status
from dlcli.data.examples import DataInfo, Source
from dlcli.data.folder_walk import SHOWN, FolderWalker, check_folder, indented, split_folders
from dlcli.data.image_listing import SPLITS
from dlcli.data.text.reading import cannot_be_read, check_encoding, decode_text, text_files
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError

_TEST = SPLITS.index("test")
_CHUNK = 512
"""Files that a thread reads at once."""


def text_folder(
    *,
    path: Path,
    test_path: Path | None = None,
    encoding: str | None = None,
    on_bad: Literal["error", "skip"] = "error",
) -> Source:
    """Documents in class folders: `CLASS/*.txt`, or `train/CLASS/*.txt` and `test/CLASS/*.txt`.

    The rules for encodings stand in `dlcli.data.text.reading`. Hidden files and files that are not named .txt are
    ignored and counted; a document of white space only is left out and counted; surrounding white space is
    dropped.

    Args:
        path: the folder; beside a `train/` in it, `test/` and `val/` (or `valid/`, `validation/`) are splits.
        test_path: a folder `CLASS/*.txt` of test documents, where `path` has no `test/`.
        encoding: a Python codec such as `gb18030`; left out, byte order marks count, else UTF-8 is required.
        on_bad: `error` refuses to start while a file is not text; `skip` leaves those out and counts them.

    Raises:
        DataError: missing or empty folders, one class, classes that differ, files that are not text.
    """
    listing = list_text_folders(Path(path), None if test_path is None else Path(test_path))
    return source_of_text_files(listing, encoding, on_bad)


@dataclass(frozen=True)
class TextListing:
    """Text files in a fixed order: train, then validation, then test; by class and name within."""

    root: Path
    class_names: tuple[str, ...]
    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Relative to the folder that was given."""
    targets: list[int] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    """Indices into SPLITS."""
    notes: list[str] = field(default_factory=list)


def list_text_folders(root: Path, test_root: Path | None = None, left_out: Sequence[str] = ()) -> TextListing:
    """Which files there are, and the class and split of each.

    Args:
        root: a folder of class folders, or of splits with class folders.
        test_root: class folders of the test split.
        left_out: names of folders beside the classes that hold no class.

    Raises:
        DataError: a folder is missing, empty, holds one class or an empty class, or entries that are refused.
    """
    root = root.expanduser()
    check_folder(root)
    walker = text_files(root)
    folders, notes = split_folders(walker, root)
    train = folders.get(0, root)
    classes = {folder.name for folder in walker.folders(train)} - set(left_out)
    listing = TextListing(root, tuple(sorted(classes)), notes=notes)
    for split in sorted(folders) or [0]:
        _add_split(listing, walker, folders.get(split, root), split, train, left_out)
    listing.notes.extend(walker.notes())
    if test_root is not None:
        _add_test_folder(listing, test_root.expanduser(), folders, train, left_out)
    _check_classes(root, listing.class_names)
    return listing


def source_of_text_files(
    listing: TextListing,
    encoding: str | None,
    on_bad: Literal["error", "skip"],
    clean: Callable[[str], str] = str.strip,
) -> Source:
    """The documents of listed files.

    Args:
        listing: the files.
        encoding: a Python codec, or None.
        on_bad: what to do with files that are not text.
        clean: changes each document.

    Raises:
        DataError: files are not text, or a class has no document left.
    """
    check_encoding(encoding)
    with status(f"reading {len(listing.paths):,} text files"):
        documents = _read_all(listing.paths, encoding, clean)
    kept = [index for index, document in enumerate(documents) if document.text]
    notes = [*listing.notes, *_check_bad(listing, documents, on_bad == "skip")]
    notes += _empty_notes(listing, documents)
    _check_left(listing, kept)
    notes += _check_overlap(listing, documents, kept)
    texts = Texts.of(documents[index].text for index in kept)
    targets = np.array([listing.targets[index] for index in kept], np.int32)
    splits = np.array([listing.splits[index] for index in kept])

    def part(split: int) -> TextExamples | None:
        chosen = np.flatnonzero(splits == split)
        return TextExamples({"text": texts.subset(chosen)}, targets[chosen]) if len(chosen) else None

    train, validation, test = (part(split) for split in range(len(SPLITS)))
    if train is None:
        raise DataError(f"{listing.root}: no documents of the train split")
    if test is None:
        notes.append("there is no test split: `dlcli evaluate` needs `--split` validation or train")
    info = DataInfo(
        kind="text",
        input_shape=(),
        target="classes",
        class_names=listing.class_names,
        notes=tuple(notes),
        fingerprint=_fingerprint(listing, documents),
    )
    return Source(train, info, None, test=test, validation=validation)


class _Document(NamedTuple):
    text: str
    digest: bytes
    size: int
    problem: str


def _add_split(
    listing: TextListing,
    walker: FolderWalker,
    parent: Path,
    split: int,
    train: Path,
    left_out: Sequence[str],
) -> None:
    """Adds the files of one split's class folders."""
    counts = {}
    for folder in walker.folders(parent):
        if folder.name in left_out:
            listing.notes.append(f"{folder}: left out, since its texts have no class")
            continue
        if folder.name not in listing.class_names:
            raise DataError(f"{folder}: the class {folder.name!r} is not under {train}")
        files = list(walker.files(folder))
        counts[folder.name] = len(files)
        listing.paths.extend(os.path.join(walker.root, file.path) for file in files)  # noqa: PTH118 - many files
        listing.names.extend(file.path for file in files)
        listing.targets.extend([listing.class_names.index(folder.name)] * len(files))
        listing.splits.extend([split] * len(files))
    walker.check_refused()
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise DataError(
            f"{parent}: no .txt files for the class {', '.join(empty[:SHOWN])}; add some, or remove the folder"
        )
    if split and not counts:
        raise DataError(f"{parent}: no class folders with .txt files; expected CLASS/*.txt")
    if split and (missing := sorted(set(listing.class_names) - set(counts))):
        listing.notes.append(
            f"{parent.name}: no folder for {len(missing)} classes ({', '.join(missing[:SHOWN])})"
        )


def _add_test_folder(
    listing: TextListing, test_root: Path, folders: dict[int, Path], train: Path, left_out: Sequence[str]
) -> None:
    if _TEST in folders:
        raise DataError(
            f"dataset.test_path {test_root}: {folders[_TEST]} holds a test split already; keep one"
        )
    if not test_root.is_dir():
        what = "not a folder" if test_root.exists() else f"there is no such folder (looked in {Path.cwd()})"
        raise DataError(f"dataset.test_path {test_root}: {what}")
    if test_root.samefile(train) or test_root.samefile(listing.root):
        raise DataError(f"{test_root}: test_path is path itself; a score on it would mean nothing")
    walker = text_files(test_root)
    _add_split(listing, walker, test_root, _TEST, train, left_out)
    listing.notes.extend(walker.notes())


def _check_classes(where: Path, class_names: tuple[str, ...]) -> None:
    if not class_names:
        raise DataError(
            f"{where}: no class folders with .txt files; expected CLASS/*.txt or train/CLASS/*.txt"
        )
    if len(class_names) == 1:
        raise DataError(f"{where}: only one class ({class_names[0]!r}); a classifier needs at least two")


def _read_all(paths: Sequence[str], encoding: str | None, clean: Callable[[str], str]) -> list[_Document]:
    """All documents in order, read by threads: many small files wait for the disk, not for the processor."""

    def read(start: int) -> list[_Document]:
        return [_read(path, encoding, clean) for path in paths[start : start + _CHUNK]]

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        return [document for chunk in pool.map(read, range(0, len(paths), _CHUNK)) for document in chunk]


def _read(path: str, encoding: str | None, clean: Callable[[str], str]) -> _Document:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - called for every file
            raw = file.read()
    except OSError as error:
        return _Document("", b"", 0, str(cannot_be_read(path, error)))
    digest = hashlib.sha256(raw).digest()
    try:
        return _Document(clean(decode_text(raw, path, encoding)), digest, len(raw), "")
    except DataError as error:
        return _Document("", digest, len(raw), str(error))


def _check_bad(listing: TextListing, documents: Sequence[_Document], skip: bool) -> list[str]:
    """Refuses files that are not text, or says how many are skipped."""
    problems = [document.problem for document in documents if document.problem]
    if not problems:
        return []
    lines = indented(problems)
    share = f"{len(problems):,} of {len(documents):,} text files"
    if not skip:
        raise DataError(
            f"{share} cannot be used:\n{lines}\nRepair or remove them, set dataset.encoding, or set "
            "dataset.on_bad: skip"
        )
    if len(problems) * 2 > len(documents):
        raise DataError(f"{share} cannot be used, more than half, so they are not skipped:\n{lines}")
    return [f"skipped {share} that cannot be read:\n{lines}"]


def _empty_notes(listing: TextListing, documents: Sequence[_Document]) -> list[str]:
    empty = [
        name
        for name, document in zip(listing.names, documents, strict=True)
        if not document.text and not document.problem
    ]
    if not empty:
        return []
    return [f"left out {len(empty):,} files that hold nothing but white space:\n{indented(empty)}"]


def _check_left(listing: TextListing, kept: Sequence[int]) -> None:
    """Raises when empty or bad files were all that a class of a split had."""
    left = {(listing.splits[index], listing.targets[index]) for index in kept}
    for split, target in sorted(set(zip(listing.splits, listing.targets, strict=True)) - left):
        raise DataError(
            f"{listing.root}: class {listing.class_names[target]!r} has no text left in the {SPLITS[split]} "
            "split: its files are empty or cannot be read"
        )


def _check_overlap(listing: TextListing, documents: Sequence[_Document], kept: Sequence[int]) -> list[str]:
    """Test documents that the model trains on: all of them are refused, some are counted."""
    test = [documents[index].digest for index in kept if listing.splits[index] == _TEST]
    known = {documents[index].digest for index in kept if listing.splits[index] == 0}
    seen = sum(digest in known for digest in test)
    if seen and seen == len(test):
        raise DataError(
            f"{listing.root}: every test document is a copy of a train document; a score on them would mean nothing"
        )
    return [f"{seen:,} of {len(test):,} test documents are copies of train documents"] if seen else []


def _fingerprint(listing: TextListing, documents: Sequence[_Document]) -> str:
    """sha256 over names, sizes and contents."""
    digest = hashlib.sha256()
    for name, document in zip(listing.names, documents, strict=True):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0%d\0" % document.size + document.digest)
    return digest.hexdigest()
