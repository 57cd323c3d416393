"""Outputs and targets -> scores. Pure NumPy: no run, no model, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

CALIBRATION_BINS = 15

Report = dict[str, Any]
"""`metrics` (name -> number, None where it is undefined), `undefined` (name -> why), and a kind's details."""


def classification_report(
    probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str]
) -> Report:
    """Scores of a model that picks one of K classes.

    Macro averages run over the classes that occur in `targets`, so macro recall is balanced accuracy. A
    class that is never predicted has precision 0; a class that is absent from the split has no scores.

    Args:
        probabilities: (N, K), each in 0..1.
        targets: (N,) class indices.
        class_names: K names.

    Returns:
        `metrics`, `undefined`, `per_class`, `confusion_matrix` (rows: true classes, columns: predicted ones).

    Raises:
        ValueError: If shapes disagree, a probability is NaN or outside 0..1, or a target is no class.
    """
    probabilities, targets = check_classes(probabilities, targets, class_names)
    confusion = confusion_matrix(probabilities.argmax(axis=1), targets, len(class_names))
    precision, recall, f1 = scores_of_counts(
        confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    )
    metrics = {
        "accuracy": confusion.trace() / len(targets),
        "macro_precision": np.nanmean(precision),
        "macro_recall": np.nanmean(recall),
        "macro_f1": np.nanmean(f1),
        "expected_calibration_error": np.abs(calibration_gaps(probabilities, targets).mean(axis=0)).sum(),
        "log_loss": example_losses(probabilities, targets).mean(),
    }
    if len(class_names) > 5:
        metrics["top_5_accuracy"] = in_top(probabilities, targets, 5).mean()
    undefined: dict[str, str] = {}
    if len(class_names) == 2:
        metrics |= _ranking_metrics(probabilities[:, 1], targets == 1, undefined)
    per_class = [
        {
            "name": name,
            "precision": _number(p),
            "recall": _number(r),
            "f1": _number(f),
            "support": int(support),
        }
        for name, p, r, f, support in zip(
            class_names, precision, recall, f1, confusion.sum(axis=1), strict=True
        )
    ]
    return {
        "metrics": {name: _number(value) for name, value in metrics.items()},
        "undefined": undefined,
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
    }


def multilabel_report(
    probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str], threshold: float = 0.5
) -> Report:
    """Scores of a model that answers K yes-or-no questions.

    Macro F1 and mean average precision run over the labels that occur in `targets`.

    Args:
        probabilities: (N, K), each in 0..1.
        targets: (N, K) of zeros and ones.
        class_names: K names.
        threshold: A label is predicted when its probability is at least this.

    Returns:
        `metrics`, `undefined`, `per_class`.

    Raises:
        ValueError: If shapes disagree, a probability is NaN or outside 0..1, or a target is neither 0 nor 1.
    """
    from sklearn.metrics import average_precision_score

    probabilities, positive = check_labels(probabilities, targets, class_names)
    predicted = probabilities >= threshold
    hits, support, chosen = (predicted & positive).sum(axis=0), positive.sum(axis=0), predicted.sum(axis=0)
    precision, recall, f1 = scores_of_counts(hits, support, chosen)
    occurring = np.flatnonzero(support)
    average_precision = np.full(len(class_names), np.nan)
    for label in occurring:
        average_precision[label] = average_precision_score(positive[:, label], probabilities[:, label])
    undefined: dict[str, str] = {}
    metrics = {
        "subset_accuracy": (predicted == positive).all(axis=1).mean(),
        "micro_f1": 2 * hits.sum() / max(support.sum() + chosen.sum(), 1),
        "macro_f1": np.nan,
        "mean_average_precision": np.nan,
    }
    if len(occurring):
        metrics |= {"macro_f1": np.nanmean(f1), "mean_average_precision": np.nanmean(average_precision)}
    else:
        undefined |= dict.fromkeys(["macro_f1", "mean_average_precision"], "no label occurs in this split")
    details = zip(class_names, precision, recall, f1, average_precision, support, strict=True)
    per_class = [
        {
            "name": name, "precision": _number(p), "recall": _number(r), "f1": _number(f),
            "average_precision": _number(a), "support": int(s),
        }
        for name, p, r, f, a, s in details
    ]  # fmt: skip
    return {
        "metrics": {name: _number(value) for name, value in metrics.items()},
        "undefined": undefined,
        "per_class": per_class,
    }


def regression_report(predictions: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Report:
    """Mean absolute error, root mean squared error and R2, each the mean over the K targets.

    Args:
        predictions: (N, K), or (N,) for one target.
        targets: (N, K), or (N,) for one target.
        names: K names.

    Returns:
        `metrics`, `undefined`, and `per_target` when there are several.

    Raises:
        ValueError: If shapes disagree or a number is NaN or infinite.
    """
    predictions, targets = check_values(predictions, targets, names)
    errors = predictions - targets
    mae, rmse = np.abs(errors).mean(axis=0), np.sqrt((errors**2).mean(axis=0))
    r2 = r2_of_means((errors**2).mean(axis=0), ((targets - targets.mean(axis=0)) ** 2).mean(axis=0))
    undefined = {}
    if np.isnan(r2).any():
        constant = ", ".join(name for name, value in zip(names, r2, strict=True) if np.isnan(value))
        undefined["r2"] = f"the target has one value only in this split: {constant}"
    report: Report = {
        "metrics": {"mae": _number(mae.mean()), "rmse": _number(rmse.mean()), "r2": _number(r2.mean())},
        "undefined": undefined,
    }
    if len(names) > 1:
        report["per_target"] = [
            {"name": name, "mae": _number(m), "rmse": _number(s), "r2": _number(r)}
            for name, m, s, r in zip(names, mae, rmse, r2, strict=True)
        ]
    return report


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """How often class i (row) was taken for class j (column): int (K, K)."""
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def scores_of_counts(
    hits: np.ndarray, support: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 from counts of one shape (..., K); NaN for a class without support."""
    present = support > 0
    precision = np.where(present, hits / np.maximum(chosen, 1), np.nan)
    recall = np.where(present, hits / np.maximum(support, 1), np.nan)
    f1 = np.where(present, 2 * hits / np.maximum(support + chosen, 1), np.nan)
    return precision, recall, f1


def calibration_gaps(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Correctness minus confidence of each example, in the column of its confidence bin: (N, 15).

    The sum over bins of |mean over examples| is the expected calibration error of Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 2: bins of equal width, open below and closed above.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    gaps = np.zeros((len(targets), CALIBRATION_BINS))
    gaps[np.arange(len(targets)), calibration_bins(confidence)] = correct - confidence
    return gaps


def calibration_bins(confidence: np.ndarray) -> np.ndarray:
    """Which of the 15 bins each confidence falls into: int (N,)."""
    return np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)


def example_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy of each example in nats: (N,). No probability counts as less than 1.2e-7."""
    picked = probabilities[np.arange(len(targets)), targets]
    return -np.log(np.maximum(picked, np.finfo(np.float32).eps))


def in_top(probabilities: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """Whether each target is among the `count` most probable classes: bool (N,). Ties: lower index first."""
    picked = probabilities[np.arange(len(targets)), targets][:, None]
    earlier = np.arange(probabilities.shape[1]) < targets[:, None]
    better = (probabilities > picked) | ((probabilities == picked) & earlier)
    return better.sum(axis=1) < count


def r2_of_means(squared_error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Coefficient of determination; NaN where the target does not vary."""
    varies = variance > 0
    return np.where(varies, 1 - squared_error / np.where(varies, variance, 1), np.nan)


def check_classes(
    probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `classification_report` as float64 (N, K) and int64 (N,), or ValueError."""
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets)
    _check_probabilities(probabilities, class_names)
    if targets.shape != probabilities.shape[:1]:
        raise ValueError(
            f"Expected one target for each of {len(probabilities)} outputs. Received shape {targets.shape}"
        )
    if not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"Expected class indices (integers) as targets. Received dtype {targets.dtype}")
    if targets.min() < 0 or targets.max() >= len(class_names):
        raise ValueError(
            f"Expected targets from 0 to {len(class_names) - 1}. Received {targets.min()} to {targets.max()}"
        )
    return probabilities, targets.astype(np.int64)


def check_labels(
    probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `multilabel_report` as float64 (N, K) and bool (N, K), or ValueError."""
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets)
    _check_probabilities(probabilities, class_names)
    if targets.shape != probabilities.shape:
        raise ValueError(f"Expected targets of shape {probabilities.shape}. Received {targets.shape}")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError(f"Expected targets of zeros and ones. Received {np.unique(targets)[:5].tolist()}")
    return probabilities, targets.astype(bool)


def check_values(
    predictions: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `regression_report` as float64 (N, K) both, or ValueError."""
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    predictions = predictions.reshape(len(predictions), -1)
    targets = targets.reshape(len(targets), -1)
    if predictions.shape != targets.shape or predictions.shape[1] != len(names) or not len(targets):
        raise ValueError(
            f"Expected predictions and targets of shape (N, {len(names)}), N at least 1. "
            f"Received {predictions.shape} and {targets.shape}"
        )
    for what, values in (("predictions", predictions), ("targets", targets)):
        if not np.isfinite(values).all():
            raise ValueError(f"Expected finite {what}. Received {_first_bad(~np.isfinite(values))}")
    return predictions, targets


def _check_probabilities(probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    expected = f"Expected probabilities of shape (N, {len(class_names)}), N at least 1."
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names) or not len(probabilities):
        raise ValueError(f"{expected} Received {probabilities.shape}")
    if np.isnan(probabilities).any():
        raise ValueError(f"{expected} Received {_first_bad(np.isnan(probabilities))}")
    # Half precision rounds a probability up by at most 2**-11.
    if probabilities.min() < 0 or probabilities.max() > 1 + 2**-10:
        raise ValueError(
            f"{expected} Received values from {probabilities.min():g} to {probabilities.max():g}: logits?"
        )


def _first_bad(bad: np.ndarray) -> str:
    rows = bad.any(axis=1)
    return f"NaN or infinity in {rows.sum()} of {len(bad)} rows, first in row {rows.argmax()}"


def _ranking_metrics(scores: np.ndarray, positive: np.ndarray, undefined: dict[str, str]) -> dict[str, float]:
    """Area under the ROC curve and average precision of the second class; NaN and a reason if undefined."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if positive.all() or not positive.any():
        undefined |= dict.fromkeys(["roc_auc", "average_precision"], "only one class occurs in this split")
        return {"roc_auc": math.nan, "average_precision": math.nan}
    return {
        "roc_auc": roc_auc_score(positive, scores),
        "average_precision": average_precision_score(positive, scores),
    }


def _number(value: float | np.floating) -> float | None:
    """A float that JSON can hold."""
    return float(value) if math.isfinite(value) else None
