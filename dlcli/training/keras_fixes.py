"""What Keras 3.15 does wrong on several devices, and what stands here in its place.

No module of Keras is patched: where it fails, dlcli goes another way, which stays right once Keras mends itself.
tests/training/test_keras_distribution_faults.py shows each fault in Keras alone, and fails when it is gone: then what
stands here for it can go too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from dlcli.training.agreement import Agreement


class Fault(NamedTuple):
    """A fault of Keras under tf.distribute."""

    issue: str
    """Of keras-team/keras; empty where nobody has reported it."""
    keras: str
    """What Keras alone does."""
    here: str
    """What dlcli does."""


FAULTS = (
    Fault(
        "20585",
        "fit under MultiWorkerMirroredStrategy raises: scalars are reduced over an axis that they do not have",
        "`distributed_step` reduces the logs of a step itself",
    ),
    Fault(
        "19246",
        "steps_per_execution above 1 on several replicas raises InvalidArgumentError",
        "`settled` sets it to 1, and says so",
    ),
    Fault(
        "19005",
        "jit_compile on several replicas raises: resources of another device",
        "`distributed_step` compiles without XLA",
    ),
    Fault(
        "20582",
        "gradient_accumulation_steps on several replicas raises: merge_call inside cond",
        "`AccumulatingModel` cuts a batch into parts, and applies their sum once",
    ),
    Fault(
        "",
        "clipnorm, clipvalue and global_clipnorm look at one replica's gradients, before they are summed",
        "`with_summed_gradients` sums first",
    ),
    Fault(
        "",
        "layers with random draws, such as dropout, draw the same numbers on every replica",
        "`replica_state.own_draws` gives each replica its own",
    ),
    Fault(
        "",
        "moving averages of normalization that is not synchronized differ, and those of the first replica are saved",
        "`replica_state.agree` takes their mean",
    ),
    Fault(
        "",
        "replicas with fewer examples, or fewer tokens, count as much as the others",
        "`AccumulatingModel` weighs each by its terms of the loss",
    ),
    Fault(
        "",
        "synchronized normalization counts every row, and takes its variance as E[x^2] - E[x]^2",
        "`empty_parts.synchronize` leaves out rows that stand for none, and combines the variances of all devices",
    ),
    Fault(
        "",
        "LossScaleOptimizer looks at the first replica's gradients, before they are summed",
        "`several_devices` refuses mixed_float16",
    ),
    Fault(
        "",
        "optimizers square each occurrence of an embedding's row, and not the sum of its gradients",
        "`PositionEmbedding` cuts its rows off instead of looking them up; of tokens it is as on one device",
    ),
)


def distributed_step(
    network: keras.Model, step: Callable[[Any], Mapping[str, Any]], agreement: Agreement
) -> Callable[[Any], dict[str, Any]]:
    """A step on all replicas as one graph: Keras's `make_train_function` for more than one of them.

    Args:
        network: built in the strategy's scope.
        step: its `train_step` or `test_step`.
        agreement: what workers tell each other with a step.

    Returns:
        A function of an iterator, whose elements are a tuple with a batch for each replica of this process (an iterator
        of the strategy's own has handed them out already): the logs, means over all replicas.
    """
    strategy = network.distribute_strategy
    here = len(strategy.extended.worker_devices)
    names: list[str] = []

    def on_replica(parts: Any, handed_out: bool) -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        logs = step(parts if handed_out else parts[tf.get_static_value(replica) % here])
        names[:] = list(logs)
        # One vector, so that workers exchange it at once.
        return tf.stack([*(tf.cast(value, tf.float32) for value in logs.values()), *agreement.wishes()])

    @tf.function(reduce_retracing=True)
    def on_all(iterator: Any) -> tf.Tensor:
        handed_out = isinstance(iterator, tf.distribute.DistributedIterator)
        found = strategy.run(on_replica, args=(iterator.get_next(), handed_out))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, found, axis=None)

    def function(iterator: Any) -> dict[str, Any]:
        values = on_all(iterator).numpy()
        agreement.hear(values[len(names) :])
        return dict(zip(names, values, strict=False))

    return function


def with_summed_gradients(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """The optimizer's class, which sees the gradients of all replicas together: also where it clips them."""

    class WithSummedGradients(kind):
        """Its parent, later."""

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            """One update."""
            context = tf.distribute.get_replica_context()
            if context is None or context.num_replicas_in_sync == 1:
                super().apply(grads, trainable_variables)
                return
            given = [gradient for gradient in grads if gradient is not None]
            summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, given) if given else ())
            self._passed = False
            super().apply([None if each is None else next(summed) for each in grads], trainable_variables)
            if given and not self._passed:
                raise RuntimeError(
                    f"Keras {keras.__version__} sums gradients elsewhere than dlcli expects: they would count twice"
                )

        def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
            context = tf.distribute.get_replica_context()
            if context is None or context.num_replicas_in_sync == 1:
                return super()._all_reduce_sum_gradients(grads_and_vars)
            self._passed = True
            return list(grads_and_vars)

    WithSummedGradients.__name__ = kind.__name__
    return WithSummedGradients
