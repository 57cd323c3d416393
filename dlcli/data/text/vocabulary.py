"""Texts become tokens once: the vocabulary is learnt from the train split, and both are kept in a cache.

`$DLCLI_CACHE/tokens` (or the user's cache folder) holds `<key>.npy`, the ids of all texts one after another,
`<key>.ends.npy`, where each text ends, and `<key>.json`, a vocabulary. The ids are mapped into memory, so a
corpus may be larger than it. Deleting the folder is always safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlcli.console import status
from dlcli.data import TOKENIZERS
from dlcli.data.cache import cache_folder, make_room
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.errors import DataError, OutputError
from dlcli.files import write_text
from dlcli.recipe.schema import Spec

COLUMNS = ("text", "source", "target", "question", "context", "words")
"""Columns of TextExamples that a vocabulary is learnt from; tags and answers are none of them."""

CACHE = "tokens"


@dataclass(frozen=True)
class TokenTexts:
    """The ids of N texts: uint16 or int32 in one array, which may be memory-mapped."""

    ids: np.ndarray
    starts: np.ndarray
    """int64 (N,)."""
    lengths: np.ndarray
    """int64 (N,)."""

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> TokenTexts:
        """Of the ids of each text."""
        return _of(np.concatenate(rows), np.cumsum([len(row) for row in rows], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        start = self.starts[index]
        return np.asarray(self.ids[start : start + self.lengths[index]], np.int32)


def learn_vocabulary(spec: Spec, train: TextExamples) -> Tokenizer:
    """The tokenizer of a recipe, with the vocabulary of the train split.

    Args:
        spec: of the table TOKENIZERS, every argument written out.
        train: the train split only, so that no word of the others leaks.

    Raises:
        DataError: the tokenizer cannot be learnt with these settings.
    """
    columns = [train.columns[name] for name in COLUMNS if name in train.columns]
    digest = hashlib.sha256(json.dumps([spec.name, spec.arguments]).encode())
    for column in columns:
        digest.update(column.digest().encode())
    path = _folder() / f"{digest.hexdigest()}.json"
    with contextlib.suppress(Exception):  # no entry, or a damaged one: tokenizers raises a bare Exception
        return Tokenizer(path.read_text(encoding="utf-8"))
    learn = pkgutil.resolve_name(TOKENIZERS[spec.name])
    try:
        with status(f"learning a {spec.name} vocabulary from {len(train):,} texts"):
            learnt = learn(_all_texts(columns), **spec.arguments)
    except ValueError as error:
        raise DataError(f"dataset.tokenizer {spec.name}: {error}") from error
    tokenizer = Tokenizer(learnt.to_str())
    with contextlib.suppress(OSError, OutputError):
        write_text(path, tokenizer.json)
    return tokenizer


def encode_texts(texts: Texts, tokenizer: Tokenizer, end: int | None = None) -> TokenTexts:
    """The ids of all texts, from the cache or made now in parallel.

    Args:
        texts: in the order in which their ids stand in one array.
        tokenizer: as learnt.
        end: a special token behind each text; None adds nothing.
    """
    behind = "" if end is None else f"{end} "
    key = hashlib.sha256((behind + texts.digest() + tokenizer.json).encode()).hexdigest()
    entry = _read_entry(key)
    if entry is None:
        with status(f"tokenizing {len(texts):,} texts"):
            entry = _write_entry(key, texts, tokenizer, end)
    return entry


def _all_texts(columns: list[Texts]) -> Iterator[str]:
    for column in columns:
        for chunk in column.chunks():
            yield from chunk


def _folder() -> Path:
    return cache_folder(CACHE)


def _read_entry(key: str) -> TokenTexts | None:
    folder = _folder()
    try:
        # Copy on write: only a writable array can share its memory with a tensor. Nobody writes to it.
        ids = np.load(folder / f"{key}.npy", mmap_mode="c", allow_pickle=False)
        ends = np.load(folder / f"{key}.ends.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if ends.ndim != 1 or ids.shape != ((ends[-1] if len(ends) else 0),):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.npy")  # the time of last use, which decides what is pushed out
    return _of(ids, ends)


def _of(ids: np.ndarray, ends: np.ndarray) -> TokenTexts:
    lengths = np.diff(ends, prepend=0)
    return TokenTexts(ids, ends - lengths, lengths)


def _write_entry(key: str, texts: Texts, tokenizer: Tokenizer, end: int | None) -> TokenTexts:
    """Tokenizes chunk by chunk into a file; into memory where the cache has no room."""
    dtype = np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.int32
    parts = _encoded(texts, tokenizer, np.dtype(dtype), [] if end is None else [end])
    folder = _folder()
    temporary = folder / f".{os.getpid()}.{key}.npy"
    try:
        fits = make_room(folder, 2 * texts.data.nbytes)
    except OSError:
        fits = False
    if not fits:
        pieces = list(parts)
        ids = np.concatenate([piece for piece, _ in pieces]) if pieces else np.zeros(0, dtype)
        return _of(ids, _ends([lengths for _, lengths in pieces]))
    try:
        lengths = []
        with temporary.open("wb") as file:
            _write_header(file, dtype, 0)
            for piece, counts in parts:
                piece.tofile(file)
                lengths.append(counts)
            ends = _ends(lengths)
            file.seek(0)
            _write_header(file, dtype, int(ends[-1]) if len(ends) else 0)
        with (folder / f".{os.getpid()}.{key}.ends.npy").open("wb") as file:
            np.save(file, ends)
        Path(file.name).replace(folder / f"{key}.ends.npy")
        temporary.replace(folder / f"{key}.npy")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"{folder}: tokens cannot be kept ({error.strerror}); free some space, or set DLCLI_CACHE to another folder"
        ) from error
    entry = _read_entry(key)
    if entry is None:
        raise DataError(f"{folder}: another process changed the cache; start again")
    return entry


def _write_header(file: object, dtype: type, count: int) -> None:
    """The head of a .npy file, always of the same size: the count is known at the end."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (count,),
    }
    text = repr(header).ljust(117).encode("latin1") + b"\n"
    file.write(np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text)  # type: ignore[attr-defined]


def _encoded(
    texts: Texts, tokenizer: Tokenizer, dtype: np.dtype, suffix: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunk after chunk: the ids one after another, and the length of each text."""
    for chunk in texts.chunks():
        rows = tokenizer.encode(chunk)
        if suffix:
            rows = [np.append(row, suffix) for row in rows]
        yield np.concatenate(rows).astype(dtype), np.array([len(row) for row in rows], np.int64)


def _ends(lengths: list[np.ndarray]) -> np.ndarray:
    return np.cumsum(np.concatenate(lengths)) if lengths else np.zeros(0, np.int64)
