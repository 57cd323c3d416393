"""Real examples of a run's data set, as the exported graphs take them: to compare with, and to calibrate from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import DataInfo, Examples, Source
from dlcli.data.load import load_splits
from dlcli.data.stream import evaluation_stream
from dlcli.data.text.texts import TextExamples
from dlcli.errors import DataError, DlcliError
from dlcli.export.exportable import as_numbers
from dlcli.export.format import Exportable, Inputs
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.schema import Recipe
from dlcli.tasks.task import Task
from dlcli.training.build import build_task

COUNT = 256
"""Examples that an artefact is compared on, at most."""

CALIBRATION = 128
"""Train examples from which int8 learns the ranges of its numbers."""

LARGEST_OUTPUTS = 2**24
"""Numbers of all outputs together: a language model gives one for each token of the vocabulary."""

_BATCH = 64


@dataclass(frozen=True)
class Samples:
    """Examples and what is right of them."""

    split: str
    inputs: Inputs
    """Of `Exportable.model`."""
    numeric: Inputs
    """Of `Exportable.numeric`."""
    targets: np.ndarray | None
    """int32 (N,) classes, float32 (N, K) labels or values, int32 (N, T) tokens or tags + 1 (0 does not count),
    int32 (N, 2) spans; None where there is nothing to compare with."""
    raw: Any
    """The texts themselves, as TextExamples, in the same order; of windows of a corpus just its beginning. None where
    the inputs are all there is."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class RunData:
    """The data of a run, read through its own recipe and never learnt from again.

    Args:
        recipe: the run's, perhaps with another `dataset.path`.
        item: of the same run; its tokenizer and its columns are the ones that count.

    Raises:
        DlcliError: the data are gone or cannot be read, or are not of the kind that the model takes.
    """

    def __init__(self, recipe: Recipe, item: Exportable) -> None:
        self._recipe, self._item = recipe, item
        try:
            self._source: Source = load_splits(recipe)
        except DlcliError as error:
            raise DlcliError(
                "an export is compared with the model on real examples, and the run's data cannot be read: "
                f"{error}\nsay where they are: --set dataset.path=..."
            ) from error
        self._check()

    @cached_property
    def _info(self) -> DataInfo:
        tokens = tokens_of(self._item.model)
        if tokens is None:
            return self._source.info
        return replace(self._source.info, tokenizer=tokens.tokenizer, max_length=tokens.max_length)

    @cached_property
    def task(self) -> Task:
        """The run's task on these data."""
        return build_task(self._recipe, self._info, self._source.train.targets)

    def samples(self, count: int = COUNT) -> Samples:
        """Examples of the validation split, else of test, else of train, spread over the split."""
        splits = {
            "validation": self._source.validation,
            "test": self._source.test,
            "train": self._source.train,
        }
        split, examples = next((name, part) for name, part in splits.items() if part is not None)
        return self._of(split, examples, count)

    def calibration(self, count: int = CALIBRATION) -> Inputs:
        """Train examples in the form of `Exportable.numeric`, tokens padded to `max_length`."""
        found = self._of("train", self._source.train, count).numeric
        length = self._item.max_length
        if not length:
            return found
        return {name: np.pad(ids, ((0, 0), (0, length - ids.shape[1]))) for name, ids in found.items()}

    def _of(self, split: str, examples: Any, count: int) -> Samples:
        raw, read = self._readable(examples, count)
        places = _spread(len(read), self._affordable(read, count))
        if raw is not None and len(raw) == len(read):
            raw = raw.subset(places)
        read = read.subset(places)
        corrupt = self.task.corrupt() if self._info.tokenizer is not None else None
        batches = [
            (_named(inputs, self._item.model), np.asarray(targets))
            for inputs, targets in evaluation_stream(read, _BATCH, augment=corrupt)
        ]
        inputs = {name: _joined([batch[name] for batch, _ in batches]) for name in batches[0][0]}
        targets: np.ndarray | None = _joined([each for _, each in batches])
        if self._recipe.task.name == "masked_language_modeling":
            inputs = {
                name: np.abs(ids) for name, ids in inputs.items()
            }  # negative ids mark what is to be predicted
        elif self._recipe.task.name == "replaced_token_detection":
            inputs, targets = {name: np.abs(ids) for name, ids in inputs.items()}, None
        return Samples(split, inputs, as_numbers(inputs, self._item.vocabularies), targets, raw)

    def _readable(self, examples: Any, count: int) -> tuple[Any, Any]:
        """Raw examples, and the same as the model reads them, with the targets that evaluation compares with."""
        if not isinstance(examples, TextExamples):
            return None, examples
        if self._item.target == "text" and self._recipe.task.name != "translation":
            # Language models read a text that goes on; a few thousand of its pieces are enough.
            raw = examples.subset(np.arange(min(len(examples), 16 * count)))
            return raw, self.task.sequences(raw)
        raw = examples.subset(_spread(len(examples), count))
        read = self.task.sequences(raw)
        if self._item.target in ("classes", "labels"):
            read.targets = raw.targets  # classes, not what the loss compares with
        return raw, read

    def _affordable(self, read: Examples, count: int) -> int:
        """How many examples have outputs that fit into memory."""
        lengths = getattr(read, "lengths", None)
        tokens = self._item.max_length if lengths is None else int(np.max(lengths))
        shape = [side or tokens for side in self._item.model.output_shape[1:]]
        return max(8, min(count, LARGEST_OUTPUTS // max(1, int(np.prod(shape)))))

    def _check(self) -> None:
        """Refuses data that are not what the model was trained on."""
        info, item = self._source.info, self._item
        if info.kind != item.kind:
            raise DataError(f"these data are of kind {info.kind}, and the model takes {item.kind}")
        if item.classes and tuple(info.class_names) != item.classes:
            raise DataError(
                f"the data's classes are not the model's: {', '.join(info.class_names[:10])} in the place of "
                f"{', '.join(item.classes[:10])}"
            )
        if item.kind in ("image", "table"):
            have = {
                name: (array.shape[1:], "string" if array.dtype.kind == "U" else str(array.dtype))
                for name, array in _named(
                    self._source.train.read(tf.constant([0])), item.model, strict=False
                ).items()
            }
            wrong = [each.name for each in item.inputs if have.get(each.name) != (each.shape, each.dtype)]
            if wrong:
                raise DataError(
                    f"the data are not as the model takes them: {', '.join(wrong[:10])} is missing or of another "
                    "size or type"
                )


def _spread(available: int, count: int) -> np.ndarray:
    """Places of `count` examples from one end to the other: data are often sorted by class."""
    return np.unique(np.linspace(0, available - 1, min(count, available)).astype(np.int64))


def _named(inputs: Any, model: keras.Model, strict: bool = True) -> dict[str, np.ndarray]:
    """What examples read, by the names of the model's inputs."""
    if isinstance(inputs, Mapping):
        names = [tensor.name for tensor in model.inputs] if strict else list(inputs)
        return {name: _plain(inputs[name]) for name in names}
    return {model.inputs[0].name: _plain(inputs)}


def _plain(tensor: Any) -> np.ndarray:
    """An array without objects, which no file may hold: strings as fixed-width text."""
    array = np.asarray(tensor)
    if array.dtype != object:
        return array
    texts = [each.decode("utf-8") if isinstance(each, bytes) else str(each) for each in array.reshape(-1)]
    return np.array(texts, np.str_).reshape(array.shape)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Batches one after another; sequences are padded with 0 to the longest."""
    if arrays[0].ndim == 2 and len({array.shape[1] for array in arrays}) > 1:
        width = max(array.shape[1] for array in arrays)
        arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
    return np.concatenate(arrays)
