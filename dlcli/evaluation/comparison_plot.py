"""The learning curves of several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcli.evaluation.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, drawing, hide_axes, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
"""The next one each time that the colours are used up."""

_MOST_MARKED = 30
"""Epochs; the marks of more would hide the lines."""

Columns = Mapping[str, Sequence[float]]


def plot_comparison(histories: Mapping[str, Columns], path: Path) -> None:
    """One panel for the loss and each metric: a colour for each run, whole lines of validation, dashed of train.

    Args:
        histories: name of a run -> columns of its history; `val_` marks validation.
        path: where the picture goes.
    """
    panels = _panels(histories)
    if not panels:
        raise ValueError(f"Expected histories with a loss. Received {list(histories)}")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with drawing(max(6.0, 4.2 * columns), 3.2 * rows + 0.2 * len(histories) + 0.4, path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            hide_axes(axes)
        for axes, name in zip(grid, panels, strict=False):
            for number, history in enumerate(histories.values()):
                _draw(axes, history, name, _style(number))
            _finish(axes, name)
        lines = [
            grid[0].plot([], [], label=shorten(name, 60), **_style(number))[0]
            for number, name in enumerate(histories)
        ]
        held_out = any(name.startswith("val_") for history in histories.values() for name in history)
        title = "dashed: train" if held_out else None
        figure.legend(handles=lines, loc="outside lower center", fontsize=8, title=title, title_fontsize=8)


def _style(number: int) -> dict[str, Any]:
    """Of the curves of one run."""
    turn, colour = divmod(number, len(_COLOURS))
    return {"color": _COLOURS[colour], "marker": _MARKS[turn % len(_MARKS)], "markersize": 3}


def _draw(axes: Axes, history: Columns, name: str, style: dict[str, Any]) -> None:
    held_out = history.get(f"val_{name}")
    for values, dashed in ((held_out, False), (history.get(name), held_out is not None)):
        if values is None:
            continue
        line = {"linestyle": "--", "linewidth": 1.0, "alpha": 0.7} if dashed else {}
        marker = style["marker"] if len(values) <= _MOST_MARKED else None
        axes.plot(range(1, len(values) + 1), values, **{**style, **line, "marker": marker})


def _finish(axes: Axes, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(title=name.replace("_", " "), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _panels(histories: Mapping[str, Columns]) -> list[str]:
    """Names of what is drawn, without `val_`; the loss comes first."""
    names = dict.fromkeys(name.removeprefix("val_") for history in histories.values() for name in history)
    kept = [name for name in names if name != "epoch" and not name.endswith("learning_rate")]
    return sorted(kept, key=lambda name: name != "loss")
