"""The training state at the end of an epoch: weights, optimizer, seed generators, callbacks; enough to go on.

Keras's BackupAndRestore keeps neither callback state nor seed generators, so a resumed run differs. Here the stream is
a pure function of (seed, step), and this file holds the rest.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from dlcli.errors import DlcliError
from dlcli.files import atomic_path
from dlcli.training.callbacks import History, KeepBest

PARTS = ("trainable_variables", "non_trainable_variables", "optimizer_variables")


@dataclass(frozen=True)
class Place:
    """How far a training has come."""

    stage: int = 0
    """Index of the stage that is on."""
    stage_began: int = 0
    """Epochs that were done when it began."""
    epochs_done: int = 0
    stopped: bool = False
    """Whether early stopping has ended the stage."""


class Resumable(Protocol):
    """A callback that can go on where another one stopped."""

    def get_state(self) -> dict[str, Any]:
        """Plain numbers."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `get_state`."""


class Checkpoint(keras.callbacks.Callback):
    """Writes `last.npz` at each epoch's end. Stands last in the list: what it writes is what the others reached.

    Args:
        path: the file.
        history: its rows are part of the state.
        keep_best: its best value is part of the state; its weights are in model.keras.
    """

    def __init__(self, path: Path, history: History, keep_best: KeepBest) -> None:
        super().__init__()
        self.path = path
        self.history = history
        self.keep_best = keep_best
        self.begin_stage(0, Place(), ())

    def begin_stage(self, number: int, place: Place, stateful: Sequence[Resumable]) -> None:
        """Keeps the state of these callbacks, which remember earlier epochs, from now on."""
        self.stage, self.stage_began, self.stateful = number, place.stage_began, stateful

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves."""
        arrays: dict[str, np.ndarray] = {}
        for part in PARTS:
            for index, variable in enumerate(_variables(self.model, part)):
                arrays[f"{part}/{index}"] = keras.ops.convert_to_numpy(variable)
        meta = {
            "epochs_done": epoch + 1,
            "stage": self.stage,
            "stage_began": self.stage_began,
            "stopped": bool(self.model.stop_training),
            "history": self.history.rows,
            "best": self.keep_best.best,
            "best_epoch": self.keep_best.best_epoch,
            "callbacks": [callback.get_state() for callback in self.stateful],
        }
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        with atomic_path(self.path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy's stub takes every keyword for allow_pickle

    def place(self) -> Place:
        """How far the interrupted training had come.

        Raises:
            DlcliError: the file is missing or damaged.
        """
        _, meta = self._read()
        return Place(meta["stage"], meta["stage_began"], meta["epochs_done"], meta["stopped"])

    def restore(self, network: keras.Model, best_weights: list[np.ndarray]) -> None:
        """Puts the saved state back.

        Raises:
            DlcliError: the file is missing, damaged or of another model.
        """
        arrays, meta = self._read()
        for part in PARTS:
            for index, variable in enumerate(_variables(network, part)):
                value = arrays.get(f"{part}/{index}")
                if value is None or value.shape != tuple(variable.shape):
                    raise DlcliError(f"{self.path}: does not fit the recipe beside it ({part} {index})")
                variable.assign(value)
        self.history.rows = meta["history"]
        self.keep_best.continue_from(meta["best"], meta["best_epoch"], best_weights)
        for callback, state in zip(self.stateful, meta["callbacks"], strict=True):
            callback.set_state(state)

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            meta = json.loads(arrays.pop("meta").tobytes())
        except FileNotFoundError:
            raise DlcliError(f"{self.path}: no checkpoint to resume from; train the recipe anew") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DlcliError(f"{self.path}: damaged checkpoint ({error}); train the recipe anew") from error
        return arrays, meta


def _variables(network: keras.Model, part: str) -> list[keras.Variable]:
    if part == "optimizer_variables":
        return list(network.optimizer.variables)
    if part == "trainable_variables":
        return list(network.trainable_variables)
    return list(network.non_trainable_variables)
