"""A batch in pieces: over several devices, and in parts one after another. The update is that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from dlcli.training.empty_parts import on_rows

Terms = Callable[[Any, Any], tuple[Any, Any]]
"""(inputs, targets) -> how many terms the mean of the loss has, and the mean of losses that layers add."""


class AccumulatingModel(keras.Model):
    """A functional `keras.Model` whose steps weigh each piece of a batch by what it counts in the whole.

    A piece is what one of several devices gets, or one of the parts that follow each other so that only a part's
    activations are in memory; or both. Each piece's loss counts as much as it has terms. Only what looks at a batch as
    a whole differs, since it sees a part: batch normalization (all devices' parts of one number), and the draws of
    dropout.
    """

    parts = 1
    """Of each device's share of a batch; 1 is all of it at once."""
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
        if self.parts == 1 and _replicas() == 1:
            found: dict[str, Any] = super().train_step(data)
            return found
        batch, weights = keras.utils.unpack_x_y_sample_weight(data), self.trainable_weights
        whole = _over_replicas(self._counts(batch))
        if self.parts == 1:
            loss, gradients = self._gradients(batch, whole, weights)
        elif _replicas() > 1 and any(
            getattr(layer, "synchronized", False) for layer in self._flatten_layers()
        ):
            loss, gradients = self._unrolled(batch, whole, weights)
        else:
            loss, gradients = self._looped(batch, whole, weights)
        self.optimizer.apply(gradients, weights)
        return self._logs(loss, batch[0])

    def test_step(self, data: Any) -> dict[str, Any]:
        """The metrics so far."""
        if _replicas() == 1:
            found: dict[str, Any] = super().test_step(data)
            return found
        batch = keras.utils.unpack_x_y_sample_weight(data)
        whole = _over_replicas(self._counts(batch))
        return self._logs(self._loss_of(batch, whole, training=False), batch[0])

    def _logs(self, loss: Any, inputs: Any) -> dict[str, Any]:
        """Counts a loss of which each device has a share, and gives the metrics so far."""
        (loss,) = _over_replicas([loss])
        self._loss_tracker.update_state(loss, sample_weight=_examples(inputs))
        metrics: dict[str, Any] = self.get_metrics_result()
        return metrics

    def _looped(self, batch: Any, whole: Any, weights: list[Any]) -> tuple[Any, list[Any]]:
        """The loss of a device's batch and its gradients, from one part after another.

        A loop, not as many copies of the network: those could run at once, with all activations in memory.
        """
        number, piece = self._pieces(batch)
        reached: list[bool] = []

        def add(part: Any, loss: Any, sums: list[Any]) -> tuple[Any, Any, list[Any]]:
            its_loss, gradients = self._gradients(piece(part), whole, weights)
            reached[:] = [gradient is not None for gradient in gradients]
            return part + 1, loss + its_loss, [total + each for total, each in _pairs(sums, gradients)]

        nothing = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
        _, loss, sums = tf.while_loop(
            lambda part, *_: part < number, add, (0, tf.zeros([]), nothing), parallel_iterations=1
        )
        return loss, [total if known else None for total, known in zip(sums, reached, strict=True)]

    def _unrolled(self, batch: Any, whole: Any, weights: list[Any]) -> tuple[Any, list[Any]]:
        """The same where devices exchange what they see of a part, which tf.distribute does not do within loops."""
        _, piece = self._pieces(batch, of_all_devices=True)
        loss, sums = tf.zeros([]), [None] * len(weights)
        most = tf.math.ceil(
            whole[-1] / _replicas()
        )  # examples of the first device, which has no fewer than others
        moving = [state.value for layer in self._flatten_layers() for state in _moving(layer)]
        for part in range(self.parts):
            with tf.control_dependencies([loss, *(each for each in sums if each is not None)]):
                before = [state * 1 for state in moving]
                its_loss, gradients = self._gradients(piece(tf.identity(part)), whole, weights)
            for state, value in zip(moving, before, strict=True):  # of no example at all nothing is learnt
                state.assign(tf.where(tf.cast(part, tf.float32) < most, state, value))
            loss += its_loss
            sums = [
                total if each is None else each if total is None else total + each
                for total, each in zip(sums, map(_dense, gradients, weights), strict=True)
            ]
        return loss, sums

    def _counts(self, piece: Any) -> list[Any]:
        """Terms of the loss, terms of losses that layers add, and examples."""
        return [*self._terms(*piece[:2]), _examples(piece[0])]

    def _pieces(self, batch: Any, of_all_devices: bool = False) -> tuple[Any, Callable[[Any], Any]]:
        """How many parts a batch has, and the part of a number; some are empty where all devices need as many."""
        examples = _examples(batch[0])
        number = self.parts if of_all_devices else tf.minimum(self.parts, examples)
        at_least = tf.maximum(number, 1)
        size, longer = examples // at_least, examples % at_least  # the first parts have one example more

        def piece(part: Any) -> Any:
            first = part * size + tf.minimum(part, longer)
            last = first + size + tf.cast(part < longer, tf.int32)
            return tree.map_structure(lambda all_: None if all_ is None else all_[first:last], batch)

        return number, piece

    def _gradients(self, piece: Any, whole: Any, weights: list[Any]) -> tuple[Any, list[Any]]:
        """A piece's share of the batch's loss, and the gradients of it; its metrics are counted."""
        with tf.GradientTape() as tape:
            loss = self._loss_of(piece, whole, training=True)
            scaled = self.optimizer.scale_loss(loss)
        return loss, tape.gradient(scaled, weights)

    def _loss_of(self, piece: Any, whole: Any, *, training: bool) -> Any:
        """A piece's share of the batch's loss; its metrics are counted.

        Args:
            piece: inputs, targets, sample weights.
            whole: `_counts` of the batch on all devices.
            training: whether dropout draws.
        """
        inputs, targets, sample_weights = piece
        *shares, of_examples = (
            tf.math.divide_no_nan(mine, every)
            for mine, every in zip(_as_floats(self._counts(piece)), whole, strict=True)
        )
        # Its share of the examples where there is no term at all.
        of_outputs, of_added = (
            tf.where(every > 0, share, of_examples) for share, every in zip(shares, whole, strict=False)
        )
        outputs = on_rows(lambda rows: self(rows, training=training), inputs)
        loss = tf.cast(self.loss(targets, outputs, sample_weights), tf.float32)
        loss *= of_outputs * _replicas()  # by which Keras's loss objects divide
        for added in self.losses:  # of layers, and penalties on weights: shares that sum to 1
            loss += of_added * tf.reduce_sum(tf.cast(added, tf.float32))
        self.compute_metrics(inputs, targets, outputs, sample_weights)
        return loss


def _moving(layer: keras.layers.Layer) -> Sequence[keras.Variable]:
    """What a normalization knows of earlier batches."""
    normalizes = isinstance(layer, keras.layers.BatchNormalization)
    return (layer.moving_mean, layer.moving_variance) if normalizes else ()


def _replicas() -> int:
    replicas: int = tf.distribute.get_strategy().num_replicas_in_sync
    return replicas


def _examples(inputs: Any) -> Any:
    return tf.shape(tree.flatten(inputs)[0])[0]


def _as_floats(values: Iterable[Any]) -> list[Any]:
    return [tf.cast(value, tf.float32) for value in values]


def _over_replicas(values: Sequence[Any]) -> list[Any]:
    """Sums over all devices, as float32: up to 2^24 terms are counted exactly."""
    floats = _as_floats(values)
    context = tf.distribute.get_replica_context()
    if _replicas() == 1 or context is None:
        return floats
    return tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(floats)), num=len(floats))


def _dense(gradient: Any, weight: Any) -> Any:
    """The rows of an embedding differ from part to part."""
    if gradient is None:
        return None
    dense = tf.convert_to_tensor(gradient)
    dense.set_shape(weight.shape)
    return dense


def _pairs(sums: list[Any], gradients: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Sums and what is added to them."""
    for total, gradient in zip(sums, gradients, strict=True):
        dense = _dense(gradient, total)
        yield total, tf.zeros_like(total) if dense is None else dense
