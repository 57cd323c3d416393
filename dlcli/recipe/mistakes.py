"""The one form in which every mistake of a recipe is reported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlcli.errors import DlcliError

RecipePath = tuple[str | int, ...]
"""Keys and list positions from the top of a recipe to a value."""

MAX_SHOWN = 100


@dataclass
class Place:
    """Where a value stands: in a file (lines and columns from 1; 0 is unknown), or in a `--set` flag.

    Attributes:
        label: the file as the user wrote it, or the whole flag.
        line: line of the value.
        column: column of the value.
        key_line: line of its key.
        key_column: column of its key.
        raw: an unquoted scalar as written (`1e400`, `.nan`).
        flag_path: for a `--set` flag, the path that it sets.
    """

    label: str
    line: int = 0
    column: int = 0
    key_line: int = 0
    key_column: int = 0
    raw: str | None = None
    flag_path: tuple[str | int, ...] | None = None

    def of_key(self) -> Place:
        """The place of the key, where there is one."""
        return replace(self, line=self.key_line, column=self.key_column) if self.key_line else self

    def __str__(self) -> str:
        label = _one_line(self.label, 4096)
        return f"{label}:{self.line}:{self.column}" if self.line else label


@dataclass
class Mistake:
    """One thing that is wrong, and what would be right.

    As text: `file:line:column key.path: what; did you mean ...; allowed: ...; received ...`.

    Attributes:
        what: the mistake itself, in few words.
        place: where it stands.
        path: keys from the top of the recipe.
        suggestion: the nearest thing that would be right.
        allowed: what may stand here.
        received: what stands here, as text.
    """

    what: str
    place: Place
    path: tuple[str | int, ...] = ()
    suggestion: str | None = None
    allowed: str | None = None
    received: str | None = None

    def __str__(self) -> str:
        parts = [self.what]
        if self.suggestion:
            parts.append(f"did you mean {self.suggestion}")
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.received is not None:
            parts.append(f"received {self.received}")
        if self.suggestion and len(parts) == 2:
            parts[-1] += "?"
        where = str(self.place)
        if self.path and self.path != self.place.flag_path:
            where += f" {dotted(self.path)}"
        return f"{where}: {'; '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`: the parts that there are."""
        parts = {
            "file": self.place.label if self.place.flag_path is None else None,
            "flag": self.place.label if self.place.flag_path is not None else None,
            "line": self.place.line or None,
            "column": self.place.column or None,
            "path": dotted(self.path) or None,
            "what": self.what,
            "suggestion": self.suggestion,
            "allowed": self.allowed,
            "received": self.received,
        }
        return {name: value for name, value in parts.items() if value is not None}


class RecipeError(DlcliError):
    """Everything that is wrong with a recipe, in the order of its lines."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        in_files = [mistake for mistake in mistakes if mistake.place.flag_path is None]
        in_flags = [mistake for mistake in mistakes if mistake.place.flag_path is not None]
        in_files.sort(key=lambda mistake: (mistake.place.line, mistake.place.column))
        self.mistakes = in_files + in_flags
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [str(mistake) for mistake in self.mistakes[:MAX_SHOWN]]
        if len(self.mistakes) > MAX_SHOWN:
            lines.append(f"... and {len(self.mistakes) - MAX_SHOWN} more")
        return "\n".join(lines)


def dotted(path: Sequence[str | int]) -> str:
    """`dataset.augmentation.0.mode`; keys of control characters are escaped, very long ones shortened."""
    return ".".join(_one_line(str(key)) for key in path)


def shown(value: Any, raw: str | None = None) -> str:
    """A value as a message shows it: text in quotes, numbers as written, short and on one line."""
    text = raw if raw else json.dumps(value, ensure_ascii=False, default=str)
    return _one_line(text)


def _one_line(text: str, limit: int = 80) -> str:
    visible = (mark if mark.isprintable() else repr(mark)[1:-1] for mark in text[: limit + 1])
    text = "".join(visible)
    return text if len(text) <= limit else text[: limit - 3] + "..."
