"""Text files: which there are under a folder, and what they hold; a fault is named by file, line and byte.

For tables an unknown encoding may be guessed, since numbers survive it. A text would be ruined without a word
(Chinese read as windows-1252), so here the rules are:

1. `encoding`, when given, is used as it is.
2. Else a byte order mark decides: UTF-8, UTF-16 or UTF-32. The mark is no part of the text.
3. Else the file must be UTF-8. What is not is refused, with the byte at fault and an encoding to try.
4. Zero bytes are refused: they come from UTF-16 without a mark, or from no text at all.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlcli.data.sniff import quoted_near_miss
from dlcli.errors import DataError

SHOWN = 10
"""Files or folders of one kind that a message names; the rest is counted."""

KNOWN_ENCODINGS = ("utf-8", "utf-16", "windows-1252", "latin-1", "gb18030", "shift_jis", "euc-kr", "big5")

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 64 * 1024
_CHUNK = 4 * 2**20
_IGNORED_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class TextFile:
    """A decoded file."""

    text: str
    sha256: str


class TextFileWalker:
    """Finds .txt files under folders; counts what it passes over and collects what it refuses.

    Hidden and system files are passed over, and so are files of other names. Links out of the root, links to
    folders (which may be loops), pipes and devices are refused.

    Args:
        root: the folder that nothing may lead out of.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ignored: Counter[str] = Counter()
        self._real_root = os.path.realpath(root)
        self._refused: list[str] = []

    def folders(self, folder: Path) -> list[Path]:
        """Visible folders in `folder`, by name."""
        found = []
        for entry in _entries(folder):
            if _is_ignored(entry.name):
                continue
            if entry.is_symlink() and Path(entry.path).is_dir():
                self._refused.append(f"{entry.path}: a link to a folder")
            elif entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
        return found

    def files(self, folder: str | Path) -> Iterator[str]:
        """Full paths of the .txt files in `folder` and below, by name."""
        for entry in _entries(folder):
            if _is_ignored(entry.name):
                self.ignored["hidden or system file"] += 1
            elif entry.is_symlink():
                yield from self._linked(entry)
            elif entry.is_dir(follow_symlinks=False):
                yield from self.files(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                self._refused.append(f"{entry.path}: not a regular file (pipe, socket or device)")
            else:
                yield from self._file(entry)

    def _linked(self, entry: os.DirEntry[str]) -> Iterator[str]:
        target = os.path.realpath(entry.path)
        if not Path(target).is_file():
            self._refused.append(f"{entry.path}: a link to a folder or to nothing")
        elif not target.startswith(self._real_root + os.sep):
            self._refused.append(f"{entry.path}: a link to {target}, outside {self.root}")
        else:
            yield from self._file(entry)

    def _file(self, entry: os.DirEntry[str]) -> Iterator[str]:
        if entry.name.lower().endswith(".txt"):
            yield entry.path
        else:
            self.ignored["not named .txt"] += 1

    def check_refused(self) -> None:
        """Raises a DataError for links that leave the folder, pipes and devices."""
        if self._refused:
            raise DataError(
                f"{len(self._refused)} entries under {self.root} are refused, because they are "
                f"not plain files in that folder:\n{indented(self._refused)}\nRemove them, or copy the files in"
            )

    def notes(self) -> list[str]:
        """How many files were passed over, and why."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.ignored.items()))
        return [f"{self.ignored.total():,} files ignored ({reasons})"] if self.ignored else []


def indented(lines: Sequence[str]) -> str:
    """A line each, the first SHOWN of them."""
    more = [f"  ... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return "\n".join([*(f"  {line}" for line in lines[:SHOWN]), *more])


def check_encoding(encoding: str | None) -> None:
    """Raises a DataError when Python knows no text encoding of this name."""
    if encoding is None:
        return
    try:
        b"a".decode(encoding, errors="ignore")  # of no bytes at all Python does not look the name up
    except (LookupError, ValueError):
        near = quoted_near_miss(encoding, KNOWN_ENCODINGS)
        raise DataError(f"encoding {encoding!r} is unknown{near}") from None


def check_regular(path: Path, expected: str) -> None:
    """Raises a DataError unless `path` is a regular file: a pipe or /dev/zero would be read for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{quoted_near_miss(path.name, siblings)}") from None
    except (OSError, ValueError) as error:
        raise cannot_be_read(path, error) from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise DataError(f"{path}: this is {what}; expected {expected}")


def cannot_be_read(path: Path | str, error: Exception) -> DataError:
    """The refusal of a file that the system does not give."""
    return DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")


def read_text_file(path: Path, encoding: str | None, expected: str) -> TextFile:
    """A whole file, decoded by the rules above.

    Args:
        path: the file.
        encoding: a Python codec, or None.
        expected: what should be there, for the message: `a CSV file`.

    Raises:
        DataError: missing, not a regular file, not readable, or not text.
    """
    check_regular(path, expected)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise cannot_be_read(path, error) from None
    return TextFile(decode_text(raw, path, encoding), hashlib.sha256(raw).hexdigest())


def decode_text(raw: bytes, path: Path | str, encoding: str | None) -> str:
    """The text of these bytes, without a byte order mark.

    Raises:
        DataError: the bytes are not in the encoding, or hold zeros.
    """
    codec = encoding or encoding_of_mark(raw)
    try:
        text = raw.decode(codec or "utf-8")
    except UnicodeDecodeError as error:
        raise not_in_encoding(path, error, 0, 1, encoding) from None
    except ValueError as error:  # UnicodeError of codecs that do not say where
        raise DataError(f"{path}: not {encoding}: {error}; correct `encoding`") from None
    if "\0" in text:
        raise _zero_bytes(path, raw, 1 + text.count("\n", 0, text.index("\0")), codec or "UTF-8")
    return text.removeprefix("\ufeff")


def decoded_chunks(path: Path, encoding: str | None) -> Iterator[str]:
    """A file's text, some megabytes at a time, by the same rules; memory does not grow with the file.

    Raises:
        DataError: as of `decode_text`.
    """
    offset, line = 0, 1
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
            codec = encoding or encoding_of_mark(head) or "UTF-8"
            decoder = codecs.getincrementaldecoder(codec)()
            file.seek(0)
            while True:
                raw = file.read(_CHUNK)
                offset += len(raw)
                text = decoder.decode(raw, final=not raw)
                if "\0" in text:
                    raise _zero_bytes(path, head, line + text.count("\n", 0, text.index("\0")), codec)
                line += text.count("\n")
                if text:
                    yield text.removeprefix("\ufeff") if offset == len(raw) else text
                if not raw:
                    return
    except UnicodeDecodeError as error:
        raise not_in_encoding(path, error, offset - len(error.object), line, encoding) from None
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except ValueError as error:
        raise DataError(f"{path}: not {encoding}: {error}; correct `encoding`") from None


def encoding_of_mark(raw: bytes) -> str | None:
    """The encoding that a byte order mark names; None without one."""
    return next((encoding for mark, encoding in _MARKS if raw.startswith(mark)), None)


def not_in_encoding(
    path: Path | str, error: UnicodeDecodeError, offset: int, line: int, encoding: str | None
) -> DataError:
    """The refusal of bytes that are not in the encoding.

    Args:
        path: the file.
        error: what the codec said.
        offset: where in the file `error.object` begins.
        line: the line on which it begins.
        encoding: as given, or None.
    """
    if encoding is None and (zero := error.object.find(b"\0")) >= 0:
        return _zero_bytes(path, error.object, line + error.object.count(b"\n", 0, zero), "UTF-8")
    line += error.object.count(b"\n", 0, error.start)
    place = f"byte 0x{error.object[error.start]:02x} at offset {offset + error.start:,}"
    if encoding is not None:
        return DataError(f"{path}:{line}: {place} is not {encoding}; leave `encoding` out or correct it")
    advice = _advice(error.object[: error.start + _SAMPLE])
    return DataError(f"{path}:{line}: {place} is not UTF-8; {advice}")


def _advice(raw: bytes) -> str:
    """Bytes that decode as GB18030 into Chinese characters are most likely that."""
    try:
        decoded = codecs.getincrementaldecoder("gb18030")().decode(raw)
    except UnicodeDecodeError:
        decoded = ""
    others = [character for character in decoded if character > "\x7f"]
    chinese = sum("\u3000" <= character <= "\u9fff" or character >= "\uff00" for character in others)
    if others and chinese >= 0.9 * len(others):
        return "it looks like Chinese in `encoding: gb18030`"
    return (
        "say what it is, for example `encoding: latin-1` (Western European) or `encoding: gb18030` (Chinese)"
    )


def _zero_bytes(path: Path | str, raw: bytes, line: int, encoding: str) -> DataError:
    head = raw[:4096]
    # In UTF-16 without a mark every second byte of ASCII text is zero.
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[offset::2].count(0), head[1 - offset :: 2].count(0)
        if zeros > 0.4 * len(head[offset::2]) > others:
            return DataError(f"{path}: not {encoding}; it looks like `encoding: {name}`")
    return DataError(f"{path}:{line}: zero bytes: this is no {encoding} text, but perhaps a binary file")


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED_NAMES
