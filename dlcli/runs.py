"""The run folder: what training leaves behind, and what every later command takes.

recipe.yaml       resolved: every default written out
model.keras       best by the monitored metric; raw inputs in, predictions out; of generative tasks what draws
tokenizer.json    of texts: the vocabulary, as the training found it
discriminator.keras, encoder.keras, ...  what a generative task has beside it
samples/          of generative tasks: what it drew after each epoch
checkpoints/      the newest states of the training, from any of which it goes on
metrics_after_N_epochs.json  those of a complete run, before it was trained further
history.csv       one row an epoch
failures.json     NaN and lack of memory, and what was changed to go on
metrics.json      scores of the kept model on the test split (else validation)
environment.json  versions, devices, command, data fingerprint
plots/            pictures
tensorboard/      event files
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcli.errors import DlcliError
from dlcli.files import is_temporary, new_folder, sha256_of, write_text

if TYPE_CHECKING:
    import keras

    from dlcli.recipe.schema import Recipe

LOCK = ".lock"
"""In the folder of a run that is being trained: who trains it."""

_REPLACE = "put back a copy of it, or train the recipe anew"


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def model_path(self) -> Path:
        """The saved model."""
        return self.path / "model.keras"

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    @property
    def tokenizer_path(self) -> Path:
        """The vocabulary of a training on texts, for when it goes on; `model.keras` holds it too."""
        return self.path / "tokenizer.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the training's states."""
        return self.path / "checkpoints"

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe that made this run."""
        from dlcli.recipe.load import load_recipe

        return load_recipe(self.path / "recipe.yaml")

    @cached_property
    def model(self) -> keras.Model:
        """The saved model: raw inputs (uint8 pixels, table columns) -> probabilities or values."""
        if not self.model_path.is_file():
            if self.metrics:
                raise DlcliError(f"{self.path} holds no model.keras, though its training ended; {_REPLACE}")
            raise DlcliError(
                f"{self.path} holds no model.keras: training stopped before its first epoch ended; train it again"
            )
        return self.part(self.model_path.stem)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the models that were kept beside the run's own, sorted."""
        return tuple(sorted(path.stem for path in self.path.glob("*.keras") if path != self.model_path))

    def part_path(self, name: str) -> Path:
        """Where a model of that name stands."""
        return self.path / f"{name}.keras"

    def part(self, name: str) -> keras.Model:
        """A model that was kept beside the run's own: `discriminator` of a GAN."""
        from dlcli.backend import load_backend

        load_backend()
        from dlcli.pretrained.model_file import load_model_file

        path = self.part_path(name)
        if not path.is_file():
            raise DlcliError(f"{self.path} holds no {path.name}; {_REPLACE}")
        known = (self.metrics.get("training") or {}).get("sha256", {}).get(path.name)
        if known not in (None, sha256_of(path)):
            raise DlcliError(
                f"{path}: is not the model that this run was scored with (its sha256 differs); {_REPLACE}"
            )
        return load_model_file(path, advice=_REPLACE)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order; for regression the names of the target columns; empty where there are none."""
        return tuple(getattr(self.model.layers[-1], "class_names", ()))

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds; empty while there is none."""
        path = self.path / "metrics.json"
        if not path.is_file():
            return {}
        found = _read_json(path)
        if not (isinstance(found.get("metrics"), dict) and isinstance(found.get("training"), dict | None)):
            raise DlcliError(
                f"{path}: holds no scores of a run; put back a copy, or score it again: dlcli evaluate"
            )
        return found

    @property
    def has_ended(self) -> bool:
        """Whether its training has ended; `dlcli evaluate` also scores the best model so far of one that has not."""
        return self.metrics.get("training") is not None

    @property
    def environment(self) -> dict[str, Any]:
        """What `environment.json` holds."""
        return _read_json(self.path / "environment.json")

    @property
    def trained_on(self) -> str | None:
        """Fingerprint of the training data; None when environment.json was not kept."""
        kept = (self.path / "environment.json").is_file()
        return self.environment.get("data_fingerprint") if kept else None


def load_run(path: str | Path) -> Run:
    """Opens a run folder.

    Raises:
        DlcliError: there is no run at `path`.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DlcliError(f"{path}: no such run folder{runs_beside(path)}")
    if not is_run(path):
        raise DlcliError(f"{path}: not a run folder (it has no recipe.yaml); `dlcli train` makes one")
    return Run(path)


def refuse_drawing(run: Run, command: str) -> None:
    """Refuses a run whose model draws images, for commands that need one which predicts.

    Args:
        run: of any task.
        command: that was given: `predict`.

    Raises:
        DlcliError: the message says which command takes such a run.
    """
    from dlcli.tasks import GENERATIVE_TASKS

    task = run.recipe.task.name
    if task not in GENERATIVE_TASKS:
        return
    how = (
        "generate RUN --input PHOTOS` translates"
        if task == "image_translation"
        else "generate RUN` draws them"
    )
    # What such a run keeps beside its model reads images.
    advice = (
        f"; `dlcli features` reads images with {run.part_path(run.parts[0])}"
        if run.parts and command == "features"
        else ""
    )
    raise DlcliError(
        f"{run.path}: its task is {task}, whose model makes images and predicts nothing, so `dlcli {command}` has no "
        f"use for it: `dlcli {how}, `dlcli evaluate RUN` compares them with real ones{advice}"
    )


def is_run(path: str | Path) -> bool:
    """Whether there is a run folder at `path`."""
    return (Path(path).expanduser() / "recipe.yaml").is_file()


def runs_beside(path: Path) -> str:
    """`; runs there: a, b` for a message about a path that is not there; empty without any."""
    if not path.parent.is_dir():
        return ""
    near = sorted(found.parent.name for found in path.parent.glob("*/recipe.yaml"))
    return f"; runs there: {', '.join(near[-5:])}" if near else ""


def check_free(out: Path) -> None:
    """Refuses a folder that holds something, before any work is done for it.

    Raises:
        DlcliError: there is something at `out`.
    """
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError:
        raise DlcliError(
            f"--out {out}: is no UTF-8, and TensorBoard writes only below names that are; give another name"
        ) from None
    if out.exists() and (not out.is_dir() or not all(map(_is_of_no_run, out.iterdir()))):
        raise DlcliError(f"--out {out}: is there already and a run is never overwritten; give another folder")


def _is_of_no_run(path: Path) -> bool:
    """Whether a file is there before a run is one: recipe.yaml comes last, and a kill can come before it."""
    return path.name in (LOCK, "tokenizer.json", "environment.json") or is_temporary(path)


def new_run(name: str, out: Path | None) -> Run:
    """Makes the folder of a new run: `out`, or `runs/NAME`, `runs/NAME-2`, ... A run is never overwritten."""
    if out is not None:
        check_free(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DlcliError(
                f"--out {out}: cannot be made ({error.strerror}); give another folder"
            ) from error
        return Run(out)
    try:
        return Run(new_folder(Path("runs") / name))
    except OSError as error:
        raise DlcliError(
            f"{error.filename}: cannot be made ({error.strerror}); choose a folder with --out"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DlcliError(
            f"{path}: cannot be read ({error}); put back a copy, or train the recipe anew"
        ) from error
    if not isinstance(content, dict):
        raise DlcliError(f"{path}: holds no JSON object; put back a copy, or train the recipe anew")
    return content


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, never with NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def environment(fingerprint: str) -> dict[str, Any]:
    """Versions, devices, command and data fingerprint of this process."""
    import tensorflow as tf

    packages = ("dlcli", "keras", "tensorflow", "numpy", "pillow", "scikit-learn", "tokenizers")
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: installed_version(name) for name in packages},
        },
        "platform": platform.platform(),
        "machine": {"cpu": processor(), "cores": os.cpu_count()},
        "devices": [f"{device.device_type}:{device.name}" for device in tf.config.list_physical_devices()],
        "command": ["dlcli", *sys.argv[1:]],
        "data_fingerprint": fingerprint,
    }


def processor() -> str:
    """The processor's name: another one may round the last bit otherwise."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed_version(name: str) -> str | None:
    """The version of an installed package; None when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
