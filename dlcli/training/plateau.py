"""Reduce the learning rate on a plateau: the schedule, and the callback that watches the metric."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import KerasTensor, ops
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable("dlcli")
class PlateauSchedule(LearningRateSchedule):
    """A learning rate times a variable, which `PlateauCallback` changes.

    Keras's own callback assigns `optimizer.learning_rate`, which fails once a schedule (a warm-up) is there.

    Args:
        learning_rate: at the beginning.
        factor: of each reduction.
        patience: epochs without improvement before a reduction.
        min_learning_rate: it never falls below.
        min_delta: a smaller change is no improvement.
        cooldown: epochs after a reduction that do not count.
        scale: product of the reductions so far.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        factor: float = 0.1,
        patience: int = 5,
        min_learning_rate: float = 0.0,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        scale: float = 1.0,
    ) -> None:
        self.learning_rate = learning_rate
        self.factor = factor
        self.patience = patience
        self.min_learning_rate = min_learning_rate
        self.min_delta = min_delta
        self.cooldown = cooldown
        self.scale = keras.Variable(scale, dtype="float32", trainable=False, name="plateau_scale")

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate now; `step` gives the shape alone."""
        now = ops.maximum(self.learning_rate * self.scale, self.min_learning_rate)
        return now * ops.ones_like(step, dtype="float32")

    def reduce(self) -> bool:
        """Reduce once; False when the smallest learning rate is reached already."""
        scale = float(ops.convert_to_numpy(self.scale))
        if self.learning_rate * scale <= self.min_learning_rate:
            return False
        self.scale.assign(scale * self.factor)
        return True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the scale of now."""
        return {
            "learning_rate": self.learning_rate,
            "factor": self.factor,
            "patience": self.patience,
            "min_learning_rate": self.min_learning_rate,
            "min_delta": self.min_delta,
            "cooldown": self.cooldown,
            "scale": float(ops.convert_to_numpy(self.scale)),
        }


class PlateauCallback(keras.callbacks.Callback):
    """Reduces a `PlateauSchedule` schedule when `monitor` has not improved for its patience.

    Args:
        schedule: what to reduce.
        monitor: a name among the logs of an epoch, such as `val_loss`.
        mode: whether a smaller or a larger value is better.
    """

    def __init__(self, schedule: PlateauSchedule, monitor: str, mode: Literal["min", "max"]) -> None:
        super().__init__()
        self.schedule = schedule
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self.wait = 0
        self.cooldown_counter = 0

    @property
    def scale(self) -> float:
        """Product of the reductions so far."""
        return float(ops.convert_to_numpy(self.schedule.scale))

    @scale.setter
    def scale(self, value: float) -> None:
        self.schedule.scale.assign(value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare with the best epoch so far."""
        logs = logs or {}
        if self.monitor not in logs:
            known = ", ".join(logs) or "nothing"
            raise ValueError(f"Expected {self.monitor!r} in the logs of the epoch. Received: {known}")
        cooling = self.cooldown_counter > 0
        self.cooldown_counter = max(0, self.cooldown_counter - 1)
        if self._improved(float(logs[self.monitor])):
            self.best, self.wait = float(logs[self.monitor]), 0
            return
        self.wait = 0 if cooling else self.wait + 1
        if self.wait >= self.schedule.patience:
            self.wait = 0
            if self.schedule.reduce():
                self.cooldown_counter = self.schedule.cooldown

    def get_state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        return {name: getattr(self, name) for name in ("best", "wait", "cooldown_counter", "scale")}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a `get_state`."""
        for name, value in state.items():
            setattr(self, name, value)

    def _improved(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.schedule.min_delta


def find_plateau(schedule: Any) -> PlateauSchedule | None:
    """The `PlateauSchedule` in a schedule, also behind a warm-up; None if there is none."""
    while schedule is not None and not isinstance(schedule, PlateauSchedule):
        schedule = getattr(schedule, "schedule", None)
    return schedule
