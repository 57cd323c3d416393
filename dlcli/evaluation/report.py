"""Predictions and targets -> the form of metrics.json, which `dlcli evaluate --json` prints too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dlcli.evaluation import intervals, metrics


def evaluate_predictions(
    kind: Literal["classes", "labels", "values"],
    outputs: np.ndarray,
    targets: np.ndarray,
    class_names: Sequence[str],
    split: str,
) -> dict[str, Any]:
    """All that is known of a model on one split, ready for JSON.

    Args:
        kind: `classes` one of several, `labels` any of several, `values` regression.
        outputs: (N, K) probabilities, or values.
        targets: (N,) class indices for `classes`; (N, K) zeros and ones for `labels`; (N, K) values.
        class_names: K names of classes, labels or target columns.
        split: The split's name, for the report.

    Returns:
        `split`, `examples`, `metrics` (None where undefined), `intervals` (95 %, `[low, high]`) and
        `class_names`; where they belong `per_class`, `confusion_matrix`, `per_target`, and `undefined`
        (metric -> why).

    Raises:
        ValueError: If the arrays disagree or hold NaN.
    """
    report: dict[str, Any]
    if kind == "classes":
        outputs, targets = metrics.check_classes(outputs, targets, class_names)
        report = metrics.classification_report(outputs, targets, class_names)
        bounds = intervals.classification_intervals(outputs, targets)
    elif kind == "labels":
        outputs, targets = metrics.check_labels(outputs, targets, class_names)
        report = metrics.multilabel_report(outputs, targets, class_names)
        bounds = intervals.multilabel_intervals(outputs, targets)
    elif kind == "values":
        outputs, targets = metrics.check_values(outputs, targets, class_names)
        report = metrics.regression_report(outputs, targets, class_names)
        bounds = intervals.regression_intervals(outputs, targets)
    else:
        raise ValueError(f"Expected kind classes, labels or values. Received {kind!r}")
    details = {name: value for name, value in report.items() if name != "metrics" and value != {}}
    return {
        "split": split,
        "examples": len(outputs),
        "metrics": report["metrics"],
        "intervals": {name: bounds[name] for name in report["metrics"] if name in bounds},
        **details,
        "class_names": list(class_names),
    }
