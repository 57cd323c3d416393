"""Pictures of what a table's columns did: shap's own plots, of one row and of many."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from dlcli.evaluation.figure import BLUE, GREY, font_families, shorten
from dlcli.explain.record import Explained
from dlcli.explain.table.rows import cells_of, columns_of
from dlcli.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Columns with a line of their own; what the others add is shown as one."""

DPI = 110

MARGIN = 14
"""White pixels around each plot."""

FLAT = {
    "flat_map": "no column makes a difference",
    "not_finite": "the attributions are not finite numbers",
}
"""Status -> what is written where there is nothing to draw."""


def draw_row(explained: Sequence[Explained], path: Path) -> None:
    """One row by one method: a waterfall and a force plot where the values sum to the output, else bars.

    Args:
        explained: the row's explained classes, the first on top.
        path: of the picture, a PNG.
    """
    parts = [part for one in explained for part in _pictures_of_row(one)]
    width = max(part.width for part in parts)
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, ((width - part.width) // 2, top))
        top += part.height
    with atomic_path(path) as unfinished:
        whole.save(unfinished, "PNG")


def draw_columns(explained: Sequence[Explained], folder: Path, stem: str) -> list[Path]:
    """Many rows by one method: `STEM.bar.png`, the mean strength of each column, and `STEM.beeswarm.png`, every row.

    Args:
        explained: rows explained for one and the same output; those without a map are left out.
        folder: of the pictures.
        stem: of their names.

    Returns:
        The pictures; none of fewer than two rows, and the first alone of importances, which all rows share.
    """
    drawn = [one for one in explained if one.status == "ok"]
    if len({one.output for one in drawn}) > 1:
        raise ValueError("Expected explanations of one output. Received: several")
    if len(drawn) < 2:
        return []
    first, title = drawn[0], f"{drawn[0].method}: {_plain(drawn[0].class_name, 40)}, {len(drawn):,} rows"
    pictures = {"bar": _bars_with_deviations(first.method, first)} if _is_importance(first) else {}
    if not pictures:
        together = _explanation(drawn)
        for plot, meaning in (("bar", "mean size of the change"), ("beeswarm", "change")):

            def draw(plots: Any, plot: str = plot) -> None:
                getattr(plots, plot)(together, max_display=SHOWN, show=False)

            pictures[plot] = _with_shap(draw, title, f"{first.method}: {meaning} of the {first.scale}")
    paths = []
    for plot, picture in pictures.items():
        paths.append(folder / f"{stem}.{plot}.png")
        with atomic_path(paths[-1]) as unfinished:
            picture.save(unfinished, "PNG")
    return paths


def _is_importance(one: Explained) -> bool:
    """Whether it is of the model as a whole."""
    return "deviations" in one.attribution.settings


def _pictures_of_row(one: Explained) -> list[Image.Image]:
    title = _title(one)
    if one.status != "ok":
        return [_words(title, FLAT[one.status])]
    if _is_importance(one):
        return [_bars_with_deviations(title, one)]
    row = _explanation([one])[0]
    if one.attribution.base is None:
        label = f"{one.method}: change of the {one.scale}"
        return [_with_shap(lambda plots: plots.bar(row, max_display=SHOWN, show=False), title, label)]
    return [
        _with_shap(lambda plots: plots.waterfall(row, max_display=SHOWN, show=False), title),
        _with_shap(lambda plots: _force(plots, row), ""),
    ]


def _force(plots: Any, row: Any) -> None:
    names = [shorten(name, 16) for name in row.feature_names]
    values = np.array([f"{cell:.6g}" if isinstance(cell, float) else shorten(cell, 14) for cell in row.data])
    plots.force(
        float(row.base_values), row.values, values, names, matplotlib=True, show=False, figsize=(12, 2.6),
        contribution_threshold=0.1, text_rotation=12,
    )  # fmt: skip


def _title(one: Explained) -> str:
    """Who is explained, for what, how, and how far to believe it."""
    said = f"predicted {_plain(one.predicted, 40)}"
    if one.predicted_probability is not None:
        said += f" {100 * one.predicted_probability:.1f} %"
    what = f"explained {_plain(one.class_name, 40)}"
    if one.probability is not None:
        what += f" {100 * one.probability:.1f} %"
    lines = [
        _plain(Path(one.subject.name).name, 60),
        f"{said}; {what}; {one.method}" + ("" if _is_importance(one) else f" of the {one.scale}"),
    ]
    if one.trust is not None:
        lines.append(f"faithfulness {one.trust.faithfulness:+.2f}: {one.trust.verdict}")
    lines += [_plain(sentence, 110) for sentence in (*one.subject.notes, *one.attribution.warnings)]
    return "\n".join(lines)


def _explanation(explained: Sequence[Explained]) -> Any:
    """The form that shap's plots take: values (N, D)."""
    shap = _shap()
    cells = [cells_of(one.subject) for one in explained]
    many = len(explained) > 1
    data = np.array([[_cell(cell, many) for cell in row] for row in cells], float if many else object)
    bases = [one.attribution.base or 0.0 for one in explained]
    return shap.Explanation(
        np.stack([one.attribution.values for one in explained]).astype(np.float64),
        base_values=np.array(bases),
        data=data,
        feature_names=[_plain(name, 28) for name in columns_of(explained[0].subject)],
    )


def _cell(cell: float | str, many: bool) -> Any:
    """Beside a bar a cell is written as it is; the dots of many rows are coloured by numbers, words are grey."""
    if isinstance(cell, str):
        return np.nan if many else _plain(cell or "(empty)", 24)
    return cell


def _plain(text: str, length: int) -> str:
    r"""A name for shap's plots, whose own labels are formulas: `$` alone would begin one."""
    return shorten(text, length).replace("$", r"\$")


def _with_shap(draw: Callable[[Any], object], title: str, x_label: str | None = None) -> Image.Image:
    """What one of shap's plots draws, which goes to pyplot's current figure.

    Args:
        draw: gets `shap.plots`.
        title: above the plot.
        x_label: in the place of shap's own.
    """
    plots = _shap().plots
    with _own_figure() as plt, warnings.catch_warnings():
        # shap's own use of matplotlib and numpy, and names in a script that no font has.
        warnings.simplefilter("ignore")
        with _same_dots():
            draw(plots)
        figure = plt.gcf()
        if x_label is not None:
            figure.axes[0].set_xlabel(x_label)
        return _as_image(figure, title)


@contextmanager
def _same_dots() -> Iterator[None]:
    """A beeswarm shakes its dots with NumPy's global generator: seeded here, and left as it was."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _bars_with_deviations(title: str, one: Explained) -> Image.Image:
    """Permutation importance: mean and standard deviation of the repeats, the largest on top."""
    settings, names = one.attribution.settings, columns_of(one.subject)
    order = np.argsort(-one.attribution.values, kind="stable")[:SHOWN][::-1]
    what = "drop of" if settings["metric"].startswith("accuracy") else "rise of"
    with _own_figure() as plt:
        figure = plt.gcf()
        figure.set_size_inches(8, 0.32 * len(order) + 1)
        axes = figure.add_subplot()
        deviations = np.array(settings["deviations"])[order]
        axes.barh(range(len(order)), one.attribution.values[order], xerr=deviations, color=BLUE, ecolor=GREY)
        axes.set_yticks(range(len(order)), [_plain(names[index], 28) for index in order])
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel(
            f"{what} {settings['metric'].replace('_', ' ')} when shuffled, over {settings['rows']} rows"
        )
        axes.spines[["top", "right"]].set_visible(False)
        return _as_image(figure, title)


def _words(title: str, sentence: str) -> Image.Image:
    """Where there is nothing to draw."""
    with _own_figure() as plt:
        figure = plt.gcf()
        figure.set_size_inches(8, 1)
        figure.text(0.5, 0.4, sentence, ha="center", fontsize=11)
        return _as_image(figure, title)


@contextmanager
def _own_figure() -> Iterator[Any]:
    """Pyplot with an empty figure; all that the block opened is closed again, and no window appears."""
    import matplotlib
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    with matplotlib.rc_context({"font.family": font_families(), "font.size": 9}), plt.ioff():
        plt.figure()
        try:
            yield plt
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def _as_image(figure: Figure, title: str = "") -> Image.Image:
    """The figure, cut to what is drawn, its title above all of it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        if title:
            drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            figure.text(
                drawn.x0 / width, (drawn.y1 + 0.12) / height, title, fontsize=9, va="bottom", ha="left"
            )
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    buffer.seek(0)
    image = Image.open(buffer, formats=("PNG",)).convert("RGB")
    # Axes that shap has hidden are still in the tight box.
    left, top, right, bottom = ImageOps.invert(image).getbbox() or (0, 0, *image.size)
    return ImageOps.expand(image.crop((left, top, right, bottom)), MARGIN, "white")


def _shap() -> Any:
    """The package; imported late, since it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    return shap
