"""The whole state of a training, from which it goes on as if it had never stopped.

Keras's BackupAndRestore keeps neither callback state nor seed generators nor the place in the data. Here the stream is
a pure function of (seed, step), and this file holds the rest: weights, optimizer, seed generators, running metrics, and
what the callbacks remember.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras.src.random.seed_generator import global_seed_generator  # Keras has no public way to it

from dlcli.errors import DlcliError, NotFiniteError, OutputError
from dlcli.recipe.schema import Checkpoints
from dlcli.training.agreement import Agreement
from dlcli.training.checkpoint_store import CheckpointStore, Place, Saved
from dlcli.training.interrupts import Interrupts

LEARNT = ("trainable", "non_trainable", "optimizer")
"""What must be finite to go on from."""


class Resumable(Protocol):
    """What can go on where another one stopped."""

    def get_state(self) -> dict[str, Any]:
        """Plain numbers, texts and lists."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`."""


class Checkpoint(keras.callbacks.Callback):
    """Saves at the times that the recipe names, at each epoch's end, and when the training is to stop.

    Stands last in the list: what it saves is what the others reached.

    Args:
        store: where to.
        settings: when, beside the epochs' ends.
        interrupts: a signal is obeyed here, once all is saved.
        about: what a training that goes on compares itself with: recipe, data, versions.
        steps_per_epoch: to count the steps of the training.
        home: a file that the run's folder has held from its beginning: without it the folder is another one.
        agreement: of the workers, which save and stop at the same step, and of which the chief writes; None for a
            process alone.
    """

    def __init__(
        self,
        store: CheckpointStore,
        settings: Checkpoints,
        interrupts: Interrupts,
        about: Mapping[str, Any],
        steps_per_epoch: int,
        home: Path,
        agreement: Agreement | None = None,
    ) -> None:
        super().__init__()
        self.agreement = agreement or Agreement()
        self._signal: int | None = None
        self.store, self.settings, self.interrupts, self.about = store, settings, interrupts, about
        self.steps_per_epoch, self.home = steps_per_epoch, home
        self.saved_place: Place | None = None
        """Where the newest checkpoint is."""
        self._place = Place()
        self._remembering: Mapping[str, Resumable] = {}
        self._metrics: list[np.ndarray] | None = None
        self._last = time.monotonic()

    def begin_stage(self, network: keras.Model, place: Place, remembering: Mapping[str, Resumable]) -> None:
        """From now on the state of these is saved too, by their names."""
        self.set_model(network)
        self._place, self._remembering, self._metrics = place, remembering, None
        self._last = time.monotonic()

    def restore(self, saved: Saved, place: Place) -> None:
        """Puts a saved state back; the metrics follow when the epoch begins, since Keras sets them to zero there.

        Args:
            saved: of this training.
            place: where it goes on: inside an epoch the metrics of its first steps count.

        Raises:
            DlcliError: it is of another model.
        """
        arrays, here = saved.arrays(), _variables(self.model)
        for part, names in _names(here).items():
            if names != saved.progress["variables"][part]:
                raise DlcliError(f"{saved.path}: does not fit the recipe: {_other(part, saved, names)}")
        for part, variables in here.items():
            for index, variable in enumerate(variables):
                value = arrays[f"{part}/{index}"]
                if value.shape != tuple(variable.shape):
                    raise DlcliError(
                        f"{saved.path}: does not fit the recipe: {variable.path} has the shape "
                        f"{tuple(variable.shape)}, and {value.shape} was saved"
                    )
        for part, variables in here.items():
            values = [arrays[f"{part}/{index}"] for index in range(len(variables))]
            if part == "metrics":
                self._metrics = values if place.step else None
                continue
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        for name, state in saved.progress["callbacks"].items():
            if name in self._remembering:
                self._remembering[name].set_state(state)
        self.saved_place = saved.place

    def save(self, place: Place, metrics: list[np.ndarray] | None = None) -> None:
        """Saves the state as it is now.

        Args:
            place: reached.
            metrics: values of the metrics; those of now when left out.

        Raises:
            NotFiniteError: a weight is NaN or infinite: nobody wants to go on from there.
            OutputError: the disk is full, or the folder is gone.
        """
        if self.agreement.is_chief and not self.home.is_file():
            raise OutputError(f"{self.home}: is gone, and the run's folder with it; nothing more is written")
        here = _variables(self.model)
        arrays = {
            f"{part}/{index}": keras.ops.convert_to_numpy(variable)
            for part, variables in here.items()
            for index, variable in enumerate(variables)
        }
        if metrics is not None:
            arrays |= {f"metrics/{index}": value for index, value in enumerate(metrics)}
        for name, value in arrays.items():
            if name.startswith(LEARNT) and value.dtype.kind == "f" and not np.isfinite(value).all():
                done = place.epochs_done * self.steps_per_epoch + place.step
                raise NotFiniteError("weights", None, *divmod(done - 1, self.steps_per_epoch))
        progress = {
            **self.about,
            "place": asdict(place),
            "steps_per_epoch": self.steps_per_epoch,
            "variables": _names(here),
            "callbacks": {name: each.get_state() for name, each in self._remembering.items()},
        }
        step = place.epochs_done * self.steps_per_epoch + place.step
        if self.agreement.is_chief:
            self.store.write(place.epochs_done, step, arrays, progress)
        self.saved_place = place
        self._last = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts the metrics of a part of an epoch back."""
        self._epoch = epoch
        for variable, value in zip(_metric_variables(self.model), self._metrics or (), strict=False):
            variable.assign(value)
        self._metrics = None

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Saves if it is time, or the training is to stop."""
        before_end = batch + 1 < self.steps_per_epoch  # where another one is near
        due, self._signal = self.agreement.exchange(
            before_end and self._is_due_by_clock(), self.interrupts.received
        )
        due = before_end and (due or self._is_due_by_count(batch + 1))
        if due or self._signal is not None:
            self.save(self._at(self._epoch, batch + 1))
            self.interrupts.stop_if(self._signal)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keeps the metrics of the steps: validation uses the same variables."""
        self._metrics = [keras.ops.convert_to_numpy(variable) for variable in _metric_variables(self.model)]

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Breaks validation off if the training is to stop: it is done again from its beginning."""
        _, self._signal = self.agreement.exchange(False, self.interrupts.received)
        if self._signal is not None:
            self.model.stop_evaluating = True

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Saves the end of the steps if validation was broken off."""
        metrics, self._metrics = self._metrics, None
        if self._signal is not None:
            self.save(self._at(self._epoch, self.steps_per_epoch), metrics)
            self.interrupts.stop_if(self._signal)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves."""
        self.save(self._at(epoch + 1, 0, stopped=bool(self.model.stop_training)))
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Ends the training between two steps if a signal came; of workers, only all of them do.

        Raises:
            TrainingInterruptedError: exit code 130 or 143.
        """
        self.interrupts.stop_if(self.interrupts.received if self.agreement.workers == 1 else self._signal)

    def _is_due_by_count(self, steps: int) -> bool:
        every = self.settings.every_steps
        done = self._epoch * self.steps_per_epoch + steps
        return every is not None and done // every > (done - self.model.steps_per_execution) // every

    def _is_due_by_clock(self) -> bool:
        minutes = self.settings.every_minutes
        return minutes is not None and time.monotonic() - self._last >= 60 * minutes

    def _at(self, epochs_done: int, step: int, *, stopped: bool = False) -> Place:
        return Place(self._place.stage, self._place.stage_began, epochs_done, step, stopped)


def _variables(network: keras.Model) -> dict[str, list[keras.Variable]]:
    """All that changes while a network trains."""
    return {
        "trainable": list(network.trainable_variables),
        "non_trainable": list(network.non_trainable_variables),
        "optimizer": list(network.optimizer.variables),
        "metrics": _metric_variables(network),
        # Of operations with randomness that were given no seed.
        "global_seed": [global_seed_generator().state],
    }


def _metric_variables(network: keras.Model) -> list[keras.Variable]:
    return [variable for metric in network.metrics for variable in metric.variables]


def _names(variables: Mapping[str, list[keras.Variable]]) -> dict[str, list[str]]:
    """Each variable's path without the numbers that tell layers of one process apart."""
    return {
        part: [re.sub(r"_\d+(?=[/_]|$)", "", each.path) for each in known]
        for part, known in variables.items()
    }


def _other(part: str, saved: Saved, here: list[str]) -> str:
    known: list[str] = saved.progress["variables"][part]
    first = next(
        (index for index, pair in enumerate(zip(known, here, strict=False)) if pair[0] != pair[1]), None
    )
    if first is None:
        return f"{len(known)} {part} variables were saved, and it has {len(here)}"
    return f"{part} variable {first} was {known[first]}, and is {here[first]}"
