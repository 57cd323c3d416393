"""The Rich consoles: results go to stdout, progress and logs to stderr."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.markup import escape

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
