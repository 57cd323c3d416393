"""Progress of training: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dlcli.console import console

REFRESH_SECONDS = 0.1
PLAIN_SECONDS = 30.0
"""Without a terminal, a line this often within an epoch, so that a log shows life but stays short."""


class TrainingProgress(keras.callbacks.Callback):
    """Shows epoch, step, loss, metrics, examples a second and the time left.

    Args:
        epochs: epochs in all.
        steps: steps in an epoch.
        batch_size: examples a step.
        unit: what an example is called: `images` or `rows`.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, unit: str) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.unit = unit
        self.live = console.is_terminal and not console.quiet
        self._progress: Progress | None = None
        self._task: Any = None
        self._epoch = 0
        self._first_step = 0
        """Of this epoch, done here: not the first one where an interrupted epoch goes on."""
        self._first_of_all: int | None = None
        self._start = self._shown = self._epoch_start = self._last_step = 0.0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Opens the bar."""
        self._start = time.perf_counter()
        if self.live:
            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task(
                "train", total=self.epochs * self.steps, epoch="", metrics=""
            )
            self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts counting an epoch."""
        self._epoch, self._first_step = epoch, -1
        self._epoch_start = self._shown = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Sees where an epoch begins or goes on."""
        if self._first_step < 0:
            self._first_step = batch
        if self._first_of_all is None:
            self._first_of_all = self._epoch * self.steps + batch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Updates at most ten times a second; plain lines every half minute."""
        now = self._last_step = time.perf_counter()
        if now - self._shown < (REFRESH_SECONDS if self._progress else PLAIN_SECONDS):
            return
        self._shown = now
        text = f"{_metrics(logs)}  {self._rate(batch + 1)}"
        if self._progress:
            done = self._epoch * self.steps + batch + 1
            self._progress.update(
                self._task, completed=done, epoch=f"{self._epoch + 1}/{self.epochs}", metrics=text
            )
        else:
            left = self._time_left(self._epoch * self.steps + batch + 1)
            _line(f"epoch {self._epoch + 1}/{self.epochs}  step {batch + 1}/{self.steps}  {text}  {left}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """One lasting line an epoch."""
        seconds = time.perf_counter() - self._epoch_start
        _line(f"epoch {epoch + 1}/{self.epochs}  {_metrics(logs)}  {self._rate(self.steps)}  {seconds:.1f} s")

    def _time_left(self, done: int) -> str:
        """From the steps since training began or went on."""
        here = done - (self._first_of_all or 0)
        seconds = (time.perf_counter() - self._start) / max(here, 1) * (self.epochs * self.steps - done)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"

    def _rate(self, steps: int) -> str:
        """Examples a second of this epoch's training so far, here; validation does not count."""
        rate = (
            (steps - max(self._first_step, 0))
            * self.batch_size
            / max(self._last_step - self._epoch_start, 1e-9)
        )
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the bar."""
        self.close()

    def close(self) -> None:
        """Closes the bar, also when training ended with an error."""
        if self._progress:
            self._progress.stop()
            self._progress = None


def _metrics(logs: dict[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())


def _line(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
