"""What a training that draws images leaves beside the model: samples of each epoch, distances, warnings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from dlcli.evaluation.samples.sampling import write_animation
from dlcli.runs import Run
from dlcli.tasks.generative import GenerativeTask
from dlcli.training.agreement import Agreement, outside
from dlcli.training.health import Health, warnings_of
from dlcli.training.sample_grid import SampleGrid
from dlcli.training.sample_metrics import MeasureSamples

if TYPE_CHECKING:
    from dlcli.training.job import Job


def generative_callbacks(job: Job, run: Run) -> list[keras.callbacks.Callback]:
    """Callbacks that look at what was drawn; they stand behind the one that puts averaged weights in.

    `MeasureSamples` adds distances to the logs of an epoch, which the callbacks behind it read. Of several workers the
    chief alone draws.
    """
    task, model = job.models.task, job.models.predictor
    if not isinstance(task, GenerativeTask):
        return []
    seed = job.recipe.training.seed
    real = job.data.train if job.data.validation is None else job.data.validation
    looking = [
        MeasureSamples(task, model, real, job.recipe.metrics, seed),
        SampleGrid(task, model, real, run.path / "samples", seed),
        Health(task, model, real, run.path, seed),
    ]
    return looking if job.agreement.workers == 1 else [OnChief(looking, job.agreement)]


class OnChief(keras.callbacks.Callback):
    """Lets the chief alone look at what was drawn, and all workers decide by what it found.

    Each would find something else in the last digits on another processor; then one stops early, and the others wait.

    Args:
        callbacks: that look.
        agreement: of the workers.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], agreement: Agreement) -> None:
        super().__init__()
        self.callbacks, self.agreement = list(callbacks) if agreement.is_chief else [], agreement

    def set_model(self, model: keras.Model) -> None:
        """Hands it on."""
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Hands it on."""
        for callback in self.callbacks:
            outside(partial(callback.on_epoch_begin, epoch, logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws, and tells the others what came out."""
        found = {name: float(value) for name, value in (logs or {}).items()}
        for callback in self.callbacks:
            outside(partial(callback.on_epoch_end, epoch, found))
        if logs is not None:
            logs |= json.loads(self.agreement.from_chief(json.dumps(found)))


def finish_samples(run: Run) -> list[dict[str, Any]]:
    """Makes one moving picture of the epochs' samples; returns the warnings of the training."""
    write_animation(run.path / "samples", run.path / "samples" / "training.gif")
    return warnings_of(run.path)
