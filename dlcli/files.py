"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from dlcli.errors import OutputError

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")
"""Names of what `atomic_path` writes to, until it is whole."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary neighbour of `path` to write to, and puts it in place when the block ends well.

    The neighbour keeps the suffix, because Keras and matplotlib choose the format by it. Its name is drawn, not
    made by tempfile, whose files nobody else may read.

    Raises:
        OutputError: the disk is full, the folder is none or may not be written to.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        with written_or_explained(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def written_or_explained(*paths: Path) -> Iterator[None]:
    """Says in words why one of these files cannot be written.

    Args:
        paths: what the block writes, or folders below which it does; the message names the first one.

    Raises:
        OutputError: the disk is full, a folder is none, is gone or may not be written to.
    """
    places = {str(place) for path in paths for place in (path, path.parent, *path.parent.parents)}
    try:
        yield
    except OSError as error:
        # Other errors are of what the block reads: a missing input is no fault of this file.
        ours = str(error.filename) in places or any(
            Path(str(error.filename)).is_relative_to(path) for path in paths
        )
        if not ours and not (error.filename is None and error.errno in _OF_THE_DISK):
            raise
        reason = "its folder is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"{paths[0]}: cannot be written: {reason}") from error


def sync_file(file: IO[Any]) -> None:
    """Lets what was written to an open file outlive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Lets the names in a folder outlive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network drives cannot
            raise
    finally:
        os.close(number)


def is_temporary(path: Path) -> bool:
    """Whether `atomic_path` made a name."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Removes what `atomic_path` left below a folder when its process was killed. Nobody else may write there."""
    for path in [path for path in folder.rglob(".*") if is_temporary(path)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def new_folder(path: Path) -> Path:
    """Makes `path`, or `path-2`, `path-3`, ..., the first that is not there yet.

    Raises:
        OSError: it cannot be made; `filename` says where.
    """
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; a name that is no UTF-8 stands in it as JSON and YAML read it back."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
