"""A text's words in the colours of their attributions: as HTML, on a terminal, and as a picture (`layout.py`).

Red speaks for the class and blue against it; where nothing can speak against it, as with attention, there is orange
alone. The strongest words are named as well, for those who see no colours and for long texts.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.style import Style
from rich.text import Text

from dlcli.data.text.words import gap_before, is_word
from dlcli.evaluation.figure import GREY, RED, STYLE, font_families, percent, save_figure, shorten
from dlcli.explain.image.heat import DIVERGING, Scale
from dlcli.explain.image.picture import trust_sentences
from dlcli.explain.record import Explained
from dlcli.explain.text.layout import Line, Piece, lines_of
from dlcli.explain.text.words import sums_of_words

SEQUENTIAL = "Oranges"
"""Of attributions that cannot be negative; unlike the one of images it begins with white, on which words are read."""

STRONGEST = 5
"""Words for a class, and against it, that are named beside the colours."""

FAINT = 0.04
"""Words with a smaller share of the strongest word's attribution get no colour."""

WORDS_DRAWN = 2000
"""Words in a picture; longer texts end with how many more there are."""

_SIGNS = {"\n": "⏎\n", "\r": "", "\t": "→", " ": "␣"}
_DPI, _WIDTH, _MARGIN, _LINE, _LINE_OF_TEXT = 120, 960, 24, 20, 26
_CHARACTERS = 108
"""In a line of the picture."""


@dataclass(frozen=True)
class Coloured:
    """A word, what stands before it, and its attribution."""

    before: str
    word: str
    """As it is shown: line ends and spaces that are words of their own have signs."""
    value: float
    color: str | None
    """`#rrggbb` behind the word; None for the paper's own."""
    ink: str
    """Of the letters: what is readable on `color`."""


def scale_of_words(explained: Explained) -> Scale | None:
    """What the colours stand for, by the words' sums; None where there is nothing to show."""
    if explained.attribution.problem:
        return None
    sums = sums_of_words(explained.subject, explained.attribution.values)
    high = float(np.abs(sums).max(initial=0))
    if high == 0:
        return None
    if explained.attribution.signed:
        return Scale(-high, high, DIVERGING, 0.0)
    return Scale(0.0, high, SEQUENTIAL, 0.0)


def coloured_words(explained: Explained) -> Iterator[Coloured]:
    """The words in their order; all without colour where there is nothing to show."""
    scale = scale_of_words(explained)
    subject = explained.subject
    sums = sums_of_words(subject, np.nan_to_num(explained.attribution.values))
    between = subject.original or _usual_gaps(subject.words)
    for before, word, value in zip(between, subject.words, sums.tolist(), strict=False):
        color, ink = _color(value, scale)
        yield Coloured(before, shown(word), value, color, ink)


def html_text(explained: Explained) -> str:
    """An HTML fragment: coloured words with their attributions as tooltips, then the strongest ones.

    Everything from elsewhere is escaped; there are no links, scripts or classes, so it can stand in any page.
    """
    parts = []
    for each in coloured_words(explained):
        word = html.escape(each.word)
        if each.color is not None:
            word = f'<span style="background:{each.color};color:{each.ink}" title="{each.value:+.3g}">{word}</span>'
        parts.append(html.escape(each.before) + word)
    if explained.subject.original:
        parts.append(html.escape(explained.subject.original[-1]))
    note = "".join(f"<br><small>{html.escape(line)}</small>" for line in _summary(explained))
    return f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere">{"".join(parts)}</div>{note}'


def terminal_text(explained: Explained) -> Text:
    """For a terminal: what is explained, the coloured words, the strongest ones."""
    text = Text()
    text.append(f"{shorten(explained.subject.name, 80)}\n", Style(dim=True))
    text.append(f"{_title(explained)}\n", Style(bold=True))
    for each in coloured_words(explained):
        text.append(_harmless(each.before))
        style = Style(color=each.ink, bgcolor=each.color) if each.color else Style()
        text.append(_harmless(each.word), style)
    for line in _summary(explained):
        text.append(f"\n{_harmless(line)}", Style(italic=True))
    return text.append("\n")


def draw_text(explained: Sequence[Explained], path: Path) -> list[Scale | None]:
    """Draws explanations of one text by one method, one below the other for each class.

    Args:
        explained: of one subject.
        path: of the picture, in the format of its suffix.

    Returns:
        What the colours of each stand for; None for those without colours.

    Raises:
        ValueError: nothing was given, or explanations of several subjects.
    """
    if not explained or any(one.subject is not explained[0].subject for one in explained):
        raise ValueError(
            f"Expected explanations of one subject. Received {len(explained)} of several or none"
        )
    import matplotlib

    scales = [scale_of_words(one) for one in explained]
    with matplotlib.rc_context({**STYLE, "font.family": _fonts()}):
        blocks = [_block(one) for one in explained]
        header = _header(explained[0])
        height = 2 * _MARGIN + _LINE * len(header) + sum(block.height for block in blocks)
        figure = _figure(height)
        top = _draw_lines(figure, header, _MARGIN, height)
        for block, scale in zip(blocks, scales, strict=True):
            top = _draw_block(figure, block, scale, top, height)
        save_figure(figure, path, dpi=_DPI)
    return scales


@dataclass(frozen=True)
class _Block:
    """One explanation in the picture."""

    title: str
    lines: list[Line]
    below: list[tuple[str, str]]
    """Lines under the words, with their colours."""

    @property
    def height(self) -> int:
        return 3 * _LINE + 18 + _LINE_OF_TEXT * len(self.lines) + _LINE * len(self.below)


def _block(explained: Explained) -> _Block:
    pieces: list[Piece] = []
    words = list(coloured_words(explained))
    for each in words[:WORDS_DRAWN]:
        pieces += [Piece(each.before), Piece(each.word, each.color, each.ink)]
    if len(words) > WORDS_DRAWN:
        pieces.append(Piece(f" ... and {len(words) - WORDS_DRAWN} words more", None, GREY))
    said = [(line, "black") for line in (*_summary(explained), *trust_sentences(explained))]
    said += [(" ".join(warning.split()), RED) for warning in explained.attribution.warnings]
    below = [(line, color) for text, color in said for line in textwrap.wrap(text, _CHARACTERS)]
    return _Block(_title(explained), lines_of(pieces, _WIDTH - 2 * _MARGIN, _DPI), below)


def _header(explained: Explained) -> list[tuple[str, str]]:
    said = f"predicted: {shorten(shown(explained.predicted), 60)}"
    if explained.predicted_probability is not None:
        said += f", {percent(explained.predicted_probability)}"
    if explained.subject.truth is not None:
        said += f"; true: {shorten(explained.subject.truth, 60)}"
    notes = textwrap.wrap("; ".join(explained.subject.notes), _CHARACTERS)[:2]
    name = shorten(explained.subject.name, _CHARACTERS - 10)
    return [(name, "black"), (said, "black"), *((note, GREY) for note in notes)]


def _figure(height: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def _draw_lines(figure: Any, lines: Sequence[tuple[str, str]], top: int, height: int) -> int:
    for line, color in lines:
        figure.text(_MARGIN / _WIDTH, 1 - top / height, line, color=color, va="top", fontsize=9)
        top += _LINE
    return top


def _draw_block(figure: Any, block: _Block, scale: Scale | None, top: int, height: int) -> int:
    """Draws from `top` on, and returns where it ended; pixels are counted from above."""
    from matplotlib.patches import Rectangle

    top += _LINE
    figure.text(_MARGIN / _WIDTH, 1 - top / height, block.title, va="top", fontsize=10)
    if scale is not None:
        _draw_bar(figure, scale, top, height)
    top += _LINE + 10
    for line in block.lines:
        for left, width, piece in line:
            x, base = (_MARGIN + left) / _WIDTH, 1 - (top + 18) / height
            if piece.color is not None:
                corner = (x, 1 - (top + 23) / height)
                figure.add_artist(
                    Rectangle(corner, width / _WIDTH, 22 / height, color=piece.color, linewidth=0)
                )
            figure.text(x, base, piece.text, color=piece.ink, va="baseline", fontsize=10)
        top += _LINE_OF_TEXT
    return _draw_lines(figure, block.below, top + 8, height)


def _draw_bar(figure: Any, scale: Scale, top: int, height: int) -> None:
    """The colours from the lowest value to the highest, with both numbers, at the right of the title."""
    from matplotlib import colormaps

    width, left = 120, _WIDTH - _MARGIN - 120 - 66
    places = np.linspace(0, 1, width)[None]
    pixels = np.rint(255 * colormaps[scale.colors](places)[..., :3]).astype(np.uint8).repeat(12, axis=0)
    figure.figimage(pixels, left, height - top - 14, origin="upper")
    marks = ((left - 6, f"{scale.low:.3g}", "right"), (left + width + 6, f"{scale.high:.3g}", "left"))
    for x, label, side in marks:
        figure.text(x / _WIDTH, 1 - top / height, label, ha=side, va="top", fontsize=8, color=GREY)


def _title(one: Explained) -> str:
    """The method, and what it explains with which number."""
    title = f"{one.method}: why {shorten(shown(one.class_name), 40)}?"
    if one.probability is not None:
        title += f"  probability {percent(one.probability)}"
    return title if one.scale == "probability" else f"{title}  {one.scale} {one.value:.4g}"


def _summary(explained: Explained) -> list[str]:
    """The strongest words in words; or why no word has a colour."""
    if explained.status == "not_finite":
        return ["No colours: attributions are NaN or infinite; another method may work."]
    if scale_of_words(explained) is None or explained.status == "flat_map":
        return [
            "No colours: the map is flat, no word matters more than another; another method may tell more."
        ]
    words = list(coloured_words(explained))
    order = sorted(range(len(words)), key=lambda index: -words[index].value)
    lines = []
    for side, places in (("for", order), ("against", order[::-1])):
        sign = 1 if side == "for" else -1
        named = [words[place] for place in places[:STRONGEST] if words[place].value * sign > 0]
        if named:
            what = side if explained.attribution.signed else "most"
            lines.append(f"{what}: " + ", ".join(f"{_named(each.word)} {each.value:+.2g}" for each in named))
    return ["; ".join(lines)]


def _named(word: str) -> str:
    """A word in a list of words: marks of punctuation stand in quotes."""
    short = shorten(word, 30)
    return short if is_word(short) else f'"{short}"'


def _color(value: float, scale: Scale | None) -> tuple[str | None, str]:
    """Behind a word, and of its letters."""
    if scale is None or abs(value) < FAINT * scale.high:
        return None, "#000000"
    place = (value - scale.low) / (scale.high - scale.low)
    color = _colors(scale.colors)[round(255 * min(max(place, 0.0), 1.0))]
    # Rec. 709 luma; in the middle black and white are about as readable.
    dark = float(color @ (0.2126, 0.7152, 0.0722)) < 120
    return "#{:02x}{:02x}{:02x}".format(*color), "#ffffff" if dark else "#000000"


@cache
def _colors(name: str) -> np.ndarray:
    """uint8 (256, 3)."""
    from matplotlib import colormaps

    return np.rint(255 * colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)


def shown(word: str) -> str:
    """A word as people see it: of white space alone, signs for it."""
    return word if word.strip() else "".join(_SIGNS.get(letter, "␣") for letter in word)


def _usual_gaps(words: Sequence[str]) -> tuple[str, ...]:
    """What usually stands before each word, where nobody kept it."""
    gaps = [gap_before(word) if is_word(word) else "" for word in words]
    return ("", *gaps[1:], "")


def _harmless(text: str) -> str:
    """Without characters that could steer a terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())


@cache
def _fonts() -> list[str]:
    return font_families()
