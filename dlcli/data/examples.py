"""What every data source gives: examples that can be counted, split and read batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import tree

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
    """Examples in memory: one array (N, ...), or a dict of them (the columns of a table, each (N, 1))."""

    def __init__(self, inputs: np.ndarray | dict[str, np.ndarray], targets: Targets) -> None:
        lengths = {len(array) for array in tree.flatten(inputs)}
        if lengths != {len(targets)}:
            raise ValueError(f"Expected as many targets as inputs. Received: {lengths} and {len(targets)}")
        self.inputs = inputs
        self.targets = targets
        self._tensors: Any = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: np.ndarray) -> ArrayExamples:
        """The examples at `indices`."""
        return ArrayExamples(
            tree.map_structure(lambda array: array[indices], self.inputs), self.targets[indices]
        )

    def read(self, indices: tf.Tensor) -> Any:
        """Rows of the arrays, gathered in the graph."""
        if self._tensors is None:
            with (
                tf.init_scope()
            ):  # a tensor outside the graph is captured by reference, not copied into the graph
                self._tensors = tree.map_structure(tf.convert_to_tensor, self.inputs)
        return tree.map_structure(lambda tensor: tf.gather(tensor, indices), self._tensors)


@dataclass(frozen=True)
class DataInfo:
    """What a model must know of its data."""

    kind: Literal["image", "table"]
    input_shape: tuple[int, ...]
    """Shape of one input of the network, without the batch: (H, W, C) or (D,)."""
    target: Literal["classes", "labels", "values"]
    """`classes`: one of several; `labels`: any of several (multi-label); `values`: regression."""
    class_names: tuple[str, ...] = ()
    """In index order; for `values` the names of the target columns."""
    notes: tuple[str, ...] = ()
    """What was converted, skipped or assumed; shown to the user before training."""
    fingerprint: str = ""
    """sha256 over the data (or over names, sizes and times of its files)."""


@dataclass(frozen=True)
class Source:
    """What a builder of the table DATASETS returns: the splits as they came, before validation is split off."""

    train: Examples
    info: DataInfo
    preprocess: Callable[[Examples], keras.Model]
    """Learns from the train examples what the network's inputs need (means, vocabularies) and returns the layers
    from raw inputs to network inputs, which become the first layers of the saved model.
    Images: uint8 (B, H, W, C) -> float32 (B, H, W, C). Tables: dict of (B, 1) columns -> float32 (B, D)."""
    test: Examples | None = None
    validation: Examples | None = None


@dataclass(frozen=True)
class Data:
    """A recipe's data, ready to train on."""

    train: Examples
    validation: Examples | None
    test: Examples | None
    info: DataInfo
    preprocessing: keras.Model
