"""Words -> lines of a picture: where each stands, in pixels."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

FONT_SIZE = 10
"""Points."""

LONGEST = 60
"""Characters; what is longer is broken."""

_TOKENS = re.compile(r"\n|[^\S\n]+|\S+")


@dataclass(frozen=True)
class Piece:
    """A text in one colour."""

    text: str
    color: str | None = None
    """Behind it."""
    ink: str = "#000000"


Line = list[tuple[float, float, Piece]]
"""Left edge and width in pixels, and what stands there."""


def lines_of(pieces: Sequence[Piece], width: float, dpi: int) -> list[Line]:
    """Breaks a text into lines, at white space and between pieces.

    Args:
        pieces: the text, in its order.
        width: of a line, in pixels.
        dpi: dots per inch.
    """
    lines: list[Line] = [[]]
    left = 0.0
    for piece in _parts(pieces):
        if piece.text == "\n":
            if lines[-1] or len(lines) == 1 or lines[-2]:  # of several empty lines one is enough
                lines.append([])
            left = 0.0
            continue
        wide = width_of(piece.text, dpi)
        if piece.color is None and piece.text.isspace():
            left += min(wide, width_of("    ", dpi)) if lines[-1] else 0.0
            continue
        if left + wide > width and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((left, wide, piece))
        left += wide
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return lines


def _parts(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Pieces without line ends inside, none too long for a line; line ends stand alone."""
    for piece in pieces:
        for token in _TOKENS.findall(piece.text):
            for start in range(0, len(token), LONGEST):
                yield replace(piece, text=token[start : start + LONGEST])


@lru_cache(maxsize=20_000)
def width_of(text: str, dpi: int) -> float:
    """Pixels that a text takes; of white space too, which drawn alone has no width."""
    if text.isspace():
        return width_of(f"x{text.expandtabs(4)}x", dpi) - width_of("xx", dpi)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        return float(_renderer(dpi).get_text_width_height_descent(text, _font(), ismath=False)[0])


@lru_cache(maxsize=2)
def _renderer(dpi: int) -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(16, 16, dpi)


@lru_cache(maxsize=1)
def _font() -> Any:
    from matplotlib.font_manager import FontProperties

    from dlcli.evaluation.figure import font_families

    return FontProperties(family=font_families(), size=FONT_SIZE)
