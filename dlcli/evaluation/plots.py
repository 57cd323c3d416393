"""Reports, curves and images as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlcli.evaluation import metrics as scores
from dlcli.evaluation.figure import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RED,
    drawing,
    hide_axes,
    label_classes,
    percent,
    plain_numbers,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST_SIDE = 24.0  # inches
_MOST_COUNTED = 30  # classes whose counts fit into the cells
_MOST_BARS = 200
_MOST_POINTS = 5000


def plot_confusion_matrix(report: Mapping[str, Any], path: Path) -> None:
    """The confusion matrix, coloured by the share of the true class; counts are written in where they fit.

    Args:
        report: Has `confusion_matrix` (K, K) and `class_names`.
        path: Where the picture goes.
    """
    from matplotlib.colors import PowerNorm

    counts, names = np.asarray(report["confusion_matrix"]), report["class_names"]
    classes = len(names)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.where(support > 0, counts / np.maximum(support, 1), np.nan)
    cells = min(_LARGEST_SIDE - 3, max(3.0, 0.55 * classes if classes <= 20 else 6 + 0.1 * classes))
    longest = max(len(shorten(name)) for name in names)
    margin = 1.0 + 0.07 * longest * (1.0 if classes <= _MOST_COUNTED else 0.6)
    with drawing(cells + margin + 0.6, cells + margin, path) as figure:
        axes = figure.add_subplot()
        # Where no counts fit, the square root of the share keeps rare confusions visible.
        scale = PowerNorm(1.0 if classes <= _MOST_COUNTED else 0.5, vmin=0, vmax=1)
        image = axes.imshow(shares, cmap="Blues", norm=scale, interpolation="nearest")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        label_classes(axes.yaxis, names, cells)
        label_classes(axes.xaxis, names, cells, rotation=90 if longest > 3 or classes > 20 else 0)
        axes.set(xlabel="predicted", ylabel="true")
        accuracy = counts.trace() / max(counts.sum(), 1)
        axes.set_title(f"Confusion matrix · {counts.sum():,} examples · accuracy {percent(accuracy)}")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        if classes <= _MOST_COUNTED:
            _write_counts(axes, counts, shares, points=72 * cells / classes)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, points: float) -> None:
    digits = len(str(counts.max()))
    size = min(9.0, 0.9 * points / (0.62 * max(digits, 2)))
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.55 else "#333333"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=size)


def plot_calibration(probabilities: np.ndarray, targets: np.ndarray, path: Path) -> None:
    """Reliability diagram (Guo et al. 2017, figure 1) over the number of examples in each bin.

    Args:
        probabilities: (N, K).
        targets: (N,) class indices.
        path: Where the picture goes.
    """
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = scores.calibration_bins(confidence)
    counts = np.bincount(bins, minlength=scores.CALIBRATION_BINS)
    filled = np.flatnonzero(counts)
    sums = [np.bincount(bins, values, scores.CALIBRATION_BINS)[filled] for values in (correct, confidence)]
    accuracy, mean_confidence = (values / counts[filled] for values in sums)
    error = (counts[filled] * np.abs(accuracy - mean_confidence)).sum() / len(targets)
    width = 1 / scores.CALIBRATION_BINS
    with drawing(5, 5.6, path) as figure:
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        left = filled * width
        upper.bar(
            left, accuracy, width, align="edge", color=BLUE, alpha=0.55, edgecolor="white", label="accuracy"
        )
        upper.plot(mean_confidence, accuracy, "o", color=RED, markersize=4, label="at the mean confidence")
        upper.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfectly calibrated")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        upper.set_title(f"Expected calibration error {error:.3f} · {len(targets):,} examples")
        upper.legend(loc="upper left", fontsize=8)
        lower.bar(left, counts[filled], width, align="edge", color=GREY, edgecolor="white")
        lower.set(xlabel="confidence", ylabel="examples")
        lower.yaxis.set_major_locator(_whole_numbers(3))


# Behind a number that the line of the average would cross.
_PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def plot_per_class(report: Mapping[str, Any], path: Path) -> None:
    """F1 of each class as bars, best first, with its number of examples; the 200 worst of more.

    Args:
        report: Has `per_class`, and `metrics` with `macro_f1`.
        path: Where the picture goes.
    """
    # Classes that are absent from the split have no F1 and stand last.
    rows = sorted(report["per_class"], key=lambda row: (row["f1"] is None, -(row["f1"] or 0)))
    shown = rows if len(rows) <= _MOST_BARS else [row for row in rows if row["f1"] is not None][-_MOST_BARS:]
    height = min(_LARGEST_SIDE, 1.4 + max(0.11, 0.3 - 0.002 * len(shown)) * len(shown))
    values = [row["f1"] or 0.0 for row in shown]
    names = [f"{shorten(row['name'], 30)} ({row['support']:,})" for row in shown]
    macro = report["metrics"]["macro_f1"]
    with drawing(6.5, height, path) as figure:
        axes = figure.add_subplot()
        axes.barh(range(len(shown)), values, color=BLUE, height=0.75)
        label_classes(axes.yaxis, names, height - 1.2, length=45)
        size = axes.yaxis.get_ticklabels()[0].get_fontsize()
        for position, row in enumerate(shown):
            text = "absent" if row["f1"] is None else f"{row['f1']:.2f}"
            axes.text(
                values[position] + 0.01,
                position,
                text,
                va="center",
                fontsize=size,
                color="#333333",
                bbox=_PAPER,
            )
        if macro is not None:
            axes.axvline(macro, color=RED, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1.1), ylim=(len(shown) - 0.4, -0.6), xlabel="F1")
        axes.grid(visible=False, axis="y")
        which = "" if len(shown) == len(rows) else f" (the lowest {len(shown)} of {len(rows)})"
        axes.set_title(f"F1 by class{which}" + ("" if macro is None else f" · macro F1 {macro:.3f} (dashed)"))


def plot_regression(predictions: np.ndarray, targets: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Predicted against true values, and the residuals, one row for each target.

    Args:
        predictions: (N, K) or (N,).
        targets: (N, K) or (N,).
        names: K names.
        path: Where the picture goes.
    """
    predictions, targets = scores.check_values(predictions, targets, names)
    if len(targets) > _MOST_POINTS:
        chosen = np.random.default_rng(0).choice(len(targets), _MOST_POINTS, replace=False)
    else:
        chosen = np.arange(len(targets))
    with drawing(8, 3.6 * len(names), path) as figure:
        grid = figure.subplots(len(names), 2, squeeze=False)
        for column, (name, (left, right)) in enumerate(zip(names, grid, strict=True)):
            report = scores.regression_report(predictions[:, column], targets[:, column], [name])["metrics"]
            predicted, true = predictions[chosen, column], targets[chosen, column]
            r2 = "undefined" if report["r2"] is None else f"{report['r2']:.3f}"
            low, high = min(predicted.min(), true.min()), max(predicted.max(), true.max())
            style = {"s": 12, "color": BLUE, "alpha": 0.8 if len(chosen) < 500 else 0.3, "linewidths": 0}
            left.scatter(true, predicted, **style)
            left.plot([low, high], [low, high], "--", color=GREY, linewidth=1)
            left.set(xlabel="true", ylabel="predicted", title=f"{shorten(name, 30)} · R² {r2}")
            right.scatter(predicted, true - predicted, **style)
            right.axhline(0, linestyle="--", color=GREY, linewidth=1)
            right.set(xlabel="predicted", ylabel="residual (true - predicted)")
            right.set_title(f"residuals · MAE {report['mae']:.4g}, RMSE {report['rmse']:.4g}")


def plot_learning_curves(history: Mapping[str, Sequence[float]], path: Path, best_epoch: int | None) -> None:
    """Loss and metrics of each epoch on train and validation data, and the learning rate below them.

    Args:
        history: Name -> one value an epoch; `val_` marks validation, `learning_rate` the rate, `PLAYER_learning_rate`
            those of networks that learn against each other, whose losses and scores stand in one panel each.
        path: Where the picture goes.
        best_epoch: Counted from 1, or None.
    """
    panels = _panels(history)
    if not panels:
        raise ValueError(f"Expected a history with a loss. Received {list(history)}")
    rates = {name: values for name, values in history.items() if name.endswith("learning_rate")}
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with drawing(max(5.5, 4.2 * columns), 3.2 * rows + (1.3 if rates else 0) + 0.3, path) as figure:
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.2 * rows, 1.3]) if rates else None
        upper = figure if parts is None else parts[0, 0]
        grid = upper.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            hide_axes(axes)
        for axes, (name, together) in zip(grid, panels.items(), strict=False):
            _draw_curves(axes, name, together, history, best_epoch)
        if parts is not None:
            axes = parts[1, 0].add_subplot()
            for (name, values), style in zip(rates.items(), _RATE_STYLES, strict=False):
                label = name.removesuffix("learning_rate").replace("_", " ").strip() or None
                _draw_epochs(axes, values, label=label, **style)
            axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
            plain_numbers(axes.yaxis)
            if len(rates) > 1:
                axes.legend(fontsize=8)


_NOT_CURVES = (
    "learning_rate",
    "epoch",
    "step",
    "seconds",
    "time",
    "images_per_second",
    "examples_per_second",
)


_TOGETHER = {"losses": ("generator_loss", "discriminator_loss"), "scores": ("real_score", "fake_score")}
"""Curves that say something beside each other alone."""

_RATE_STYLES = ({"color": PURPLE}, {"color": GREEN, "linestyle": "--"})
"""Rates are often equal: the dashes let the first one through."""


def _panels(history: Mapping[str, Sequence[float]]) -> dict[str, tuple[str, ...]]:
    """Title -> names of the curves that are drawn together; the loss comes first."""
    names = [name.removeprefix("val_") for name in history]
    names = [name for name in names if name not in _NOT_CURVES and not name.endswith("learning_rate")]
    panels: dict[str, tuple[str, ...]] = {
        title: group for title, group in _TOGETHER.items() if set(group) <= set(names)
    }
    shared = {name for group in panels.values() for name in group}
    alone = {name: (name,) for name in names if name not in shared}
    return {name: alone[name] for name in alone if name == "loss"} | panels | alone


def _draw_curves(
    axes: Axes,
    title: str,
    names: Sequence[str],
    history: Mapping[str, Sequence[float]],
    best_epoch: int | None,
) -> None:
    if len(names) > 1:
        for name, color in zip(names, (BLUE, RED), strict=True):
            if name in history:
                _draw_epochs(axes, history[name], color=color, label=name.rpartition("_")[0])
            if f"val_{name}" in history:
                label = f"{name.rpartition('_')[0]}, validation"
                _draw_epochs(axes, history[f"val_{name}"], color=color, label=label, linestyle=":")
    else:
        for key, label, color in ((names[0], "train", BLUE), (f"val_{names[0]}", "validation", RED)):
            if key in history:
                _draw_epochs(axes, history[key], color=color, label=label)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
    axes.set(title=title.replace("_", " "), xlabel="epoch")
    axes.legend(fontsize=8)


def _draw_epochs(axes: Axes, values: Sequence[float], **style: Any) -> None:
    markers = "o" if len(values) <= 30 else None
    # None stands for NaN in JSON; both leave a gap.
    numbers = [math.nan if value is None else value for value in values]
    axes.plot(range(1, len(values) + 1), numbers, marker=markers, markersize=3, **style)
    axes.xaxis.set_major_locator(_whole_numbers(8))
    margin = 0.5 if len(values) == 1 else 0.03 * (len(values) - 1)
    axes.set_xlim(1 - margin, len(values) + margin)
    if len(values) == 1:
        axes.set_xticks([1])


def plot_learning_rate(
    steps: Sequence[int], rates: Sequence[float], steps_per_epoch: int, path: Path
) -> None:
    """A schedule's learning rate at each step, with the epochs above.

    Args:
        steps: Global steps.
        rates: The learning rate at each.
        steps_per_epoch: At least 1.
        path: Where the picture goes.
    """
    with drawing(6.5, 3.4, path) as figure:
        axes = figure.add_subplot()
        axes.plot(steps, rates, color=BLUE, marker="o" if len(steps) == 1 else None)
        axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
        plain_numbers(axes.yaxis)
        epochs = axes.secondary_xaxis(
            "top",
            functions=(
                lambda step: np.asarray(step) / steps_per_epoch,
                lambda epoch: np.asarray(epoch) * steps_per_epoch,
            ),
        )
        epochs.set_xlabel("epoch")


class ImageLabel(NamedTuple):
    """What is written over an image."""

    predicted: str
    probability: float | None = None
    true: str | None = None


def plot_predictions(
    images: Sequence[np.ndarray] | np.ndarray, labels: Sequence[ImageLabel], path: Path, title: str = ""
) -> None:
    """A grid of images, each under its predicted class and probability; green is right, vermilion is wrong.

    Args:
        images: N arrays (H, W, C) or (H, W): uint8, or float in 0..1; 64 are drawn at most.
        labels: N labels; `true` where it is known.
        path: Where the picture goes.
        title: Stands over the grid.
    """
    count = min(len(images), len(labels), 64)
    if not count:
        raise ValueError("Expected at least one image. Received none")
    columns = math.ceil(math.sqrt(count)) if count > 5 else count
    rows = math.ceil(count / columns)
    with drawing(1.75 * columns + 0.3, 2.15 * rows + (0.4 if title else 0), path) as figure:
        # One axes for all: laying out one for each image took longer than all else in a short training.
        axes = figure.add_subplot()
        hide_axes(axes)
        if title:
            figure.suptitle(title, fontsize=10)
        for place, (image, label) in enumerate(zip(images[:count], labels, strict=False)):
            row, column = divmod(place, columns)
            text, color = _caption(label)
            axes.text(
                column + 0.5, 1.23 * row + 0.27, text, fontsize=8, color=color, ha="center", va="bottom"
            )
            _draw_image(axes, np.asarray(image), column + 0.5, 1.23 * row + 0.3)
        axes.set(xlim=(0, columns), ylim=(1.23 * rows, 0), aspect="equal")


def _draw_image(axes: Axes, pixels: np.ndarray, center: float, top: float) -> None:
    """Draws into a cell that is 0.92 wide and high, keeping the image's proportions."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    height, width = pixels.shape[:2]
    half, tall = 0.46 * min(1, width / height), 0.92 * min(1, height / width)
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255 if pixels.dtype == np.uint8 else 1,
        interpolation="nearest" if height < 100 else "antialiased",
        extent=(center - half, center + half, top + tall, top),
    )


def _caption(label: ImageLabel) -> tuple[str, str]:
    """Two lines and their colour. The words say it too, for those who cannot tell the colours apart."""
    text = shorten(label.predicted, 18)
    sure = "" if label.probability is None else percent(label.probability)
    if label.true is None:
        return f"{text}\n{sure}", "black"
    if label.true == label.predicted:
        return f"{text}\n{sure} ✓", GREEN
    return f"{text} {sure}\nnot {shorten(label.true, 18)}", RED


def confident_mistakes(probabilities: np.ndarray, targets: np.ndarray, count: int = 25) -> np.ndarray:
    """Indices of the wrong predictions that the model was surest of, surest first: int (at most `count`,)."""
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != targets
    order = np.argsort(-confidence, kind="stable")
    return order[wrong[order]][:count]


def plot_mistakes(
    images: Sequence[np.ndarray] | np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
    class_names: Sequence[str],
    path: Path,
) -> bool:
    """The 25 most confident mistakes as a grid of images.

    Args:
        images: N images; `confident_mistakes` tells which to read when all are too many.
        probabilities: (N, K).
        targets: (N,) class indices.
        class_names: K names.
        path: Where the picture goes.

    Returns:
        False, and no file, when there is no mistake.
    """
    indices = confident_mistakes(probabilities, targets)
    if not len(indices):
        return False
    labels = [
        ImageLabel(
            class_names[probabilities[index].argmax()],
            float(probabilities[index].max()),
            class_names[targets[index]],
        )
        for index in indices
    ]
    plot_predictions([images[index] for index in indices], labels, path, title="The most confident mistakes")
    return True


def _whole_numbers(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=True)
