"""IMDB and Reuters: downloaded, or from files that are there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from dlcli.console import status
from dlcli.data.examples import DataInfo, Source
from dlcli.data.keras_sets import keras_folder
from dlcli.data.npz import read_npz
from dlcli.data.text.folder import list_text_folders, source_of_text_files
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.downloads import DATA_SETS, by_hand, fetch_missing, missing_files
from dlcli.errors import DataError

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_MOST_WORDS = 10_000_000
_MAX_UNKNOWN_SHARE = 0.01
_REUTERS_TEST_SHARE, _REUTERS_SEED = 0.2, 113
"""Of `keras.datasets.reuters.load_data`: its file is one split, which is shuffled and divided."""


@dataclass(frozen=True)
class _KnownTexts:
    name: str
    arrays: tuple[str, ...]
    """Names in the .npz file: of documents and their classes, in turn."""

    @property
    def files(self) -> tuple[str, str]:
        """The documents as numbers of words, and the words."""
        return f"{self.name}.npz", f"{self.name}_word_index.json"


_IMDB = _KnownTexts("imdb", ("x_train", "y_train", "x_test", "y_test"))
_REUTERS = _KnownTexts("reuters", ("x", "y"))


def imdb(*, path: Path | None = None) -> Source:
    """50,000 film reviews, for or against, half of them the test split (Maas et al. 2011).

    In the authors' files a line break is `<br />`, which becomes a space. Keras's file holds words in lower case
    without punctuation.

    Args:
        path: the authors' folder `aclImdb` (train/pos/*.txt and so on; `unsup` is left out), or `imdb.npz` with
            `imdb_word_index.json` beside it; left out, 19 MB are downloaded once.
    """
    if path is not None and (folder := Path(path).expanduser()).is_dir() and not _holds(_IMDB, folder):
        listing = list_text_folders(folder, left_out=("unsup",))
        return source_of_text_files(listing, None, "error", without_line_breaks)
    npz, index = _files(_IMDB, path)
    with status("reading imdb"):
        arrays = _read_npz(_IMDB, npz)
        train, test = (_Numbered(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test"))
        return _source(_IMDB, ("neg", "pos"), train, test, _read_words(index))


def reuters(*, path: Path | None = None) -> Source:
    """11,228 newswires in 46 topics; the test split is the fifth that Keras takes.

    Words are in lower case without punctuation.

    Args:
        path: `reuters.npz`, or its folder, with `reuters_word_index.json` beside it; left out, 3 MB are
            downloaded once.
    """
    npz, index = _files(_REUTERS, path)
    with status("reading reuters"):
        arrays = _read_npz(_REUTERS, npz)
        order = np.arange(len(arrays["x"]))
        np.random.RandomState(_REUTERS_SEED).shuffle(order)
        count = int(len(order) * (1 - _REUTERS_TEST_SHARE))
        train, test = (
            _Numbered(arrays["x"][part], arrays["y"][part]) for part in (order[:count], order[count:])
        )
        names = tuple(keras.datasets.reuters.get_label_names())
        return _source(_REUTERS, names, train, test, _read_words(index))


@dataclass(frozen=True)
class _Numbered:
    documents: np.ndarray
    """Object (N,): lists of the words' numbers, from 1."""
    targets: np.ndarray


def without_line_breaks(text: str) -> str:
    """A review of the authors' files without `<br />`."""
    return _LINE_BREAK.sub(" ", text).strip()


def _holds(known: _KnownTexts, folder: Path) -> bool:
    return (folder / known.files[0]).is_file()


def _files(known: _KnownTexts, path: Path | None) -> tuple[Path, Path]:
    """Where the two files are; downloaded first when they are nowhere."""
    if path is None:
        return _from_keras(known)
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"dataset.path {path}: there is no such file or folder (looked in {Path.cwd()})")
    folder = path if path.is_dir() else path.parent
    npz = folder / known.files[0] if path.is_dir() else path
    missing = [file for file in (npz, folder / known.files[1]) if not file.is_file()]
    if missing:
        raise DataError(
            f"dataset.path {path}: {', '.join(file.name for file in missing)} is missing; expected "
            f"{' and '.join(known.files)} in one folder. {by_hand(DATA_SETS[known.name], folder)}"
        )
    return npz, folder / known.files[1]


def to_fetch(name: str) -> str:
    """What has to be downloaded of a set of texts, and where to; empty when it is here."""
    missing = missing_files(name, keras_folder())
    return f"{name}: {by_hand(missing, keras_folder())}" if missing else ""


def _from_keras(known: _KnownTexts) -> tuple[Path, Path]:
    """In Keras's folder; downloaded to it first when they are not there, saying so."""
    folder = keras_folder()
    fetch_missing(known.name, folder)
    npz, index = (folder / name for name in known.files)
    return npz, index


def _read_npz(known: _KnownTexts, path: Path) -> dict[str, np.ndarray]:
    """The arrays of documents (object) and classes (whole numbers)."""
    try:
        arrays = read_npz(path, known.arrays)
    except DataError as error:
        raise DataError(f"{error}{_way_out(path)}") from None
    for documents, targets in zip(known.arrays[::2], known.arrays[1::2], strict=True):
        if arrays[documents].shape != arrays[targets].shape or arrays[targets].dtype.kind not in "iu":
            raise DataError(
                f"{path}: expected as many whole numbers in {targets} as documents in {documents}; "
                f"found {arrays[targets].dtype} {arrays[targets].shape} and {arrays[documents].shape}"
            )
    return arrays


def _way_out(path: Path) -> str:
    return "; delete it, and the next run downloads it again" if path.parent == keras_folder() else ""


def _read_words(path: Path) -> list[str]:
    """The words by their numbers; an empty one where there is none."""
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        if (largest := max(numbers.values())) > _MOST_WORDS:
            raise ValueError(f"it numbers words up to {largest:,}")
        words = [""] * (largest + 1)
        for word, number in numbers.items():
            words[number] = word
    except (OSError, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
        raise DataError(f"{path}: not a readable word index: {error}{_way_out(path)}") from None
    return words


def _source(
    known: _KnownTexts, class_names: tuple[str, ...], train: _Numbered, test: _Numbered, words: Sequence[str]
) -> Source:
    parts, notes, digest = [], [], hashlib.sha256()
    for split, part in (("train", train), ("test", test)):
        if len(part.targets) == 0 or part.targets.min() < 0 or part.targets.max() >= len(class_names):
            found = f"{part.targets.min()}..{part.targets.max()}" if len(part.targets) else "none"
            raise DataError(f"{known.name}: labels must lie in 0..{len(class_names) - 1}; found {found}")
        texts, note_of_unknown = _decoded(known, part.documents, words)
        kept = np.array([index for index, text in enumerate(texts) if text], np.int64)
        if len(kept) < len(texts):
            notes.append(f"left out {len(texts) - len(kept):,} empty documents of the {split} split")
        notes += note_of_unknown
        examples = TextExamples({"text": Texts.of(texts)}, part.targets.astype(np.int32)).subset(kept)
        digest.update(examples.columns["text"].digest().encode() + examples.targets.tobytes())
        parts.append(examples)
    info = DataInfo(
        kind="text",
        input_shape=(),
        target="classes",
        class_names=class_names,
        notes=tuple(notes),
        fingerprint=digest.hexdigest(),
    )
    return Source(parts[0], info, None, test=parts[1])


def _decoded(known: _KnownTexts, documents: np.ndarray, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The documents' words with spaces between, and a note on numbers that no word has."""
    texts, total, unknown = [], 0, 0
    for document in documents:
        try:
            found = [words[number] if 0 < number < len(words) else "" for number in document]
        except TypeError:
            raise DataError(f"{known.files[0]}: a document is no list of whole numbers") from None
        total += len(found)
        unknown += found.count("")
        texts.append(" ".join(word for word in found if word))
    if unknown > total * _MAX_UNKNOWN_SHARE:
        raise DataError(
            f"{known.name}: {unknown:,} of {total:,} words are not in {known.files[1]}, which therefore belongs to "
            "another file"
        )
    return texts, [f"left out {unknown:,} numbers that no word has"] if unknown else []
