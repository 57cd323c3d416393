"""The Rich consoles: results go to stdout, progress and logs to stderr."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape

REFRESH_SECONDS = 0.1
PLAIN_SECONDS = 30.0
"""Without a terminal, a line of progress this often."""

console = Console(stderr=True)
"""Progress, notes and warnings."""

out = Console()
"""Results."""


def be_quiet() -> None:
    """Silences progress and notes; errors and results stay."""
    console.quiet = True


def warn(message: str) -> None:
    """A thing the user should know, but that does not stop the work."""
    console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def note(message: str) -> None:
    """A thing worth saying once."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def status(message: str) -> AbstractContextManager[Any]:
    """A spinner while work goes on, on a terminal; nothing elsewhere."""
    return console.status(escape(message))


def print_json(value: Any) -> None:
    """One JSON object on stdout, never wrapped, coloured or with NaN."""
    # Elsewhere an emoji would become \U0001f600, which is no JSON.
    as_it_is = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not as_it_is, allow_nan=False) + "\n")


class Counting(AbstractContextManager["Counting"]):
    """Says how far long work has come: live on a terminal, else a line now and then.

    Args:
        what: `features of hub:bert`.
        unit: what is counted: `images`.
        total: how many there will be; None when nobody knows yet.
    """

    def __init__(self, what: str, unit: str, total: int | None = None) -> None:
        self.what, self.unit, self.total = what, unit, total
        self.done = 0
        self._live = console.is_terminal and not console.quiet
        self._status: Any = None
        self._start = self._shown = 0.0

    def __enter__(self) -> Counting:
        self._start = self._shown = time.perf_counter()
        self._status = status(self._line())
        self._status.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._status.__exit__(kind, value, traceback)
        if kind is None:
            note(f"{self._line()}, {time.perf_counter() - self._start:.1f} s")

    def doing(self, what: str) -> None:
        """Names the part of the work that goes on now; seen on a terminal alone."""
        if self._live:
            self._status.update(escape(f"{self._line()}  {what}"))

    def add(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        now = time.perf_counter()
        if now - self._shown < (REFRESH_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = now
        if self._live:
            self._status.update(escape(self._line()))
        else:
            note(self._line())

    def _line(self) -> str:
        of = "" if self.total is None or self.done == self.total else f" of {self.total:,}"
        return f"{self.what}: {self.done:,}{of} {self.unit}"
