"""A model and examples -> the report of metrics.json, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import DataInfo, Examples
from dlcli.data.load import load_splits
from dlcli.data.stream import evaluation_stream
from dlcli.errors import CheckFailedError, DataError, DlcliError
from dlcli.evaluation.plots import (
    confident_mistakes,
    plot_calibration,
    plot_confusion_matrix,
    plot_mistakes,
    plot_per_class,
    plot_regression,
)
from dlcli.evaluation.report import evaluate_predictions
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run

BATCH_SIZE = 512


def evaluate_run(run: Run, recipe: Recipe, split: str) -> dict[str, Any]:
    """Scores a run's saved model on a split of `recipe`'s data (the run's own, or with `--set` changes).

    Raises:
        DlcliError: there is no such split, or its classes are not the model's.
    """
    source = load_splits(_as_the_model_reads(recipe, run.model))
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    examples = splits.get(split)
    if examples is None:
        have = [name for name, part in splits.items() if part is not None]
        raise DlcliError(f"--split {split}: this data set has no such split; allowed: {', '.join(have)}")
    if tuple(source.info.class_names) != run.classes:
        raise DataError(
            f"the data's classes are not the model's: {_difference(run.classes, source.info.class_names)}"
        )
    return evaluate_model(run.model, examples, source.info, split, run.plots)


def _as_the_model_reads(recipe: Recipe, model: keras.Model) -> Recipe:
    """Other images are read at the size and with the channels that the model was trained on."""
    if isinstance(model.input, dict):
        return recipe
    height, width, channels = model.input.shape[1:]
    arguments = recipe.dataset.arguments
    known = {"image_size": (height, width), "color_mode": "grayscale" if channels == 1 else "rgb"}
    change = {name: value for name, value in known.items() if name in arguments}
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update=change)})


def evaluate_model(
    predictor: keras.Model, examples: Examples, info: DataInfo, split: str, plots: Path
) -> dict[str, Any]:
    """Scores a model that takes raw inputs; pictures go to `plots` as SPLIT_*.png."""
    outputs = predict_examples(predictor, examples)
    report = evaluate_predictions(info.target, outputs, examples.targets, info.class_names, split)
    if info.target == "values":
        plot_regression(outputs, examples.targets, info.class_names, plots / f"{split}_predictions.png")
        return report
    plot_per_class(report, plots / f"{split}_per_class.png")
    if info.target == "classes":
        plot_confusion_matrix(report, plots / f"{split}_confusion_matrix.png")
        plot_calibration(outputs, examples.targets, plots / f"{split}_calibration.png")
        if info.kind == "image":
            _plot_worst(examples, outputs, info, plots / f"{split}_mistakes.png")
    return report


def predict_examples(predictor: keras.Model, examples: Examples) -> np.ndarray:
    """Outputs (N, K) of all the examples, in order."""
    return np.concatenate(
        [predictor.predict_on_batch(inputs) for inputs, _ in evaluation_stream(examples, BATCH_SIZE)]
    )


def _plot_worst(examples: Examples, outputs: np.ndarray, info: DataInfo, path: Path) -> None:
    """The mistakes of which the model was most sure."""
    worst = confident_mistakes(outputs, examples.targets)
    if len(worst):
        images = np.asarray(examples.read(tf.constant(worst)))
        plot_mistakes(images, outputs[worst], examples.targets[worst], info.class_names, path)


def read_minimums(texts: Sequence[str]) -> dict[str, float]:
    """Reads `--min accuracy=0.9`; the last of two minimums of one metric counts.

    Raises:
        DlcliError: an option is not `metric=number`.
    """
    minimums = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            minimum = float(number)
        except ValueError:
            minimum = math.nan
        if math.isnan(minimum):
            raise DlcliError(f"--min {text}: give metric=number, such as --min accuracy=0.9")
        minimums[name] = minimum
    return minimums


def check_minimums(report: dict[str, Any], minimums: Mapping[str, float]) -> None:
    """Compares a report with what was asked for.

    Raises:
        CheckFailedError: a metric is below its minimum, or undefined (exit code 3).
        DlcliError: the report has no metric of that name.
    """
    failed = []
    for name, minimum in minimums.items():
        if name not in report["metrics"]:
            raise DlcliError(f"--min {name}: no such metric; allowed: {', '.join(report['metrics'])}")
        value = report["metrics"][name]
        if value is None:
            failed.append(f"{name} is undefined, so it is not at least {minimum:g}")
        elif not value >= minimum:
            failed.append(f"{name} {value:.4f} is below {minimum:g}")
    if failed:
        raise CheckFailedError("; ".join(failed))


def _difference(known: Sequence[str], found: Sequence[str]) -> str:
    missing, extra = sorted(set(known) - set(found)), sorted(set(found) - set(known))
    parts = [
        *([f"missing {', '.join(missing[:10])}"] if missing else []),
        *([f"unknown {', '.join(extra[:10])}"] if extra else []),
    ]
    return "; ".join(parts) or f"another order ({', '.join(found[:10])})"
