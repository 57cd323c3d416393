"""The data set `text_file`: a corpus for language models, in one file or a folder of .txt files."""

from __future__ import annotations

import codecs
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dlcli.console import status
from dlcli.data.cache import cache_folder
from dlcli.data.examples import DataInfo, Source
from dlcli.data.folder_walk import indented
from dlcli.data.text.reading import (
    check_encoding,
    check_regular,
    decoded_chunks,
    encoding_of_mark,
    text_files,
)
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.errors import DataError

PIECE = 16 * 1024
"""Bytes of a document, about."""
LONGEST_PIECE = 2 * PIECE
"""Bytes; a longer line is cut."""
_FEWEST_PIECES = 128
"""About, of a small corpus with so many lines: a part of them can be held out."""
_FEWEST_CUTS = 8
"""A small corpus of one line is cut into at least so many pieces."""


def text_file(*, path: Path, test_path: Path | None = None, encoding: str | None = None) -> Source:
    """One text that goes on from piece to piece: documents of about 16 kB, cut at line ends.

    A line of more than 32 kB is cut at white space, or where there is none between two characters; nothing is
    lost or changed, line ends neither. Small corpora have smaller pieces. The validation split is the end of
    the train file. A UTF-8 file is mapped into memory as it lies on the disk; files in another encoding, and the
    files of a folder, are first copied into one temporary file. Encodings: `dlcli.data.text.reading`.

    Args:
        path: a text file, or a folder whose .txt files are read by name, folders in it too.
        test_path: another one, used only by `evaluate`.
        encoding: a Python codec such as `gb18030`; left out, byte order marks count, else UTF-8 is required.

    Raises:
        DataError: missing or empty files, or bytes that are not text; the message names file and line.
    """
    check_encoding(encoding)
    train = _read_corpus(Path(path), encoding)
    test = None if test_path is None else _read_corpus(Path(test_path), encoding)
    if test is not None and test.sha256 == train.sha256:
        raise DataError(f"{test_path}: test_path is a copy of path; a score on it would mean nothing")
    digests = train.sha256 + ("" if test is None else test.sha256)
    info = DataInfo(
        kind="text",
        input_shape=(),
        target="text",
        notes=(*train.notes, *(test.notes if test is not None else ())),
        fingerprint=hashlib.sha256(digests.encode()).hexdigest(),
        continuous=True,
    )
    return Source(train.examples, info, None, test=None if test is None else test.examples)


@dataclass(frozen=True)
class _Corpus:
    examples: TextExamples
    sha256: str
    """Over the text as UTF-8."""
    notes: tuple[str, ...]


class _Scan(NamedTuple):
    sha256: str
    blank: list[str]
    """Files that hold nothing but white space."""


def _read_corpus(path: Path, encoding: str | None) -> _Corpus:
    path = path.expanduser()
    files, notes = _files_of(path)
    with status(f"reading {path}"):
        if len(files) == 1 and _is_utf8(files[0], encoding):
            scan = _scan(path, files, encoding, None)
            with files[0].open("rb") as file:
                begin = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
                examples = _mapped_pieces(file, begin)
        else:
            with _temporary_file() as file:
                scan = _scan(path, files, encoding, file)
                examples = _mapped_pieces(file, 0)
    if scan.blank:
        notes.append(
            f"left out {len(scan.blank):,} files that hold nothing but white space:\n{indented(scan.blank)}"
        )
    return _Corpus(examples, scan.sha256, tuple(notes))


def _files_of(path: Path) -> tuple[list[Path], list[str]]:
    if not path.is_dir():
        check_regular(path, "a text file, or a folder of .txt files")
        return [path], []
    walker = text_files(path)
    files = [path / file.path for file in walker.files(path)]
    walker.check_refused()
    if not files:
        raise DataError(f"{path}: no .txt files in this folder")
    return files, [f"{path}: {len(files):,} .txt files, one after another", *walker.notes()]


def _is_utf8(path: Path, encoding: str | None) -> bool:
    if encoding is None:
        with path.open("rb") as file:
            return encoding_of_mark(file.read(4)) in (None, "utf-8-sig")
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def _scan(path: Path, files: Sequence[Path], encoding: str | None, copy: BinaryIO | None) -> _Scan:
    """Reads the files once, some megabytes at a time: checks, hashes and perhaps copies them as UTF-8.

    A file of several that lacks a line end at its end gets one, so that no word runs into the next file.
    """
    digest, blank = hashlib.sha256(), []
    for name in files:
        own, has_text, text = hashlib.sha256(), False, ""
        begin = copy.tell() if copy is not None else 0
        for text in decoded_chunks(name, encoding):
            has_text = has_text or not text.isspace()
            raw = text.encode("utf-8", errors="replace")
            own.update(raw)
            if copy is not None:
                copy.write(raw)
        if copy is not None and not has_text:
            copy.seek(begin)
            copy.truncate()
        elif copy is not None and len(files) > 1 and not text.endswith("\n"):
            copy.write(b"\n")
        if has_text:
            digest.update(own.digest())
        else:
            blank.append(str(name))
    if len(blank) == len(files):
        raise DataError(f"{path}: there is nothing but white space; expected text")
    return _Scan(digest.hexdigest(), blank)


@contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    """A file without a name, which the system removes with the last process that reads it."""
    folder = cache_folder("corpora")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{folder}: the text cannot be copied there ({error.strerror}); free some space, or set DLCLI_CACHE "
            "to another folder"
        ) from error


def _mapped_pieces(file: BinaryIO, begin: int) -> TextExamples:
    """The file from `begin` on, cut into pieces that are read from the disk when they are needed."""
    file.flush()
    end = file.seek(0, 2)
    ends = np.array(list(_ends_of_pieces(file, begin, end)), np.int64)
    starts = np.concatenate([np.array([begin], np.int64), ends[:-1]])
    data = np.memmap(file, np.uint8, mode="r")
    return TextExamples({"text": Texts(data, starts, ends)}, np.zeros(len(ends), np.int32))


def _ends_of_pieces(file: BinaryIO, begin: int, end: int) -> Iterator[int]:
    size = max(1, min(PIECE, (end - begin) // _FEWEST_PIECES))
    longest = max(4, min(LONGEST_PIECE, (end - begin) // _FEWEST_CUTS))  # a character has up to 4 bytes
    while begin < end:
        file.seek(begin)
        begin += _first_cut(file.read(longest), size, is_last=begin + longest >= end)
        yield begin


def _first_cut(window: bytes, size: int, is_last: bool) -> int:
    """Where to end a piece of at least `size` bytes: after a line, else a word, else a character."""
    line_end = window.find(b"\n", size - 1) + 1
    if line_end or is_last:
        return line_end or len(window)
    space = max(window.rfind(mark, size - 1) for mark in (b" ", b"\t", b"\r")) + 1
    if space:
        return space
    lead = len(window) - 1
    while lead > 0 and window[lead] & 0xC0 == 0x80:  # a byte that continues a character
        lead -= 1
    return lead or len(window)
