"""The schedule classes that Keras lacks: functions of the step, which may be a number or an array of them."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import KerasTensor, ops
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable("dlcli")
class Constant(LearningRateSchedule):
    """One learning rate throughout."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate at `step`."""
        return self.learning_rate * ops.ones_like(step, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"learning_rate": self.learning_rate}


@keras.saving.register_keras_serializable("dlcli")
class WarmUp(LearningRateSchedule):
    """A straight line from `start` to `target` over `warmup_steps`, then a schedule from its step 0 on."""

    def __init__(
        self, schedule: LearningRateSchedule, target: float, warmup_steps: int, start: float = 0.0
    ) -> None:
        self.schedule = schedule
        self.target = target
        self.warmup_steps = warmup_steps
        self.start = start

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate at `step`."""
        # Steps stay integers, so that schedules with floor() are exact.
        after = ops.maximum(step - self.warmup_steps, 0)
        progress = ops.cast(step, "float32") / self.warmup_steps
        line = self.start + (self.target - self.start) * progress
        return ops.where(step < self.warmup_steps, line, self.schedule(after))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "target": self.target,
            "warmup_steps": self.warmup_steps,
            "start": self.start,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """The schedule that `get_config` described."""
        return cls(**{**config, "schedule": keras.saving.deserialize_keras_object(config["schedule"])})


@keras.saving.register_keras_serializable("dlcli")
class Cyclical(LearningRateSchedule):
    """Triangles between two learning rates (Smith 2017, arXiv 1506.01186, section 3.1).

    Args:
        learning_rate: the peak.
        step_size: half a cycle, in steps.
        mode: triangular, triangular2 or exp_range.
        minimum_factor: the valley, as a share of the peak.
        gamma: of exp_range, for each step.
    """

    def __init__(
        self, learning_rate: float, step_size: int, mode: str, minimum_factor: float, gamma: float
    ) -> None:
        self.learning_rate = learning_rate
        self.step_size = step_size
        self.mode = mode
        self.minimum_factor = minimum_factor
        self.gamma = gamma

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate at `step`."""
        step = ops.cast(step, "float32")
        finished = ops.floor(step / (2 * self.step_size))  # whole cycles
        height = 1 - ops.abs(step / self.step_size - 2 * finished - 1)
        if self.mode == "triangular2":
            height *= ops.power(0.5, finished)
        elif self.mode == "exp_range":
            height *= ops.power(self.gamma, step)
        valley = self.learning_rate * self.minimum_factor
        return valley + (self.learning_rate - valley) * height

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "step_size": self.step_size,
            "mode": self.mode,
            "minimum_factor": self.minimum_factor,
            "gamma": self.gamma,
        }


@keras.saving.register_keras_serializable("dlcli")
class OneCycle(LearningRateSchedule):
    """Up to the peak and down to the end (Smith and Topin 2018, arXiv 1708.07120).

    Args:
        learning_rate: the peak.
        peak_step: where it lies.
        total_steps: where the end is reached.
        anneal: linear or cosine.
        start_factor: the beginning, as a share of the peak.
        end_factor: the end, as a share of the peak.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        peak_step: int,
        total_steps: int,
        anneal: str,
        start_factor: float,
        end_factor: float,
    ) -> None:
        self.learning_rate = learning_rate
        self.peak_step = peak_step
        self.total_steps = total_steps
        self.anneal = anneal
        self.start_factor = start_factor
        self.end_factor = end_factor

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate at `step`."""
        step = ops.cast(step, "float32")
        descent = max(1, self.total_steps - self.peak_step)
        up = self._eased(step / self.peak_step)
        down = self._eased((step - self.peak_step) / descent)
        factor = ops.where(
            step < self.peak_step,
            self.start_factor + (1 - self.start_factor) * up,
            1 + (self.end_factor - 1) * down,
        )
        return self.learning_rate * factor

    def _eased(self, progress: KerasTensor) -> KerasTensor:
        progress = ops.clip(progress, 0.0, 1.0)
        return progress if self.anneal == "linear" else (1 - ops.cos(math.pi * progress)) / 2

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "peak_step": self.peak_step,
            "total_steps": self.total_steps,
            "anneal": self.anneal,
            "start_factor": self.start_factor,
            "end_factor": self.end_factor,
        }
