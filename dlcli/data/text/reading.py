"""Text files and what they hold; a fault is named by file, line and byte.

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
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlcli.data.folder_walk import FolderWalker
from dlcli.data.sniff import BYTE_ORDER_MARKS, quoted_near_miss
from dlcli.errors import DataError

KNOWN_ENCODINGS = ("utf-8", "utf-16", "windows-1252", "latin-1", "gb18030", "shift_jis", "euc-kr", "big5")

_SAMPLE = 64 * 1024
_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class TextFile:
    """A decoded file."""

    text: str
    sha256: str


def text_files(root: Path) -> FolderWalker:
    """Finds the .txt files under a folder."""
    return FolderWalker(root, lambda path: path.lower().endswith(".txt"), "not named .txt")


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
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if raw.startswith(mark)), None)


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
