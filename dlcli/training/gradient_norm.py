"""How large the last gradients were, noted where every optimizer passes: what to look at when a loss becomes NaN."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

KEPT = 10_001
"""Updates: as many as the longest `training.steps_per_execution`, and the one before. 40 kB."""


class GradientNorms:
    """The global norms of an optimizer's last gradients, before clipping: the square root of the sum of all squares.

    It lies beside the optimizer, not in it, so that saved states have no place for it. Of an embedding the rows of a
    batch are counted as they came: a token that comes twice has two.
    """

    def __init__(self) -> None:
        self._halves = tf.Variable(
            tf.fill([KEPT], -1.0), trainable=False, name="gradient_norms",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,  # all have the same: gradients come summed
        )  # fmt: skip

    def note(self, update: Any, gradients: Any) -> None:
        """Keeps the norm of gradients, in a graph.

        Args:
            update: number of the optimizer's update, from 0.
            gradients: of each weight; None where there is none.
        """
        halves = [tf.nn.l2_loss(_values(gradient)) for gradient in gradients if gradient is not None]
        # As few operations as will do: those of a small network take no longer than these.
        total = tf.add_n([tf.cast(half, tf.float32) for half in halves])
        self._halves.scatter_update(tf.IndexedSlices(total, update % KEPT))

    def of(self, update: int) -> float | None:
        """The norm of one of the last updates; None where it was not noted, as before a training went on."""
        half = float(self._halves[update % KEPT])
        return None if half < 0 else math.sqrt(2 * half)

    def first_not_finite(self, first: int, last: int) -> int | None:
        """The first update from `first` to `last` whose gradients are not finite, if there is one."""
        halves = self._halves.numpy()[np.arange(first, last + 1) % KEPT]
        (found,) = np.nonzero(~np.isfinite(halves))
        return first + int(found[0]) if found.size else None


def with_gradient_norms(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """The optimizer's class, which notes the norm of what it is given in `gradient_norms`."""

    class WithGradientNorms(kind):
        """Its parent, watched."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self.gradient_norms = GradientNorms()

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            """One update."""
            self.gradient_norms.note(self._iterations, grads)
            super().apply(grads, trainable_variables)

    WithGradientNorms.__name__ = kind.__name__
    return WithGradientNorms


def _values(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
