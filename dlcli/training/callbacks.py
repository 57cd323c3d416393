"""What happens between steps and epochs: the best model kept, NaN refused, history written."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dlcli.errors import NotFiniteError
from dlcli.files import atomic_path, sha256_of, write_text
from dlcli.runs import Run
from dlcli.training.agreement import outside
from dlcli.training.lora import best_weights, save_merged


class KeepBest(keras.callbacks.Callback):
    """Saves the predictor whenever the monitored metric improves, and remembers those weights.

    Keras's ModelCheckpoint writes in place (killed while saving, it leaves no readable file) and saves the network
    that trains, not the predictor.

    Args:
        predictor: the model to save; it shares its weights with the network that trains.
        path: where `model.keras` stands.
        monitor: key of the epoch's logs; None keeps the last epoch.
        mode: whether a larger or a smaller value is better.
        parts: models to keep beside it, by the names of their files.
        writes: whether this process is the one of several workers that saves.
    """

    def __init__(
        self,
        predictor: keras.Model,
        path: Path,
        monitor: str | None,
        mode: Literal["max", "min"],
        parts: Mapping[str, keras.Model] | None = None,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.writes = writes
        self.predictor = predictor
        self.path = path
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.parts = dict(parts or {})
        self._weights: list[np.ndarray] | None = None
        self._sha256: str | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares, and saves if it is better."""
        value = (logs or {})[self.monitor] if self.monitor else None
        if value is not None and not math.isfinite(value):
            return
        if value is not None and self.best is not None and not self._is_better(value):
            return
        weights = self.predictor.get_weights()
        everything = [weights, *(part.get_weights() for part in self.parts.values())]
        if not all(np.isfinite(each).all() for some in everything for each in some if each.dtype.kind == "f"):
            # A ReLU turns NaN into 0 on a CPU, so the loss can stay finite.
            raise NotFiniteError("weights", None, epoch)
        self.best, self.best_epoch, self._weights = value, epoch, weights
        if self.writes:
            outside(self._save)

    def _save(self) -> None:
        for name, part in self.parts.items():
            with atomic_path(self.path.with_name(f"{name}.keras")) as temporary:
                part.save(temporary)
        with atomic_path(self.path) as temporary:
            save_merged(self.predictor, temporary)
        self._sha256 = sha256_of(self.path)

    def _is_better(self, value: float) -> bool:
        # Of two equal epochs the later one: it has trained longer, at a smaller learning rate.
        return value >= self.best if self.mode == "max" else value <= self.best  # type: ignore[operator]

    def get_state(self) -> dict[str, Any]:
        """What was best so far; the weights of it are in `model.keras`."""
        return {
            "monitor": self.monitor, "best": self.best, "best_epoch": self.best_epoch, "sha256": self._sha256,
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what an interrupted run had kept.

        A model that was written after this state is of an epoch that is trained again, perhaps otherwise: then
        nothing counts as the best so far; nor where another metric decides now.
        """
        self.best = self.best_epoch = self._sha256 = self._weights = None
        if not self.writes:  # nobody asks what it has kept
            return
        if (
            state["best_epoch"] is None
            or state["monitor"] != self.monitor
            or (self.path.is_file() and state["sha256"] != sha256_of(self.path))
        ):
            return
        self._weights = outside(lambda: best_weights(self.predictor, Run(self.path.parent).model))
        self.best, self.best_epoch, self._sha256 = state["best"], state["best_epoch"], state["sha256"]

    def restore(self) -> None:
        """Puts the kept weights back into the models."""
        if self._weights is not None:
            self.predictor.set_weights(self._weights)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's early stopping, which can go on where an interrupted run stopped."""

    _continued: dict[str, Any] | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts counting, or goes on."""
        super().on_train_begin(logs)
        for name, value in (self._continued or {}).items():
            setattr(self, name, value)

    def get_state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        best = None if self.best is None else float(self.best)
        return {"monitor": self.monitor, "best": best, "wait": self.wait, "best_epoch": self.best_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`; where another metric decides now, it starts counting."""
        self._continued = state if state["monitor"] == self.monitor else None


class AverageWeights(keras.callbacks.SwapEMAWeights):
    """Puts the average of the weights into the model for validation and for what is saved at an epoch's end.

    Keras's class adds and subtracts to exchange two values, which changes their last bits, and copies the average over
    the weights that train once the last epoch ends: then nobody could go on from there.
    """

    def __init__(self) -> None:
        super().__init__(swap_on_epoch=True)

    def _tf_swap_variables(self, optimizer: keras.optimizers.Optimizer) -> None:
        def exchange(weight: tf.Variable, average: tf.Variable) -> None:
            kept = tf.identity(weight)
            weight.assign(average)
            average.assign(kept)

        averages = optimizer._model_variables_moving_average
        for weight, average in zip(optimizer._trainable_variables, averages, strict=True):
            if average is not None:
                extended = optimizer._distribution_strategy.extended
                extended.update(_of_tensorflow(weight), exchange, args=(_of_tensorflow(average),))

    def _finalize_ema_values(self) -> None:
        """Nothing: the model holds the average already, and the optimizer what a longer training goes on with."""

    def get_state(self) -> dict[str, Any]:
        """At an epoch's end the model holds the average, and the optimizer the weights that train."""
        return {"_ema_weights_in_model": self._ema_weights_in_model}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`."""
        self._ema_weights_in_model = state["_ema_weights_in_model"]


def _of_tensorflow(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable


class StopOnNaN(keras.callbacks.Callback):
    """Ends training at the first loss that is not finite; Keras would go on and report nan."""

    _epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which one is on."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the running loss, which stays NaN once a step was."""
        for name, loss in (logs or {}).items():
            if name.endswith("loss") and not math.isfinite(loss):
                raise NotFiniteError(name.replace("_", " "), float(loss), self._epoch, batch)


class History(keras.callbacks.Callback):
    """Writes `history.csv` anew after each epoch: loss, metrics, learning rate, seconds, examples a second.

    Args:
        path: the file.
        examples: examples in one epoch.
    """

    def __init__(self, path: Path, examples: int) -> None:
        super().__init__()
        self.path = path
        self.examples = examples
        self.rows: list[dict[str, float]] = []
        self._start = 0.0
        self._train_seconds = 0.0
        self._before = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock; it goes on where it stood in an epoch that was interrupted."""
        self._start = self._train_seconds = time.perf_counter() - self._before
        self._before = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Notes when the last step ended, so that validation does not count as training time."""
        self._train_seconds = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds a row."""
        seconds = max(self._train_seconds - self._start, 1e-9)
        row: dict[str, float] = {"epoch": epoch + 1, **(logs or {})}
        for name, optimizer in _optimizers(self.model).items():
            row[name] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self._start, 3)
        row["examples_per_second"] = round(self.examples / seconds, 1)
        self.rows.append(row)
        text = io.StringIO()
        # A training that goes on may have other metrics than before.
        names = dict.fromkeys(name for each in self.rows for name in each)
        writer = csv.DictWriter(text, fieldnames=list(names), restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
        self._start = time.perf_counter()

    def get_state(self) -> dict[str, Any]:
        """The rows, and the seconds of the epoch that is on."""
        return {"rows": self.rows, "seconds": time.perf_counter() - self._start}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`."""
        self.rows, self._before = state["rows"], state["seconds"]

    def columns(self) -> dict[str, list[float]]:
        """The rows, column by column."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name, math.nan) for row in self.rows] for name in names}


def _optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Name of a column -> whose learning rate it shows."""
    players = getattr(model, "players", {})
    if len(players) < 2:
        return {"learning_rate": model.optimizer}
    return {f"{player}_learning_rate": model.optimizer_of(player) for player in players}
