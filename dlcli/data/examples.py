"""What every data source gives: examples that can be counted, split and read batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import tree

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer

Targets = np.ndarray
"""int32 (N,) class indices, float32 (N, K) multi-label zeros and ones, or float32 (N, K) values to regress."""


class Examples(Protocol):
    """A set of N examples, in memory or in files."""

    targets: Targets

    def __len__(self) -> int:
        """How many examples."""

    def subset(self, indices: np.ndarray) -> Examples:
        """The examples at `indices`, without reading them."""

    def read(self, indices: tf.Tensor) -> Any:
        """Raw inputs of the examples at `indices` (B,), as tensors; called inside a tf.data graph.

        Images are uint8 (B, H, W, C); tables a dict of columns, each (B, 1), float32 or string.
        """


class ArrayExamples:
    """Examples in memory: one array (N, ...), or a dict of them (the columns of a table, each (N, 1)).

    Args:
        inputs: the arrays; a memory-mapped one stays on disk until its pages are read.
        targets: of the same length.
    """

    def __init__(self, inputs: np.ndarray | dict[str, np.ndarray], targets: Targets) -> None:
        lengths = {len(array) for array in tree.flatten(inputs)}
        if lengths != {len(targets)}:
            raise ValueError(f"Expected as many targets as inputs. Received: {lengths} and {len(targets)}")
        self.targets = targets
        self._source = _Arrays(inputs)
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def inputs(self) -> Any:
        """The arrays of these examples and no others; of a subset, a copy."""
        if self._rows is None:
            return self._source.arrays
        return tree.map_structure(lambda array: array[self._rows], self._source.arrays)

    def subset(self, indices: np.ndarray) -> ArrayExamples:
        """The examples at `indices`: a view, so that train and validation share one copy of the pixels."""
        part = copy(self)
        part.targets = self.targets[indices]
        part._rows = indices if self._rows is None else self._rows[indices]
        return part

    def read(self, indices: tf.Tensor) -> Any:
        """Rows of the arrays, gathered in the graph."""
        if self._rows is not None:
            indices = tf.gather(tf.constant(self._rows), indices)
        return tree.map_structure(lambda tensor: tf.gather(tensor, indices), self._source.tensors())


class _Arrays:
    """Arrays and, once they are read in a graph, the tensors of them: shared by an ArrayExamples and its subsets."""

    def __init__(self, arrays: Any) -> None:
        self.arrays = arrays
        self._tensors: Any = None

    def tensors(self) -> Any:
        if self._tensors is None:
            # Outside the graph a tensor is captured by reference, not copied into it; and on the CPU, where the
            # stream runs: a data set has no place in a GPU's memory.
            with tf.init_scope(), tf.device("/CPU:0"):
                self._tensors = tree.map_structure(shared_tensor, self.arrays)
        return self._tensors


def shared_tensor(array: np.ndarray) -> tf.Tensor:
    """A tensor of an array, sharing its memory where it can; `convert_to_tensor` copies a memory-mapped array twice."""
    plain = np.asarray(array)
    shareable = plain.dtype.kind in "uif" and plain.flags.writeable and plain.flags.c_contiguous
    if shareable and plain.size and plain.ctypes.data % TENSOR_ALIGNMENT == 0:
        return tf.experimental.dlpack.from_dlpack(plain.__dlpack__())
    return tf.convert_to_tensor(plain)


TENSOR_ALIGNMENT = 64
"""Bytes; TensorFlow's kernels expect it of every tensor."""


@dataclass(frozen=True)
class DataInfo:
    """What a model must know of its data."""

    kind: Literal["image", "table", "text", "pairs", "questions", "tagged", "image_pairs", "unpaired_images"]
    """As in `dlcli.data.KINDS_OF_DATA`."""
    input_shape: tuple[int, ...]
    """Shape of one input of the network, without the batch: (H, W, C), (D,), or () for texts."""
    target: Literal["classes", "labels", "values", "text", "spans", "tags", "images"]
    """`classes`: one of several; `labels`: any of several (multi-label); `values`: regression; `text`: the text
    (of pairs the second) is all that there is to learn from; `spans`: a part of the text; `tags`: one for each word;
    `images`: other images."""
    class_names: tuple[str, ...] = ()
    """In index order; for `values` the names of the target columns."""
    notes: tuple[str, ...] = ()
    """What was converted, skipped or assumed; shown to the user before training."""
    fingerprint: str = ""
    """sha256 over the data (or over names, sizes and times of its files)."""
    continuous: bool = False
    """Whether each example goes on where the one before ended; then validation is the end of the train split."""
    tokenizer: Tokenizer | None = None
    """Of texts, as learnt from the train split."""
    max_length: int = 0
    """Of texts: tokens of an example; what is longer is cut."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the network knows; 0 for data that are no text."""
        return 0 if self.tokenizer is None else self.tokenizer.vocabulary_size


@dataclass(frozen=True)
class Source:
    """What a builder of the table DATASETS returns: the splits as they came, before validation is split off."""

    train: Examples
    info: DataInfo
    preprocess: Callable[[Examples], keras.Model] | None
    """Learns from the train examples what the network's inputs need (means, vocabularies) and returns the layers
    from raw inputs to network inputs, which become the first layers of the saved model.
    Images: uint8 (B, H, W, C) -> float32 (B, H, W, C). Tables: dict of (B, 1) columns -> float32 (B, D).
    None for texts, of which a tokenizer learns."""
    test: Examples | None = None
    validation: Examples | None = None


@dataclass(frozen=True)
class Data:
    """A recipe's data, ready to train on."""

    train: Examples
    validation: Examples | None
    test: Examples | None
    info: DataInfo
    preprocessing: keras.Model | None
    """None for texts: `info.tokenizer` makes tokens of them."""
    precomputed: bool = False
    """Whether `preprocessing` runs once over all examples, before training, and the network reads vectors (B, D):
    so it is with tables and frozen features; images are preprocessed in every step."""
