"""A run's own data: rows to compare with, and the labelled examples of an audit."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from dlcli.data.examples import DataInfo, Examples
from dlcli.errors import DlcliError
from dlcli.evaluation.evaluate import (
    BATCH_SIZE,
    TEXT_BATCH_SIZE,
    NoSuchSplitError,
    examples_of_run,
    predict_examples,
)
from dlcli.explain.attribution import Subject
from dlcli.explain.image.files import subjects_of_arrays
from dlcli.explain.source import Source
from dlcli.explain.table.rows import MAX_BACKGROUND, some_of
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run
from dlcli.tasks import TASKS


@dataclass(frozen=True, eq=False)
class Labelled:
    """The split that a model is audited on."""

    source: Source
    split: str
    examples: Examples
    info: DataInfo

    @property
    def targets(self) -> np.ndarray:
        """Class indices (N,), labels or values (N, K)."""
        return self.examples.targets

    def outputs(self) -> np.ndarray:
        """What the model says of all examples: probabilities or values (N, K)."""
        run = _run(self.source)
        examples, batch_size = self.examples, BATCH_SIZE
        if self.source.kind == "text":
            task = pkgutil.resolve_name(TASKS[run.recipe.task.name])(
                self.info, examples.targets, **run.recipe.task.arguments
            )
            examples, batch_size = task.sequences(examples), TEXT_BATCH_SIZE
        return predict_examples(self.source.model, examples, batch_size)

    def subjects(self, indices: np.ndarray) -> list[Subject]:
        """The examples at `indices`, named by their place in the split and what they are.

        Texts without a token are left out.
        """
        names = [self.name(index) for index in indices.tolist()]
        truth_of = {
            name: self._said(self.targets[index]) for name, index in zip(names, indices.tolist(), strict=True)
        }
        return [replace(each, truth=truth_of[each.name]) for each in self._read(indices, names)]

    def name(self, index: int) -> str:
        """How a report calls an example: `test 17 (cat)`."""
        return f"{self.split} {index} ({self._said(self.targets[index])})"

    def _read(self, indices: np.ndarray, names: list[str]) -> list[Subject]:
        if self.source.kind == "image":
            return subjects_of_arrays(np.asarray(self.examples.read(tf.constant(indices))), names)
        if self.source.kind == "table":
            columns = _columns(self.examples.subset(indices))
            return [
                Subject(name, {column: values[row] for column, values in columns.items()})
                for row, name in enumerate(names)
            ]
        from dlcli.explain.text.words import TextReader

        reader = TextReader.of(self.source.model, self.source.recipe)
        texts = self.examples.read(indices)["text"]
        read = [reader.read(name, reader.form.clean(text)) for name, text in zip(names, texts, strict=True)]
        return [each for each in read if isinstance(each, Subject)]

    def _said(self, target: Any) -> str:
        names = self.info.class_names
        if self.info.target == "classes":
            return names[int(target)]
        if self.info.target == "labels":
            return "; ".join(name for name, given in zip(names, target, strict=True) if given) or "no label"
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, np.ravel(target), strict=True))


def labelled_split(source: Source, changes: Sequence[str]) -> Labelled:
    """The test split of a run's data, else its validation split.

    Args:
        source: a run.
        changes: of `--set`: where the data are now.

    Raises:
        DlcliError: it is no run, or its data are not there.
    """
    run = _run(source)
    recipe = load_recipe(run.path / "recipe.yaml", changes)
    with suppress(NoSuchSplitError):
        examples, info = examples_of_run(run, recipe, "test")
        return Labelled(source, "test", examples, info)
    examples, info = examples_of_run(run, recipe, "validation")
    return Labelled(source, "validation", examples, info)


def background_rows(source: Source, changes: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Rows of the train split, drawn by the seed: columns, each (N, 1), N at most MAX_BACKGROUND.

    Raises:
        DlcliError: the run's data are not there.
    """
    run = _run(source)
    recipe = load_recipe(run.path / "recipe.yaml", changes)
    examples, _ = examples_of_run(run, recipe, "train")
    return _columns(examples.subset(some_of(len(examples), MAX_BACKGROUND, seed)))


def labelled_rows(
    source: Source, changes: Sequence[str], seed: int, most: int = 1000
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of the test split, drawn by the seed, and their targets; at most `most` of them.

    Raises:
        DlcliError: the run's data are not there.
    """
    labelled = labelled_split(source, changes)
    chosen = some_of(len(labelled.examples), most, seed)
    return _columns(labelled.examples.subset(chosen)), labelled.targets[chosen]


def _columns(examples: Any) -> dict[str, np.ndarray]:
    return dict(examples.inputs)


def _run(source: Source) -> Run:
    if source.run is None:
        raise DlcliError(
            f"{source.path}: a file does not say what data it was trained on; give its run folder"
        )
    return source.run
