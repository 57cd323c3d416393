"""Results on their way to explanation.json: a line for each input as it is done, so that a killed job can go on."""

from __future__ import annotations

import fcntl
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dlcli.errors import DlcliError, OutputError
from dlcli.files import atomic_path

JOURNAL = ".explanation.jsonl"
VERSION = 1


class OtherSettingsError(DlcliError):
    """The folder holds explanations that were made with other settings."""


class _Line(NamedTuple):
    """Where an input's last line stands, and what must be known without reading it."""

    offset: int
    stem: str
    stamp: str
    failed: bool


class Journal:
    """The file `.explanation.jsonl` of a folder: the settings, then a line for each input.

    Memory grows by names alone: the lines stay in the file. An input that is done again (since it failed, or has
    changed) keeps its place, and its last line counts.
    """

    def __init__(self, path: Path, file: BinaryIO, lines: dict[str, _Line]) -> None:
        self._path, self._file, self._lines = path, file, lines

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def stems(self) -> dict[str, str]:
        """Input -> the stem of its files, where it has any."""
        return {name: line.stem for name, line in self._lines.items() if line.stem}

    def is_done(self, name: str, stamp: str = "") -> bool:
        """Whether an input has been explained.

        Args:
            name: of the input.
            stamp: what changes when the input does, as a file's size and time.
        """
        line = self._lines.get(name)
        return line is not None and not line.failed and line.stamp == stamp

    def append(
        self, name: str, record: Mapping[str, Any], *, page: Any = None, stem: str = "", stamp: str = ""
    ) -> None:
        """Writes an input's results; they are in the file when this returns.

        Args:
            name: of the input.
            record: for explanation.json; with `error` it counts as failed and is tried again.
            page: for index.html.
            stem: of its files.
            stamp: as in `is_done`.

        Raises:
            OutputError: the disk is full.
        """
        line = {"input": name, "stem": stem, "stamp": stamp, "record": record, "page": page}
        offset = self._file.seek(0, 2)
        try:
            _write(self._file, line)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(offset)
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._lines[name] = _Line(offset, stem, stamp, "error" in record)

    def records(self) -> Iterator[dict[str, Any]]:
        """What stands in explanation.json of each input, in the order in which they came first."""
        for line in self._read():
            yield line["record"]

    def pages(self) -> Iterator[Any]:
        """What index.html shows of each input, in the same order."""
        for line in self._read():
            if line["page"] is not None:
                yield line["page"]

    def _read(self) -> Iterator[dict[str, Any]]:
        for each in self._lines.values():
            self._file.seek(each.offset)
            yield json.loads(self._file.readline())


@contextmanager
def open_journal(folder: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a folder, which is made where it is missing; what is done there already is kept.

    A line that a killed process left unfinished is dropped, and all behind it.

    Args:
        folder: of explanation.json.
        settings: what all results of the folder share.

    Raises:
        DlcliError: the folder was explained with other settings, holds something else, or another process is at work
            in it.
        OutputError: the folder cannot be written to.
    """
    path = folder / JOURNAL
    settings = json.loads(json.dumps(settings))  # tuples become the lists as which they are read again
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(folder.iterdir()):
            raise DlcliError(
                f"{folder}: holds other files, and explanations have a folder of their own; give another --out"
            )
        file = path.open("a+b", buffering=0)
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"{folder}: cannot be written to: {reason}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DlcliError(
                f"{folder}: another process is writing explanations there; wait for it, or choose another --out"
            ) from error
        lines = _resume(path, file, settings)
        try:
            yield Journal(path, file, lines)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def write_explanation(path: Path, header: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> int:
    """Writes explanation.json, one record at a time: `header`, then all records under `inputs`.

    Args:
        path: of the file, which appears whole or not at all.
        header: settings, seed, versions.
        records: of the inputs.

    Returns:
        How many records there were.
    """
    count = 0
    with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        # Names of files may hold bytes that are no UTF-8; escaped, they are written all the same.
        start = json.dumps(dict(header), indent=2, allow_nan=False).removesuffix("}").rstrip("\n")
        file.write(f'{start}{"," if header else ""}\n  "inputs": [')
        for count, record in enumerate(records, start=1):
            text = json.dumps(record, indent=2, allow_nan=False)
            file.write(("\n" if count == 1 else ",\n") + textwrap.indent(text, "    "))
        file.write("\n  ]\n}\n" if count else "]\n}\n")
    return count


def _resume(path: Path, file: BinaryIO, settings: Mapping[str, Any]) -> dict[str, _Line]:
    """The lines that are whole; the file ends behind them."""
    file.seek(0)
    header = _parsed(file.readline())
    if header is None or not isinstance(header.get("settings"), dict):
        # Nothing, or a first line that was never finished: nothing is lost.
        file.truncate(0)
        _write(file, {"journal": VERSION, "settings": settings})
        return {}
    if header.get("journal") != VERSION:
        raise DlcliError(
            f"{path}: was written by another version of dlcli; choose another --out, or delete it"
        )
    _check_settings(path.parent, header["settings"], settings)
    lines: dict[str, _Line] = {}
    end = file.tell()
    while (line := _parsed(file.readline())) is not None and "record" in line:
        lines[line["input"]] = _Line(end, line["stem"], line["stamp"], "error" in line["record"])
        end = file.tell()
    file.truncate(end)
    return lines


def _check_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not names:
        return
    told = "; ".join(f"{name} was {_said(before.get(name))}, is now {_said(now.get(name))}" for name in names)
    raise OtherSettingsError(
        f"{folder}: holds explanations with other settings: {told}. Give the settings of before to go on, "
        f"another --out, or delete the folder"
    )


def _said(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """An object, if the line is whole."""
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _write(file: BinaryIO, content: Any) -> None:
    rest = memoryview(json.dumps(content, allow_nan=False).encode() + b"\n")
    while rest:  # a file without a buffer may take less than it is given
        rest = rest[file.write(rest) :]
