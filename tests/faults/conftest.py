"""What the fault tables and the fuzzers share: dlcli run in this process, within limits."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dlcli.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def check(self, *codes: int) -> None:
        """Fails unless the exit code is one of `codes` and what is wrong was said in words."""
        assert self.code in codes, f"exit code {self.code}\n{self.err[-3000:]}"
        assert "Traceback" not in self.err, self.err[-3000:]
        assert self.code == 0 or self.err.strip(), "nothing was said"


RunDlcli = Callable[..., Outcome]


@pytest.fixture(scope="session")
def run_dlcli() -> RunDlcli:
    """`run_dlcli("validate", path)`: the command in this process; `seconds` of CPU and `memory` bytes bound it."""

    def run(*arguments: str | Path, seconds: float | None = None, memory: int | None = None) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["dlcli", *map(str, arguments)]),
            _limited(seconds, memory),
        ):
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


class TookTooLongError(BaseException):
    """No `except Exception` of the product may swallow it."""


@pytest.fixture(scope="session")
def limited() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`with limited(seconds=2, memory=2**30):` bounds CPU time and what the process may grow by."""
    return _limited


@contextlib.contextmanager
def _limited(seconds: float | None, memory: int | None) -> Iterator[None]:
    """Raises TookTooLongError after so much CPU time, MemoryError when the process grows by so much."""

    def too_long(number: int, frame: Any) -> None:
        raise TookTooLongError(f"more than {seconds:g} seconds of CPU time")

    before_signal = signal.signal(signal.SIGPROF, too_long)
    before_limit = resource.getrlimit(resource.RLIMIT_AS)
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before_limit[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before_signal)
        resource.setrlimit(resource.RLIMIT_AS, before_limit)
