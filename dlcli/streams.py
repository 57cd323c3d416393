"""Standard streams on which nothing that is printed can fail."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any


def prepare_streams() -> None:
    """Lets no work end because of what it prints: not by a closed stream, not by a name that its encoding cannot hold.

    Nobody may be left to read what goes to stderr (`dlcli train ... 2>&1 | head`, a terminal that was closed), or its
    disk may be full: then it is dropped, and the work goes on. A stdout that nobody reads ends the command, see
    `dlcli.cli.main`.
    """
    # Of closed ones the numbers would go to the next files that are opened, and TensorFlow's messages into them.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdout is None:  # `dlcli ... >&-`
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    own = sys.__stderr__
    if own is not None and sys.stderr is own:  # and not something that a test put there
        raw = io.BufferedWriter(_Dropping(own.fileno()))
        sys.stderr = io.TextIOWrapper(raw, own.encoding, "backslashreplace", line_buffering=True)


class _Dropping(io.RawIOBase):
    """An open file that takes everything: what the system refuses is dropped.

    Args:
        number: of the file, which stays open.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Its number."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, content: Any) -> int:
        """Writes what the system takes."""
        try:
            return os.write(self._number, content)
        except OSError:
            return len(content)
