"""A picture of samples after each epoch, always from the same draws, so that one can see a training learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from dlcli.data.examples import Examples
from dlcli.evaluation.samples.grid import Grid, write_grid


class SampleGrid(keras.callbacks.Callback):
    """Writes `epoch_0001.png`, `epoch_0002.png`, ... of what `task.preview` shows.

    A picture is a function of the weights and the seed, and named by its epoch: a resumed training writes the pictures
    that one without a stop would have written.

    Args:
        task: a `GenerativeTask`.
        model: what a run keeps; it shares its weights with the networks that train.
        real: images that the task may show beside those it made.
        folder: where the pictures go.
        seed: of the draws.
    """

    def __init__(self, task: Any, model: keras.Model, real: Examples, folder: Path, seed: int) -> None:
        super().__init__()
        # Keras puts the trainer into `model`.
        self.task, self.predictor, self.real, self.folder, self.seed = task, model, real, folder, seed

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draws; with averaged weights where there are such."""
        grid = Grid(*self.task.preview(self.predictor, self.real, self.seed))
        write_grid(grid, self.folder / f"epoch_{epoch + 1:04d}.png")
