"""A batch in parts: their gradients are summed before one update, so that only a part's activations are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf
from keras import tree

Terms = Callable[[Any, Any], tuple[Any, Any]]
"""(inputs, targets) -> how many terms the mean of the loss has, and the mean of losses that layers add."""


class AccumulatingModel(keras.Model):
    """A functional `keras.Model` whose `train_step` can take a batch in parts.

    The update is that of the whole batch: each part's loss counts as much as it has terms. Only what looks at a batch
    as a whole differs, since it sees a part: batch normalization, and the draws of dropout.
    """

    parts = 1
    """Of each batch; 1 is Keras's own step."""
    _terms: Terms

    def accumulate(self, parts: int, terms: Terms) -> None:
        """Cuts each batch into so many parts from now on.

        Args:
            parts: at least 1; of a batch with fewer examples each is a part.
            terms: of the task's loss.
        """
        if parts < 1:
            raise ValueError(f"Expected at least 1 part. Received: {parts}")
        self.parts, self._terms = parts, terms
        if parts > 1:
            self.jit_compile = False  # XLA knows no slices whose size it cannot tell beforehand
        self.train_function = None  # Keras makes it anew

    @property
    def normalizes_batches(self) -> bool:
        """Whether parts of a batch train it otherwise than the batch would."""
        return any(isinstance(layer, keras.layers.BatchNormalization) for layer in self._flatten_layers())

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of the weights, and the metrics so far."""
        if self.parts == 1:
            found: dict[str, Any] = super().train_step(data)
            return found
        batch = keras.utils.unpack_x_y_sample_weight(data)
        examples = tf.shape(tree.flatten(batch[0])[0])[0]
        weights = self.trainable_weights
        loss, gradients = self._accumulated(batch, examples, weights)
        self.optimizer.apply(gradients, weights)
        # As in Keras's step: what is shown is the mean over replicas, and each has a share of it.
        whole = loss * tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_tracker.update_state(whole, sample_weight=examples)
        metrics: dict[str, Any] = self.get_metrics_result()
        return metrics

    def _accumulated(self, batch: Any, examples: Any, weights: list[Any]) -> tuple[Any, list[Any]]:
        """The loss of a whole batch and its gradients, from one part after another."""
        number = tf.minimum(self.parts, examples)
        size, longer = examples // number, examples % number  # the first parts have one example more
        terms = self._terms(*batch[:2])
        reached: list[bool] = []

        def add(part: Any, loss: Any, sums: list[Any]) -> tuple[Any, Any, list[Any]]:
            first = part * size + tf.minimum(part, longer)
            last = first + size + tf.cast(part < longer, tf.int32)
            piece = tree.map_structure(lambda whole: None if whole is None else whole[first:last], batch)
            shares = _shares(self._terms(*piece[:2]), terms, (last - first) / examples)
            its_loss, gradients = self._gradients(piece, shares, weights)
            reached[:] = [gradient is not None for gradient in gradients]
            return part + 1, loss + its_loss, [total + each for total, each in _pairs(sums, gradients)]

        nothing = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
        # A loop, not as many copies of the network: those could run at once, with all activations in memory.
        _, loss, sums = tf.while_loop(
            lambda part, *_: part < number, add, (0, tf.zeros([]), nothing), parallel_iterations=1
        )
        return loss, [total if known else None for total, known in zip(sums, reached, strict=True)]

    def _gradients(self, piece: Any, shares: tuple[Any, Any], weights: list[Any]) -> tuple[Any, list[Any]]:
        """A part's share of the batch's loss, and the gradients of it; its metrics are counted."""
        inputs, targets, sample_weights = piece
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss = shares[0] * tf.cast(self.loss(targets, outputs, sample_weights), tf.float32)
            for added in self.losses:  # of layers, and penalties on weights: shares that sum to 1
                # Keras's loss objects divide by the replicas, whose gradients are summed; this it leaves to the step.
                loss += shares[1] * tf.reduce_sum(tf.cast(added, tf.float32)) / replicas
            scaled = self.optimizer.scale_loss(loss)
        self.compute_metrics(inputs, targets, outputs, sample_weights)
        return loss, tape.gradient(scaled, weights)


def _shares(part: tuple[Any, Any], whole: tuple[Any, Any], of_examples: Any) -> tuple[Any, Any]:
    """What a part's means count in those of the batch; its share of the examples where there is no term at all."""
    fallback = tf.cast(of_examples, tf.float32)
    counts = [
        (tf.cast(mine, tf.float32), tf.cast(every, tf.float32))
        for mine, every in zip(part, whole, strict=True)
    ]
    of_outputs, of_added = (
        tf.where(every > 0, tf.math.divide_no_nan(mine, every), fallback) for mine, every in counts
    )
    return of_outputs, of_added


def _pairs(sums: list[Any], gradients: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Sums and what is added to them: dense, since the rows of an embedding differ from part to part."""
    for total, gradient in zip(sums, gradients, strict=True):
        dense = tf.zeros_like(total) if gradient is None else tf.convert_to_tensor(gradient)
        dense.set_shape(total.shape)
        yield total, dense
