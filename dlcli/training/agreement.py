"""What workers tell each other beside gradients: none of them can save, stop or decide while the others go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

Found = TypeVar("Found")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""In the order of their weight: where workers got different ones, the first counts."""


class Agreement:
    """Wishes of one worker that all of them hear: a checkpoint by the chief's clock, a signal that any one got.

    They travel with the logs of a step, so that they cost no message of their own, and are heard with the next one. A
    process alone hears itself at once. All methods are called in the strategy's scope, by all workers in one order.

    Args:
        workers: processes.
        worker: which of them this one is; 0 is the chief, which writes the run folder.
    """

    def __init__(self, workers: int = 1, worker: int = 0) -> None:
        self.workers, self.is_chief = workers, worker == 0
        self._wishes = (
            tf.Variable(tf.zeros(1 + len(_SIGNALS)), trainable=False, name="wishes") if workers > 1 else None
        )
        self._heard: tuple[bool, int | None] = (False, None)

    def wishes(self) -> list[Any]:
        """In a step's graph: numbers to be reduced to their mean over all replicas."""
        return [] if self._wishes is None else tf.unstack(self._wishes)

    def hear(self, means: Any) -> None:
        """Takes what came of all `wishes`, after a step."""
        if self._wishes is not None:
            received = [number for number, mean in zip(_SIGNALS, means[1:], strict=True) if mean > 0]
            self._heard = bool(means[0] > 0), int(received[0]) if received else None

    def exchange(self, due: bool, received: int | None) -> tuple[bool, int | None]:
        """Says what this worker wishes, and what all have agreed on.

        Args:
            due: whether a checkpoint shall be written.
            received: number of the signal that asks for an end.

        Returns:
            The same of all workers, as it was wished before the last step.
        """
        if self._wishes is None:
            return due, received
        heard = self._heard
        wished = [self.is_chief and due and not heard[0], *(received == number for number in _SIGNALS)]
        self._wishes.assign([float(each) for each in wished])
        return heard

    def from_chief(self, text: str) -> str:
        """The chief's text, on every worker; they wait for each other here."""
        if self.workers == 1:
            return text
        content = np.frombuffer(text.encode() if self.is_chief else b"", np.uint8)
        length = int(self._sum(np.array([content.size], np.int32))[0])
        if length == 0:  # which no collective takes
            return ""
        padded = np.zeros(length, np.int32)
        padded[: content.size] = content
        return bytes(self._sum(padded).astype(np.uint8)).decode()

    def equalize(self, variables: Any) -> None:
        """Gives all workers the chief's values: another processor rounds what is learnt before training otherwise."""
        if self.workers == 1:
            return
        values = [np.asarray(variable) for variable in variables]
        for kind in dict.fromkeys(value.dtype for value in values):
            # One message for all of a kind.
            own = [
                (variable, value)
                for variable, value in zip(variables, values, strict=True)
                if value.dtype == kind
            ]
            flat = np.concatenate([value.ravel() for _, value in own])
            chiefs = self._sum(flat if self.is_chief else np.zeros_like(flat))
            ends = np.cumsum([value.size for _, value in own])[:-1]
            for (variable, value), each in zip(own, np.split(chiefs, ends), strict=True):
                variable.assign(each.reshape(value.shape))

    def count(self, holds: bool) -> int:
        """For how many workers it holds."""
        return int(holds) if self.workers == 1 else int(self._sum(np.array([holds], np.int32))[0])

    def meet(self) -> None:
        """Waits until all workers are here."""
        self.from_chief("")

    def _sum(self, mine: np.ndarray) -> np.ndarray:
        """Over all workers; what the first device of each adds."""
        strategy = tf.distribute.get_strategy()
        here = len(strategy.extended.worker_devices)

        def on_replica(values: Any) -> Any:
            context = tf.distribute.get_replica_context()
            first = tf.get_static_value(context.replica_id_in_sync_group) % here == 0
            counted = tf.identity(values) if first else tf.zeros_like(values)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, counted)

        found = tf.function(lambda values: strategy.run(on_replica, args=(values,)))(tf.constant(mine))
        return np.asarray(strategy.experimental_local_results(found)[0])


def outside(work: Callable[[], Found]) -> Found:
    """Does what one process does by itself, such as saving or loading a model, outside of the strategy.

    In its scope every new variable is made by all workers together, and would wait for them. The scope is of a thread.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return work()
    found: list[Found] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  raised again where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)  # Ctrl-C shall not wait for it
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
