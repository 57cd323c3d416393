"""What a text file does not say about itself: its encoding and its delimiter."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dlcli.errors import DataError
from dlcli.recipe.names import suggest

DELIMITERS = (",", ";", "\t", "|")
SNIFFED_ROWS = 100

# Longest first: the mark of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip or Excel file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
)


@dataclass(frozen=True)
class DecodedFile:
    """A text file in memory."""

    text: str
    sha256: str
    notes: tuple[str, ...] = ()


def quoted_near_miss(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'age'?`, or nothing when no known name is close."""
    near = suggest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def read_text(path: Path, encoding: str | None = None) -> DecodedFile:
    """A file's text: in the given encoding, else by its byte order mark, else UTF-8, else windows-1252.

    Raises:
        DataError: the file is missing, not a regular file, empty, binary, or not in that encoding.
    """
    raw = _read_bytes(path)
    if not raw.strip():
        raise DataError(f"{path}: the file is empty; expected a header row and data rows")
    for mark, description in _OTHER_FORMATS:
        if raw.startswith(mark):
            raise DataError(f"{path}: this is {description}, not text; save the table as CSV (UTF-8)")
    notes: tuple[str, ...] = ()
    if encoding is None:
        encoding, notes = _sniff_encoding(raw, path)
    text = _decode(raw, encoding, path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}:{line}: zero bytes: this is no {encoding} text; save the table as CSV (UTF-8)"
        )
    return DecodedFile(text, hashlib.sha256(raw).hexdigest(), notes)


def sniff_delimiter(text: str) -> str | None:
    """The delimiter of DELIMITERS with which most of the first rows are as wide as the header.

    Returns:
        None when the header has one column whichever is tried.
    """
    best: tuple[float, int] = (0.0, 1)
    found = None
    for delimiter in DELIMITERS:
        widths = [len(row) for row in _first_rows(text, delimiter) if row]
        if widths and widths[0] > 1:
            score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
            if score > best:
                best, found = score, delimiter
    return found


def _read_bytes(path: Path) -> bytes:
    try:
        # A named pipe or /dev/zero would be read for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder" if path.is_dir() else "not a regular file"
            raise DataError(f"{path}: this is {what}; expected a CSV file")
        return path.read_bytes()
    except FileNotFoundError:
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{quoted_near_miss(path.name, siblings)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _sniff_encoding(raw: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    for mark, encoding in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return encoding, ()
    head = raw[:4096]
    # In UTF-16 without a mark every second byte of ASCII text is zero.
    for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[offset::2].count(0), head[1 - offset :: 2].count(0)
        if zeros > 0.4 * len(head[offset::2]) > others:
            return encoding, (f"{path.name}: read as {encoding} (no byte order mark)",)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        encoding = "windows-1252" if _decodes(raw, "windows-1252") else "latin-1"
        advice = f"line {line} is not UTF-8, so the file was read as {encoding}; `encoding` says otherwise"
        return encoding, (f"{path.name}: {advice}",)
    return "utf-8", ()


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decode(raw: bytes, encoding: str, path: Path) -> str:
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        known = ("utf-8", "utf-16", "windows-1252", "latin-1", "gb18030", "shift_jis", "euc-kr", "big5")
        raise DataError(f"encoding {encoding!r} is unknown{quoted_near_miss(encoding, known)}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise DataError(
            f"{path}:{line}: {byte} is not {encoding}; leave `encoding` out or correct it"
        ) from None
    except ValueError as error:  # codecs that do not say where, and names with a zero byte
        raise DataError(f"{path}: not {encoding!r}: {error}; leave `encoding` out or correct it") from None


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text[:1_000_000], newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for row in islice(reader, SNIFFED_ROWS):
            rows.append(row)
    except csv.Error:
        pass
    return rows
