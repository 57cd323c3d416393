"""Which rows of a batch belong to which replica: so that all workers together see the batches of one device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Shard:
    """The replicas of this process, among all those that train together.

    A batch is cut into `replicas` parts, one after another, as even as can be: of B rows the first B % replicas
    parts have one more. Where rows are too few, parts at the end are empty.

    Args:
        replicas: of all processes.
        first: number of the first one in this process, from 0.
        count: how many are in this process.
    """

    replicas: int
    first: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.count < 1 or not 0 <= self.first <= self.replicas - self.count:
            raise ValueError(
                "Expected `count` of `replicas` replicas from number `first` on. Received: "
                f"replicas={self.replicas}, first={self.first}, count={self.count}"
            )

    @property
    def holds_all(self) -> bool:
        """Whether there is no other process."""
        return self.count == self.replicas

    def bounds(self, size: tf.Tensor) -> list[tf.Tensor]:
        """Where the parts of this process begin in a batch of `size` rows, and at last where they end."""
        least, longer = size // self.replicas, size % self.replicas
        return [
            replica * least + tf.minimum(replica, longer)
            for replica in range(self.first, self.first + self.count + 1)
        ]

    def rows(self, size: tf.Tensor, before: int = 0, group: int = 1) -> tf.Tensor:
        """Which examples of a batch this process has to read, int32; never none.

        Args:
            size: int32 scalar, examples of the whole batch.
            before: examples before its own that it reads too; those before the first one are the last ones.
            group: examples that make one row of the batch as the network reads it.
        """
        bounds = [bound * group for bound in self.bounds(size // group)]
        # Reading nothing is a case that nobody downstream has to handle: of an empty part one row is read and cut off.
        end = tf.maximum(bounds[-1], bounds[0] + group)
        return tf.math.floormod(tf.range(bounds[0] - before, end), size)

    def parts(self, batch: Any, size: tf.Tensor, before: int = 0) -> tuple[Any, ...]:
        """What each replica of this process gets of what was read, made and is cut here.

        Args:
            batch: tensors in any nesting, each with one line for each row: those of `rows`, or of the whole batch where
                this process holds all replicas.
            size: int32 scalar, rows of the whole batch as the network reads it.
            before: as for `rows`.
        """
        bounds = self.bounds(size)
        ends = [bound - bounds[0] + before for bound in bounds]
        # Of an empty part one row was read, which stands after `ends[-1]`.
        read = size if self.holds_all else tf.maximum(ends[-1], ends[0] + 1)

        def checked(lines: tf.Tensor) -> tf.Tensor:
            known = tf.debugging.assert_equal(tf.shape(lines)[0], read, "Lines of a batch that is to be cut")
            with tf.control_dependencies([known] if known is not None else []):
                return tf.identity(lines)

        whole = tf.nest.map_structure(checked, batch)
        return tuple(
            tf.nest.map_structure(lambda lines, start=start, end=end: lines[start:end], whole)
            for start, end in pairwise(ends)
        )
