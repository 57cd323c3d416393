"""The one look of dlcli's pictures, and how a picture reaches its file: whole or not at all."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcli.errors import DlcliError
from dlcli.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED, GREY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F", "#CC79A7"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "savefig.dpi": 120,
    "text.parse_math": False,  # a class named "$x_1$" is a name, not a formula
}
_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
# Fonts for names that DejaVu Sans cannot write, where the machine has them.
_FALLBACK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "WenQuanYi Micro Hei", "Hiragino Sans",
    "PingFang SC", "Microsoft YaHei", "Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji",
)  # fmt: skip


@contextmanager
def drawing(width: float, height: float, path: Path) -> Iterator[Figure]:
    """An empty figure of `width` x `height` inches, saved as `path` when the block ends without an error.

    No pyplot: no window system, no figures that stay in memory.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "font.family": font_families()}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        save_figure(figure, path)


def check_picture(path: Path) -> None:
    """Refuses a name whose suffix is no format of pictures; call it before any work.

    Raises:
        DlcliError: the message names the formats.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise DlcliError(f"--out {path}: expected a file name that ends with {', '.join(_SUFFIXES)}")


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Saves in the format of the path's suffix, whole or not at all; `options` are those of `savefig`."""
    with atomic_path(path) as unfinished, warnings.catch_warnings():
        # A name in a script that no installed font has is drawn as boxes; that is no reason to alarm anyone.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(unfinished, format=path.suffix[1:] or "png", **options)


def font_families() -> list[str]:
    """The style's own font, and those that this machine has for other scripts."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def shorten(name: object, length: int = 24) -> str:
    """A class name for a label: one line, at most `length` characters, an ellipsis where it was cut."""
    text = " ".join(str(name).split())
    text = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co"))
    if len(text) > length:
        return text[: length - 1].rstrip() + "…"
    return text or "(no name)"


def label_classes(axis: Any, names: Sequence[str], inches: float, length: int = 24, **text: Any) -> None:
    """Ticks 0..K-1 of a matplotlib axis named after the classes, in a size that fits; else every n-th.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
        names: K names.
        inches: How long the axis is.
        length: Longest name in characters.
        text: For the labels (`rotation`).
    """
    points = 72 * inches / max(len(names), 1)  # height that each name may take
    step = max(1, int(-(-5.5 // points)))
    size = min(9.0, max(4.5, 0.8 * points * step))
    ticks = range(0, len(names), step)
    axis.set_ticks(ticks, [shorten(names[tick], length) for tick in ticks], fontsize=size, **text)


def percent(value: float | None) -> str:
    """0.6712 -> '67.1 %'."""
    return "undefined" if value is None else f"{100 * value:.1f} %"


def plain_numbers(axis: Any) -> None:
    """0.0002 at the ticks, not 2.0 with a factor in the corner."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def hide_axes(axes: Axes) -> None:
    """Nothing but the picture."""
    axes.set_axis_off()
    axes.grid(visible=False)
