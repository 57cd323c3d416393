"""IMDB and Reuters: downloaded through Keras, or from files that are there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import re
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import keras
import numpy as np

from dlcli.console import note, status
from dlcli.data.archives import ArrayUnpickler
from dlcli.data.examples import DataInfo, Source
from dlcli.data.keras_sets import keras_folder
from dlcli.data.text.folder import list_text_folders, source_of_text_files
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_MAX_MEMBER = 256 << 20
"""Bytes; no array of the real files comes near it."""
_MAX_UNKNOWN_SHARE = 0.01
_REUTERS_TEST_SHARE, _REUTERS_SEED = 0.2, 113
"""Of `keras.datasets.reuters.load_data`: its file is one split, which is shuffled and divided."""
_FILE_ERRORS = (OSError, ValueError, EOFError, LookupError, HTTPException, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _KnownTexts:
    name: str
    megabytes: int
    arrays: tuple[str, ...]
    """Names in the .npz file: of documents and their classes, in turn."""

    @property
    def files(self) -> tuple[str, str]:
        """The documents as numbers of words, and the words."""
        return f"{self.name}.npz", f"{self.name}_word_index.json"


_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_IMDB = _KnownTexts("imdb", 19, ("x_train", "y_train", "x_test", "y_test"))
_REUTERS = _KnownTexts("reuters", 3, ("x", "y"))


def imdb(*, path: Path | None = None) -> Source:
    """50,000 film reviews, for or against, half of them the test split (Maas et al. 2011).

    In the authors' files a line break is `<br />`, which becomes a space. Keras's file holds words in lower case
    without punctuation.

    Args:
        path: the authors' folder `aclImdb` (train/pos/*.txt and so on; `unsup` is left out), or `imdb.npz` with
            `imdb_word_index.json` beside it; left out, Keras downloads 19 MB once.
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
        path: `reuters.npz`, or its folder, with `reuters_word_index.json` beside it; left out, Keras downloads
            3 MB once.
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
            f"{' and '.join(known.files)} in one folder. They come from {_fetch_list(known)}"
        )
    return npz, folder / known.files[1]


def _from_keras(known: _KnownTexts) -> tuple[Path, Path]:
    """In Keras's folder; downloaded to it first when they are not there, saying so."""
    folder = keras_folder()
    npz, index = (folder / name for name in known.files)
    if npz.is_file() and index.is_file():
        return npz, index
    note(f"downloading {known.name}, {known.megabytes} MB, from {_URL} to {folder}")
    module = getattr(keras.datasets, known.name)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's progress is no result
            if not npz.is_file():
                module.load_data()
            if not index.is_file():
                module.get_word_index()
    except Exception as error:
        # Keras raises bare Exception when a download fails; all else but these is a bug.
        if type(error) is not Exception and not isinstance(error, _FILE_ERRORS):
            raise
        raise DataError(
            f"{known.name} could not be downloaded from {_URL}: {error}\n"
            f"On a machine without network, fetch {_fetch_list(known)} elsewhere and put them in {folder}, "
            f"or set dataset.path to where they are"
        ) from error
    return npz, index


def _fetch_list(known: _KnownTexts) -> str:
    return ", ".join(f"{_URL}{name}" for name in known.files)


class _DocumentUnpickler(ArrayUnpickler):
    """Arrays of lists of numbers: unlike pixels, they need no decoding of bytes."""

    names = ArrayUnpickler.names - {("_codecs", "encode")}


def _read_npz(known: _KnownTexts, path: Path) -> dict[str, np.ndarray]:
    """The arrays of documents (object) and classes (whole numbers), which may hold nothing that runs."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in known.arrays:
                if archive.getinfo(f"{name}.npy").file_size > _MAX_MEMBER:
                    raise DataError(f"{path}: {name} unpacks to more than {_MAX_MEMBER:,} bytes; refused")
                arrays[name] = _read_array(archive.read(f"{name}.npy"))
    except (*_FILE_ERRORS, pickle.UnpicklingError, AttributeError, TypeError, MemoryError) as error:
        raise DataError(f"{path}: not a readable {known.files[0]}: {error}{_way_out(path)}") from None
    for documents, targets in zip(known.arrays[::2], known.arrays[1::2], strict=True):
        if arrays[documents].shape != arrays[targets].shape or arrays[targets].dtype.kind not in "iu":
            raise DataError(
                f"{path}: expected as many whole numbers in {targets} as documents in {documents}; "
                f"found {arrays[targets].dtype} {arrays[targets].shape} and {arrays[documents].shape}"
            )
    return arrays


def _read_array(raw: bytes) -> np.ndarray:
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    _, _, dtype = read_header(stream)
    if not dtype.hasobject:
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    array = _DocumentUnpickler(stream).load()
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise ValueError("expected one row of documents")
    return array


def _way_out(path: Path) -> str:
    return "; delete it, and the next run downloads it again" if path.parent == keras_folder() else ""


def _read_words(path: Path) -> list[str]:
    """The words by their numbers; an empty one where there is none."""
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        words = [""] * (max(numbers.values()) + 1)
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
