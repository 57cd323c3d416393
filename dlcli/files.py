"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from dlcli.errors import OutputError

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary neighbour of `path` to write to, and puts it in place when the block ends well.

    The neighbour keeps the suffix, because Keras and matplotlib choose the format by it. Its name is drawn, not
    made by tempfile, whose files nobody else may read.

    Raises:
        OutputError: the disk is full, the folder is none or may not be written to.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    places = {str(place) for place in (temporary, path, path.parent, *path.parent.parents)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        # Other errors are of what the block reads: a missing input is no fault of this file.
        if str(error.filename) not in places and not (error.filename is None and error.errno in _OF_THE_DISK):
            raise
        reason = "its folder is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OutputError(f"{path}: cannot be written: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
