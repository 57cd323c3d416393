"""A model and examples -> the report of metrics.json, and pictures."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.console import note, warn
from dlcli.data.csv_table import csv_examples_like, csv_fingerprint
from dlcli.data.examples import DataInfo, Examples
from dlcli.data.load import load_source, load_splits
from dlcli.data.stream import by_length, evaluation_stream
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
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.load import PATHS, with_absolute_paths
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run
from dlcli.tasks import GENERATIVE_TASKS, READS, TASKS
from dlcli.tasks.generative import GenerativeTask
from dlcli.tasks.task import Task

BATCH_SIZE = 512
TEXT_BATCH_SIZE = 64
"""Sequences: each has many tokens, and a language model gives as many numbers for each as it knows words."""


class NoSuchSplitError(DlcliError):
    """A data set has no examples of this split."""


def evaluate_run(run: Run, recipe: Recipe, split: str) -> dict[str, Any]:
    """Scores a run's saved model on a split of `recipe`'s data (the run's own, or with `--set` changes).

    Pictures of other data go to a folder of their own, `plots/evaluate-FINGERPRINT`, which the report names.

    Raises:
        DlcliError: there is no such split, its classes are not the model's, or the run's data have changed.
    """
    examples, info = examples_of_run(run, recipe, split)
    task = task_of_run(run, examples, info)
    if isinstance(task, GenerativeTask):
        task.measures = recipe.metrics
        task.parts = {name: run.part(name) for name in task.evaluated_with if name in run.parts}
        task.train_images = _train_images(run, examples, split)
    if _data_of(recipe) == _data_of(run.recipe):
        return task.evaluate(run.model, examples, split, run.plots)
    pictures = run.plots / f"evaluate-{info.fingerprint[:8]}"
    note(f"other data than the run's own: their pictures go to {pictures}")
    return {**task.evaluate(run.model, examples, split, pictures), "pictures": str(pictures)}


def task_of_run(run: Run, examples: Examples, info: DataInfo) -> Task:
    """The task of a run, for examples that its model reads."""
    task: Task = pkgutil.resolve_name(TASKS[run.recipe.task.name])(
        info, examples.targets, **run.recipe.task.arguments
    )
    return task


def _train_images(run: Run, examples: Examples, split: str) -> Examples | None:
    """What a generative run has seen; None when its data are gone or have changed since."""
    if split == "train":
        return examples
    try:
        return examples_of_run(run, run.recipe, "train")[0]
    except DlcliError as error:
        warn(f"the train images cannot be read, so that samples are not compared with them: {error}")
        return None


def examples_of_run(run: Run, recipe: Recipe, split: str) -> tuple[Examples, DataInfo]:
    """Raw examples of a split, as the run's model reads them.

    Args:
        run: whose model it is.
        recipe: the run's own, or with other data.
        split: train, validation or test.

    Raises:
        DlcliError: as `evaluate_run` does.
    """
    # Another share would draw the split anew, and mix it with what the model was trained on.
    share = {"validation_split": run.recipe.dataset.validation_split}
    recipe = recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update=share)})
    splits, info = _splits(run, recipe, split)
    examples = splits.get(split)
    if examples is None:
        have = [name for name, part in splits.items() if part is not None]
        raise NoSuchSplitError(
            f"--split {split}: this data set has no such split; allowed: {', '.join(have)}"
        )
    if info.kind not in READS[run.recipe.task.name]:
        raise DataError(f"dataset {recipe.dataset.name}: a {info.kind} is nothing that the model can read")
    if (tokens := tokens_of(run.model)) is not None:
        info = replace(info, tokenizer=tokens.tokenizer, max_length=tokens.max_length)
    knows_none = run.recipe.task.name in GENERATIVE_TASKS and not run.classes
    if info.class_names and not knows_none and tuple(info.class_names) != run.classes:
        raise DataError(
            f"the data's classes are not the model's: {_difference(run.classes, info.class_names)}"
        )
    own, other = _data_of(run.recipe), _data_of(recipe)
    if all(other.get(name) == own.get(name) for name in ("name", *PATHS)):
        _check_fingerprint(run, info, split)
    return examples, info


def _splits(run: Run, recipe: Recipe, split: str) -> tuple[dict[str, Examples | None], DataInfo]:
    """The splits that can be scored; other data without splits of their own are a test split as a whole."""
    own, other = _data_of(run.recipe), _data_of(recipe)
    if recipe.dataset.name == "csv" and (
        other["path"] != own.get("path")
        or (other.get("test_path") and (split == "test" or other["test_path"] != own.get("test_path")))
    ):
        return _table_as_the_model_reads(run, recipe)
    recipe = _as_the_model_reads(recipe, run)
    if other.get("path") != own.get("path"):
        source = load_source(recipe.dataset)
        folder = Path(str(other.get("path")))
        # A folder `train` may be a class, beside `bus` and `plane`.
        flat = not (folder / "train").is_dir() or "train" in source.info.class_names
        if source.test is None and source.validation is None and flat:
            return {"test": source.train}, source.info
    source = load_splits(recipe)
    return {"train": source.train, "validation": source.validation, "test": source.test}, source.info


def _table_as_the_model_reads(run: Run, recipe: Recipe) -> tuple[dict[str, Examples | None], DataInfo]:
    """The test file, or a new file in the train file's place: columns and classes are the model's."""
    own, other = _data_of(run.recipe), _data_of(recipe)
    train, test = other["path"], other.get("test_path")
    if test is None or (train != own.get("path") and test == own.get("test_path")):
        test, files = train, (train, None)
    elif (train, test) == (own.get("path"), own.get("test_path")):
        files = (train, test)
    else:
        files = (test, None)
    examples = csv_examples_like(
        run.model, Path(test), other["target"], other.get("delimiter"), other.get("encoding")
    )
    last = run.model.layers[-1]
    info = DataInfo(
        "table",
        (len(run.model.inputs),),
        last.target,
        tuple(last.class_names),
        fingerprint=csv_fingerprint(*files),
    )
    return {"test": examples}, info


def _data_of(recipe: Recipe) -> dict[str, Any]:
    """Which data a recipe reads, and how."""
    dataset = with_absolute_paths(recipe).dataset
    return {"name": dataset.name, **dataset.arguments}


def _check_fingerprint(run: Run, info: DataInfo, split: str) -> None:
    """Compares the run's own data with what it was trained on."""
    if run.trained_on in (None, info.fingerprint):
        return
    changed = "the data are not as they were when this run was trained (other files, sizes or times)"
    if split == "test":
        warn(changed)
        return
    raise DlcliError(
        f"--split {split}: {changed}, so the split would be drawn anew and hold what the model was trained on"
    )


def _as_the_model_reads(recipe: Recipe, run: Run) -> Recipe:
    """Other images are read at the size and with the channels that the model was trained on, which is what it draws."""
    if "image_size" not in recipe.dataset.arguments and "color_mode" not in recipe.dataset.arguments:
        return recipe
    draws = run.recipe.task.name in GENERATIVE_TASKS
    height, width, channels = (run.model.output if draws else run.model.input).shape[1:]
    arguments = recipe.dataset.arguments
    known = {"image_size": (height, width), "color_mode": "grayscale" if channels == 1 else "rgb"}
    change = {name: value for name, value in known.items() if name in arguments}
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update=change)})


def evaluate_model(
    predictor: keras.Model, examples: Examples, info: DataInfo, split: str, plots: Path
) -> dict[str, Any]:
    """Scores a model that gives classes, labels or values; pictures go to `plots` as SPLIT_*.png.

    Args:
        predictor: takes what `examples` read.
        examples: raw images and tables; of texts the token sequences, whose targets are the raw ones.
        info: of the data.
        split: for the report.
        plots: the folder of pictures.
    """
    if info.target not in ("classes", "labels", "values"):
        raise ValueError(f"Expected classes, labels or values. Received: {info.target}")
    batch_size = BATCH_SIZE if info.tokenizer is None else TEXT_BATCH_SIZE
    outputs = predict_examples(predictor, examples, batch_size)
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


def predict_examples(predictor: keras.Model, examples: Examples, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Outputs (N, K) of all the examples, in order; those with a length are read sorted by it."""
    ordered, order = by_length(examples)
    outputs = np.concatenate(
        [predictor.predict_on_batch(inputs) for inputs, _ in evaluation_stream(ordered, batch_size)]
    )
    restored = np.empty_like(outputs)
    restored[order] = outputs
    return restored


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
