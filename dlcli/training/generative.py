"""What a training that draws images leaves beside the model: samples of each epoch, distances, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from dlcli.evaluation.samples.sampling import write_animation
from dlcli.runs import Run
from dlcli.tasks.generative import GenerativeTask
from dlcli.training.health import Health, warnings_of
from dlcli.training.sample_grid import SampleGrid
from dlcli.training.sample_metrics import MeasureSamples

if TYPE_CHECKING:
    from dlcli.training.job import Job


def generative_callbacks(job: Job, run: Run) -> list[keras.callbacks.Callback]:
    """Callbacks that look at what was drawn; they stand behind the one that puts averaged weights in.

    `MeasureSamples` adds distances to the logs of an epoch, which the callbacks behind it read.
    """
    task, model = job.models.task, job.models.predictor
    if not isinstance(task, GenerativeTask):
        return []
    seed = job.recipe.training.seed
    real = job.data.train if job.data.validation is None else job.data.validation
    return [
        MeasureSamples(task, model, real, job.recipe.metrics, seed),
        SampleGrid(task, model, real, run.path / "samples", seed),
        Health(task, model, real, run.path, seed),
    ]


def finish_samples(run: Run) -> list[dict[str, Any]]:
    """Makes one moving picture of the epochs' samples; returns the warnings of the training."""
    write_animation(run.path / "samples", run.path / "samples" / "training.gif")
    return warnings_of(run.path)
