"""Learning-rate schedules: `build(learning_rate, steps, *, ...) -> LearningRateSchedule`.

Keras's own classes where Keras has them. Each is a function of the step alone, save reduce_on_plateau. Times
are given in epochs or in steps; both at once is an error. All can warm up: along a straight line from
`warmup_start_factor * learning_rate` (0 where a builder has no such argument) to `learning_rate`; there the
schedule itself begins, at its step 0, and a time left out means all that remains of the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from dlcli.recipe.arguments import (
    Count,
    Field,
    Fraction,
    Positive,
    PositiveInt,
    Probability,
    Sequence,
    Weight,
)
from dlcli.training.plateau import PlateauCallback, PlateauSchedule, find_plateau
from dlcli.training.schedule_shapes import Constant, Cyclical, OneCycle, WarmUp

__all__ = [
    "PlateauCallback", "PlateauSchedule", "Steps", "constant", "cosine_decay", "cosine_decay_restarts",
    "cyclical", "exponential_decay", "find_plateau", "inverse_time_decay", "learning_rates", "one_cycle",
    "piecewise_constant_decay", "polynomial_decay", "reduce_on_plateau", "step_decay",
]  # fmt: skip

Share = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Steps:
    """How long a training is."""

    per_epoch: int
    total: int
    """Over all epochs."""

    def of(self, name: str, epochs: float | None, count: int | None, default: float) -> int:
        """`<name>_epochs` or `<name>_steps`, whichever was given, in steps; else the default. At least 1.

        Raises:
            ValueError: both were given.
        """
        if epochs is not None and count is not None:
            raise ValueError(
                f"Expected {name}_epochs or {name}_steps, not both. "
                f"Received: {name}_epochs={epochs}, {name}_steps={count}"
            )
        if epochs is not None:
            return max(1, round(epochs * self.per_epoch))
        return max(1, round(default) if count is None else count)

    def warmup(self, epochs: float | None, count: int | None) -> int:
        """Length of the warm-up in steps, 0 for none."""
        length = self.of("warmup", epochs, count, 1)
        return length if epochs or count else 0


def constant(
    learning_rate: float,
    steps: Steps,
    *,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """The same learning rate throughout.

    Args:
        learning_rate: after the warm-up.
        steps: length of the training.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    schedule = Constant(learning_rate)
    return _warmed(schedule, learning_rate, steps.warmup(warmup_epochs, warmup_steps), warmup_start_factor)


def step_decay(
    learning_rate: float,
    steps: Steps,
    *,
    factor: Factor = 0.1,
    every_epochs: Positive | None = None,
    every_steps: PositiveInt | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """Multiply the learning rate by `factor` at regular times.

    Args:
        learning_rate: of the first stage.
        steps: length of the training.
        factor: of one stage to the one before.
        every_epochs: length of a stage; a third of the training when left out.
        every_steps: the same in steps.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    every = steps.of("every", every_epochs, every_steps, (steps.total - warmup) / 3)
    schedule = keras.optimizers.schedules.ExponentialDecay(learning_rate, every, factor, staircase=True)
    return _warmed(schedule, learning_rate, warmup, warmup_start_factor)


def piecewise_constant_decay(
    learning_rate: float,
    steps: Steps,
    *,
    boundaries_epochs: Sequence[Positive] | None = None,
    boundaries_steps: Sequence[PositiveInt] | None = None,
    factors: Sequence[Weight] | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """Stages of constant learning rate, each with its own factor.

    Args:
        learning_rate: what the factors multiply.
        steps: length of the training.
        boundaries_epochs: where a new stage begins; left out, after 1/2 and 3/4 of the training.
        boundaries_steps: the same in steps.
        factors: of the stages, one more than boundaries; left out, each stage has a tenth of the one before.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    if boundaries_epochs is not None and boundaries_steps is not None:
        raise ValueError(
            "Expected boundaries_epochs or boundaries_steps, not both. "
            f"Received: boundaries_epochs={boundaries_epochs}, boundaries_steps={boundaries_steps}"
        )
    remaining = steps.total - warmup
    boundaries = [max(1, remaining // 2), max(2, remaining * 3 // 4)]
    if boundaries_epochs is not None:
        boundaries = [round(epochs * steps.per_epoch) for epochs in boundaries_epochs]
    elif boundaries_steps is not None:
        boundaries = list(boundaries_steps)
    if not boundaries or any(later <= earlier for earlier, later in pairwise(boundaries)):
        raise ValueError(
            f"Expected rising boundaries, at least a step apart. Received: {boundaries} (in steps)"
        )
    factors = [0.1**stage for stage in range(len(boundaries) + 1)] if factors is None else factors
    if len(factors) != len(boundaries) + 1:
        raise ValueError(
            f"Expected one factor more than boundaries, {len(boundaries) + 1}. Received: {factors}"
        )
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        # Keras still gives the old value at the boundary itself; a stage that begins with epoch n must not.
        [boundary - 1 for boundary in boundaries],
        [float(learning_rate * factor) for factor in factors],
    )
    return _warmed(schedule, learning_rate, warmup, warmup_start_factor)


def exponential_decay(
    learning_rate: float,
    steps: Steps,
    *,
    decay_rate: Factor = 0.01,
    staircase: bool = False,
    decay_epochs: Positive | None = None,
    decay_steps: PositiveInt | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """learning_rate * decay_rate ** (step / decay_steps).

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        decay_rate: factor that is reached after the decay time.
        staircase: fall in steps, one each decay time.
        decay_epochs: the decay time.
        decay_steps: the same in steps.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    time = steps.of("decay", decay_epochs, decay_steps, steps.total - warmup)
    schedule = keras.optimizers.schedules.ExponentialDecay(learning_rate, time, decay_rate, staircase)
    return _warmed(schedule, learning_rate, warmup, warmup_start_factor)


def inverse_time_decay(
    learning_rate: float,
    steps: Steps,
    *,
    decay_rate: Positive = 1.0,
    staircase: bool = False,
    decay_epochs: Positive | None = None,
    decay_steps: PositiveInt | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """learning_rate / (1 + decay_rate * step / decay_steps).

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        decay_rate: with 1 the learning rate has halved after the decay time.
        staircase: fall in steps, one each decay time.
        decay_epochs: the decay time.
        decay_steps: the same in steps.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    time = steps.of("decay", decay_epochs, decay_steps, steps.total - warmup)
    schedule = keras.optimizers.schedules.InverseTimeDecay(learning_rate, time, decay_rate, staircase)
    return _warmed(schedule, learning_rate, warmup, warmup_start_factor)


def polynomial_decay(
    learning_rate: float,
    steps: Steps,
    *,
    end_learning_rate: Weight = 0.0,
    power: Positive = 1.0,
    cycle: bool = False,
    decay_epochs: Positive | None = None,
    decay_steps: PositiveInt | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
) -> LearningRateSchedule:
    """From one learning rate to another along a power of the remaining time; with power 1 a straight line.

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        end_learning_rate: after the decay time, and from then on.
        power: of the remaining share of the decay time.
        cycle: begin again, with twice the decay time and so on, instead of staying at the end.
        decay_epochs: the decay time.
        decay_steps: the same in steps.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    time = steps.of("decay", decay_epochs, decay_steps, steps.total - warmup)
    schedule = keras.optimizers.schedules.PolynomialDecay(
        learning_rate, time, end_learning_rate, power, cycle
    )
    return _warmed(schedule, learning_rate, warmup)


def cosine_decay(
    learning_rate: float,
    steps: Steps,
    *,
    alpha: Fraction = 0.0,
    decay_epochs: Positive | None = None,
    decay_steps: PositiveInt | None = None,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
    warmup_start_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """Half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        alpha: share of the learning rate that is left at the end.
        decay_epochs: time from the beginning to the end.
        decay_steps: the same in steps.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
        warmup_start_factor: where the warm-up begins, as a share of the learning rate.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    time = steps.of("decay", decay_epochs, decay_steps, steps.total - warmup)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, time, alpha)
    return _warmed(schedule, learning_rate, warmup, warmup_start_factor)


def cosine_decay_restarts(
    learning_rate: float,
    steps: Steps,
    *,
    first_decay_epochs: Positive | None = None,
    first_decay_steps: PositiveInt | None = None,
    t_mul: Annotated[float, Field(ge=1, le=100)] = 2.0,
    m_mul: Factor = 1.0,
    alpha: Fraction = 0.0,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
) -> LearningRateSchedule:
    """Half cosines, one after the other (SGDR: Loshchilov and Hutter 2017, arXiv 1608.03983).

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        first_decay_epochs: length of the first; left out, a seventh of the training: with `t_mul` 2 the third
            then ends with the training.
        first_decay_steps: the same in steps.
        t_mul: length of each to the one before.
        m_mul: height of each to the one before.
        alpha: share of the learning rate that is left at the end of each.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
    """
    warmup = steps.warmup(warmup_epochs, warmup_steps)
    first = steps.of("first_decay", first_decay_epochs, first_decay_steps, (steps.total - warmup) / 7)
    schedule = keras.optimizers.schedules.CosineDecayRestarts(learning_rate, first, t_mul, m_mul, alpha)
    return _warmed(schedule, learning_rate, warmup)


def cyclical(
    learning_rate: float,
    steps: Steps,
    *,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    minimum_factor: Probability = 0.1,
    step_size_epochs: Positive | None = None,
    step_size_steps: PositiveInt | None = None,
    gamma: Factor = 0.9999,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
) -> LearningRateSchedule:
    """Up and down between two learning rates (Smith 2017, arXiv 1506.01186).

    Args:
        learning_rate: the peak.
        steps: length of the training.
        mode: all peaks alike; half as high above the valley each cycle; or lower by `gamma` each step.
        minimum_factor: the valley, as a share of the learning rate.
        step_size_epochs: half a cycle, from valley to peak; 2 epochs when left out (the paper: 2 to 10).
        step_size_steps: the same in steps.
        gamma: of `exp_range`, for each step.
        warmup_epochs: length of a warm-up before the first valley; the line leads to the valley.
        warmup_steps: the same in steps.
    """
    half = steps.of("step_size", step_size_epochs, step_size_steps, 2 * steps.per_epoch)
    schedule = Cyclical(learning_rate, half, mode, minimum_factor, gamma)
    return _warmed(schedule, learning_rate * minimum_factor, steps.warmup(warmup_epochs, warmup_steps))


def one_cycle(
    learning_rate: float,
    steps: Steps,
    *,
    warmup_fraction: Share = 0.3,
    warmup_epochs: Positive | None = None,
    warmup_steps: PositiveInt | None = None,
    anneal: Literal["linear", "cosine"] = "cosine",
    start_factor: Probability = 0.04,
    end_factor: Probability = 0.0,
) -> LearningRateSchedule:
    """Up once and down once, to the last step (Smith and Topin 2018, arXiv 1708.07120); momentum stays.

    Args:
        learning_rate: the peak.
        steps: length of the training.
        warmup_fraction: where the peak lies, as a share of the training.
        warmup_epochs: where the peak lies, instead of `warmup_fraction`.
        warmup_steps: the same in steps.
        anneal: straight lines or half cosines.
        start_factor: the beginning, as a share of the peak.
        end_factor: the end, as a share of the peak.
    """
    peak = steps.of("warmup", warmup_epochs, warmup_steps, warmup_fraction * steps.total)
    return OneCycle(
        learning_rate,
        peak_step=peak,
        total_steps=steps.total,
        anneal=anneal,
        start_factor=start_factor,
        end_factor=end_factor,
    )


def reduce_on_plateau(
    learning_rate: float,
    steps: Steps,
    *,
    factor: Share = 0.1,
    patience: PositiveInt = 5,
    min_learning_rate: Weight = 0.0,
    min_delta: Weight = 1e-4,
    cooldown: Count = 0,
    warmup_epochs: Weight | None = None,
    warmup_steps: Count | None = None,
) -> LearningRateSchedule:
    """Multiply the learning rate by `factor` when the monitored metric no longer improves.

    The change itself is made by `dlcli.training.plateau.PlateauCallback`, which the training has to be given.

    Args:
        learning_rate: at the beginning.
        steps: length of the training.
        factor: of each reduction.
        patience: epochs without improvement before a reduction.
        min_learning_rate: it never falls below.
        min_delta: a smaller change is no improvement.
        cooldown: epochs after a reduction that do not count.
        warmup_epochs: length of the warm-up.
        warmup_steps: the same in steps.
    """
    schedule = PlateauSchedule(
        learning_rate,
        factor=factor,
        patience=patience,
        min_learning_rate=min_learning_rate,
        min_delta=min_delta,
        cooldown=cooldown,
    )
    return _warmed(schedule, learning_rate, steps.warmup(warmup_epochs, warmup_steps))


def learning_rates(schedule: LearningRateSchedule, steps: np.ndarray) -> np.ndarray:
    """The learning rate at each of `steps`, float64 (N,); all schedules here work elementwise."""
    values = ops.convert_to_numpy(schedule(ops.convert_to_tensor(np.asarray(steps), dtype="int64")))
    return np.broadcast_to(values, np.shape(steps)).astype("float64")


def _warmed(
    schedule: LearningRateSchedule, target: float, warmup_steps: int, start_factor: float = 0.0
) -> LearningRateSchedule:
    """The schedule behind a warm-up that leads to `target`."""
    return WarmUp(schedule, target, warmup_steps, start_factor * target) if warmup_steps else schedule
