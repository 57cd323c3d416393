"""The picture of an image's explanations: original, heatmap and overlay side by side, and how far to believe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcli.evaluation.figure import GREY, RED, STYLE, font_families, percent, save_figure, shorten
from dlcli.explain.image.heat import Scale, heatmap, overlay, picture_of, resized, scale_of
from dlcli.explain.image.lettering import DPI, POINTS, beginning, ending, wrapped
from dlcli.explain.record import Explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 288
"""Pixels of an image's longer side in the picture: 9 for each of a 32x32 image."""

_MARGIN, _GAP = 24, 20
_BAR = 16
_BAR_LABELS = 96
_LEAST_COLUMN = 170
"""A narrow image still leaves room for the words above it."""
_LINE = 20
_TITLE_POINTS = 10

_SCORES = {"r2": "R2 {:.2f}", "segments": "{:.0f} segments"}


def draw_image(explained: Sequence[Explained], path: Path) -> list[Scale | None]:
    """Draws explanations of one image by one method, a row for each class.

    A map that is flat or not finite is said in words; a blank heatmap would be taken for "nothing matters".

    Args:
        explained: of one subject.
        path: of the picture, in the format of its suffix.

    Returns:
        What the colours of each row stand for; None for rows without a heatmap.

    Raises:
        ValueError: nothing was given, or explanations of several subjects.
    """
    if not explained or any(one.subject is not explained[0].subject for one in explained):
        raise ValueError(
            f"Expected explanations of one subject. Received {len(explained)} of several or none"
        )
    import matplotlib

    subject = explained[0].subject
    picture = picture_of(subject)
    height, width = _panel_size(*picture.shape[:2])
    picture = resized(picture, height, width)
    column = max(width, _LEAST_COLUMN)
    total = 2 * _MARGIN + 3 * column + 3 * _GAP + _BAR + _BAR_LABELS
    room = total - 2 * _MARGIN
    header = _header(explained[0], room)
    rows = [_Row(one, scale_of(one.attribution), _below(one, room)) for one in explained]
    heights = [3 * _LINE + height + _LINE * len(row.below) + _GAP for row in rows]
    with matplotlib.rc_context({**STYLE, "font.family": _fonts()}):
        sheet = _Sheet(total, _MARGIN + _LINE * len(header) + 12 + sum(heights))
        sheet.lines(_MARGIN, _MARGIN, header)
        top = _MARGIN + _LINE * len(header) + 12
        for row, taken in zip(rows, heights, strict=True):
            _draw_row(sheet, row, picture, top, column)
            top += taken
        save_figure(sheet.figure, path, dpi=DPI)
    return [row.scale for row in rows]


@dataclass(frozen=True)
class _Row:
    one: Explained
    scale: Scale | None
    below: list[tuple[str, str]]
    """Lines under the panels, with their colours."""


class _Sheet:
    """A figure on which things stand at exact pixels, counted from the upper left corner.

    Axes would resample the pixels of a small image, and cost most of the time.
    """

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        # A quarter of a pixel more, because the canvas rounds down.
        self.figure: Figure = Figure(figsize=((width + 0.25) / DPI, (height + 0.25) / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)

    def image(self, x: int, y: int, pixels: np.ndarray) -> None:
        """Pixels uint8 (H, W, 3), as they are."""
        self.figure.figimage(pixels, x, self.height - y - pixels.shape[0], origin="upper")

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """A line whose letters begin below y."""
        style = {"va": "top", "fontsize": POINTS, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def lines(self, x: float, y: float, lines: Sequence[tuple[str, str]]) -> None:
        """Lines below each other, each with its colour."""
        for number, (text, color) in enumerate(lines):
            self.text(x, y + number * _LINE, text, color=color)

    def frame(self, x: int, y: int, width: int, height: int) -> None:
        """A thin line around a panel."""
        from matplotlib.patches import Rectangle

        corner = (x / self.width, 1 - (y + height) / self.height)
        self.figure.add_artist(
            Rectangle(corner, width / self.width, height / self.height, fill=False, color=GREY, linewidth=0.6)
        )


def _draw_row(sheet: _Sheet, row: _Row, picture: np.ndarray, top: int, column: int) -> None:
    height, width = picture.shape[:2]
    one, lefts = row.one, [_MARGIN + number * (column + _GAP) for number in range(3)]
    sheet.text(_MARGIN, top, _title(one, 3 * column + 3 * _GAP + _BAR + _BAR_LABELS), fontsize=_TITLE_POINTS)
    top += _LINE + 6
    rows, columns = one.subject.inputs.shape[:2]
    read_as = "input" if one.subject.original is None else "original, read as"
    sheet.text(lefts[0], top, f"{read_as} {columns}x{rows}", color=GREY)
    panels = top + _LINE
    sheet.image(lefts[0], panels, picture)
    sheet.frame(lefts[0], panels, width, height)
    if row.scale is None:
        sheet.text(lefts[1], top, "no heatmap", color=RED)
        for number, line in enumerate(wrapped(_why_not(one), 2 * column + _GAP)):
            sheet.text(lefts[1], panels + number * _LINE, line)
    else:
        sheet.text(lefts[1], top, "attribution", color=GREY)
        sheet.text(lefts[2], top, "overlay", color=GREY)
        values = resized(one.attribution.values, height, width)
        for left, pixels in zip(
            lefts[1:], (heatmap(values, row.scale), overlay(picture, values, row.scale)), strict=True
        ):
            sheet.image(left, panels, pixels)
            sheet.frame(left, panels, width, height)
        _draw_bar(sheet, row, lefts[2] + column + _GAP, panels, height)
    sheet.lines(_MARGIN, panels + height + 8, row.below)


def _draw_bar(sheet: _Sheet, row: _Row, left: int, top: int, height: int) -> None:
    """The colours from the highest value to the lowest, with numbers beside them."""
    scale = row.scale
    if scale is None:
        return
    height = max(height, 3 * _LINE)
    steps = np.linspace(scale.high, scale.low, height)[:, None]
    sheet.image(left, top, heatmap(np.repeat(steps, _BAR, axis=1), scale))
    sheet.frame(left, top, _BAR, height)
    beyond = "≥ " if scale.clipped else ""
    marks = [(0.0, f"{beyond}{scale.high:.3g}", "top"), (1.0, _rounded(scale.low, scale.high), "bottom")]
    if scale.low < 0:
        marks[1] = (1.0, f"{'≤ ' if scale.clipped else ''}{scale.low:.3g}", "bottom")
        marks.append((0.5, "0", "center"))
        sheet.text(left + _BAR + 8, top + _LINE, "for", color=GREY)
        sheet.text(left + _BAR + 8, top + height - _LINE, "against", color=GREY, va="bottom")
    for place, label, side in marks:
        sheet.text(left + _BAR + 8, top + place * height, label, va=side)


def _header(one: Explained, room: int) -> list[tuple[str, str]]:
    """Which image, what the model says of it, and what was done to it."""
    said = f"predicted: {shorten(one.predicted, 60)}"
    if one.predicted_probability is not None:
        said += f", {percent(one.predicted_probability)}"
    lines = [(ending(shorten(one.subject.name, 10_000), room), "black"), (beginning(said, room), "black")]
    notes = wrapped(shorten("; ".join(one.subject.notes), 1000), room)[:2] if one.subject.notes else []
    return lines + [(note, GREY) for note in notes]


def _title(one: Explained, room: int) -> str:
    """The method, and what it explains with which number."""
    title = f"{one.method}: why {shorten(one.class_name, 40)}?"
    if one.probability is not None:
        title += f"  probability {percent(one.probability)}"
    if one.scale != "probability":
        title += f"  {one.scale} {one.value:.4g}"
    return beginning(title, room * POINTS / _TITLE_POINTS)


def _below(one: Explained, room: int) -> list[tuple[str, str]]:
    lines = [(line, "black") for said in trust_sentences(one) for line in wrapped(said, room)]
    for warning in one.attribution.warnings:
        lines += [(line, RED) for line in wrapped(shorten(warning, 1000), room)]
    return lines


def trust_sentences(one: Explained) -> list[str]:
    """How far to believe an explanation, for people; `Faithfulness +0.31, better than random ...` is the first line."""
    if one.trust is None:
        lines = ["Faithfulness not measured"] if one.status == "ok" else []
    else:
        trust = one.trust
        lines = [
            f"Faithfulness {trust.faithfulness:+.2f}, {trust.verdict} (insertion {trust.insertion:.2f}, random "
            f"{trust.random_insertion:.2f}; deletion {trust.deletion:.2f}, random {trust.random_deletion:.2f})"
        ]
    details = []
    if one.trust is not None and one.trust.stability is not None:
        details.append(f"stability over seeds {one.trust.stability:.2f}")
    if one.trust is not None and one.trust.completeness is not None:
        details.append(f"sum of attributions off by {percent(one.trust.completeness)}")
    scores = one.attribution.scores
    details += [form.format(scores[name]) for name, form in _SCORES.items() if name in scores]
    joined = "; ".join(details)
    return lines + ([joined[0].upper() + joined[1:]] if joined else [])


def _why_not(one: Explained) -> str:
    values = np.asarray(one.attribution.values)
    if one.status == "not_finite":
        bad = int((~np.isfinite(values)).sum())
        return (
            f"{bad} of {values.size} attributions are NaN or infinite. The model's numbers or their gradients overflow "
            f"for this image; another method may work."
        )
    return (
        f"The map is flat: every pixel has the same attribution ({float(values.flat[0]):.3g}), so {one.method} finds "
        f"no place that matters more than another. It says nothing about why; another method may."
    )


def _rounded(low: float, high: float) -> str:
    """0 where the colours cannot tell it from 0."""
    return f"{low:.3g}" if abs(low) > 0.001 * abs(high) else "0"


def _panel_size(height: int, width: int) -> tuple[int, int]:
    """Of the panels: a multiple of the image's own size where that is small."""
    factor: float = PANEL / max(height, width)
    if factor >= 2:
        factor = int(factor)
    return max(8, round(factor * height)), max(8, round(factor * width))


@cache
def _fonts() -> list[str]:
    return font_families()
