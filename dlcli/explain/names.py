"""Inputs -> file names that every file system takes, each once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

MOST_BYTES = 100
"""Of a stem in UTF-8: file systems take 255 for the whole name, and `.grad_cam_plus_plus.npy` comes behind it."""

_KEPT = " -_.()+,=@"
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_stem(text: str) -> str:
    """A file name without suffix: letters and digits of all scripts stay, runs of anything else become `_`.

    Args:
        text: a file's stem, or the beginning of a text.

    Returns:
        1 to MOST_BYTES bytes in UTF-8, without separators, control characters, emoji, or dots at its ends.
    """
    letters = [
        letter if letter in _KEPT or unicodedata.category(letter)[0] in "LNM" else "\0"
        for letter in unicodedata.normalize("NFC", " ".join(text.split()))
    ]
    stem = re.sub("\0+", "_", "".join(letters))
    stem = _trimmed(_cut(stem.strip("_ .-"), MOST_BYTES)) or "input"
    return f"{stem}_" if _RESERVED.fullmatch(stem) else stem


class Stems:
    """Hands out stems, no two of which differ by case alone: the second `cat` is `cat-2`.

    The same inputs in the same order have the same stems. Those of earlier runs into the same folder stay with their
    inputs, whatever comes before them now.

    Args:
        known: input -> stem, of earlier runs.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._known = dict(known or {})
        self._taken = {_folded(stem) for stem in self._known.values()}
        self._next: dict[str, int] = {}

    def of(self, name: str, text: str) -> str:
        """The stem of an input.

        Args:
            name: of the input, by which it is known again: its whole path.
            text: what the stem is made of: the path's own stem.
        """
        if name not in self._known:
            self._known[name] = self._unique(safe_stem(text))
        return self._known[name]

    def _unique(self, stem: str) -> str:
        # Counting goes on where it stopped: 10,000 files of one name would take 50 million steps otherwise.
        number = self._next.get(_folded(stem), 1)
        candidate = stem if number == 1 else f"{stem}-{number}"
        while _folded(candidate) in self._taken:
            number += 1
            candidate = f"{stem}-{number}"
        self._next[_folded(stem)] = number + 1
        self._taken.add(_folded(candidate))
        return candidate


def _cut(text: str, length: int) -> str:
    return text.encode()[:length].decode(errors="ignore")


def _trimmed(stem: str) -> str:
    return stem.strip("_ .-")


def _folded(stem: str) -> str:
    """Equal for names that macOS or Windows takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", stem).casefold())
