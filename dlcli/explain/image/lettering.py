"""Text that stays inside its picture: measured letter by letter, without drawing it."""

from __future__ import annotations

from functools import cache
from typing import Any

DPI = 120
"""Of the pictures."""

POINTS = 9
"""Size of letters."""


def width(text: str) -> float:
    """Pixels that a line takes in the pictures' own font; letters that it has not count as wide as they are high."""
    return sum(map(_advance, text))


def wrapped(text: str, pixels: float) -> list[str]:
    """Lines no wider than `pixels`, broken between words; words that are wider themselves are broken inside."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if width(longer) <= pixels:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while width(line) > pixels and len(line) > 1:
            taken = _fitting(line, pixels)
            lines.append(line[:taken])
            line = line[taken:]
    return [*lines, line] if line else lines


def ending(text: str, pixels: float) -> str:
    """As much of the end of a text as fits, behind an ellipsis: of a path the end tells most."""
    if width(text) <= pixels:
        return text
    taken = _fitting(text[::-1], pixels - _advance("…"))
    return "…" + text[-taken:]


def beginning(text: str, pixels: float) -> str:
    """As much of the beginning of a text as fits, and an ellipsis."""
    if width(text) <= pixels:
        return text
    return text[: _fitting(text, pixels - _advance("…"))] + "…"


def _fitting(text: str, pixels: float) -> int:
    """How many letters fit; at least one."""
    taken = 0.0
    for count, letter in enumerate(text):
        taken += _advance(letter)
        if taken > pixels:
            return max(1, count)
    return len(text)


@cache
def _advance(letter: str) -> float:
    em = POINTS * DPI / 72
    font = _font()
    if font.get_char_index(ord(letter)) == 0:
        return em
    # Hinting, which makes letters sharp, moves them to whole pixels.
    return float(round(font.load_char(ord(letter)).linearHoriAdvance / 65536))


@cache
def _font() -> Any:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    font = FT2Font(findfont("DejaVu Sans"))
    font.set_size(POINTS, DPI)
    return font
