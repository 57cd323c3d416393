"""What must be as it was when a training goes on, and what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from dlcli.console import note, warn
from dlcli.data import IMAGE_KINDS
from dlcli.data.examples import DataInfo
from dlcli.errors import DlcliError
from dlcli.recipe.flat import flattened
from dlcli.recipe.schema import PerNetwork, Recipe
from dlcli.runs import Run, installed_version, processor
from dlcli.training.finetune import source_sha256

HARMLESS = (
    "training.checkpoint", "training.epochs", "training.on_nan", "training.on_out_of_memory", "metrics.samples",
    "processor",
)  # fmt: skip
"""What may differ without a word from the user, though it is shown: it changes no step, or at most its last bits, or
was asked for, as more epochs are."""

SPAN_NOTHING = ("constant", "reduce_on_plateau")
"""Schedules for which it does not matter how many epochs there are."""

_MISSING = "nothing"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    key: str
    """What `--allow-change` takes."""
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.was)} when it was saved, now {_shown(self.now)}"


def about_training(recipe: Recipe, data: DataInfo) -> dict[str, Any]:
    """What a checkpoint says of the training that it belongs to."""
    strategy = tf.distribute.get_strategy()
    kinds = {tf.DeviceSpec.from_string(device).device_type for device in strategy.extended.worker_devices}
    packages = ["dlcli", "keras", "tensorflow", "numpy"]
    packages += ["pillow"] if data.kind in IMAGE_KINDS else []
    packages += ["tokenizers"] if data.tokenizer is not None else []
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": data.fingerprint,
        "vocabulary": data.tokenizer and hashlib.sha256(data.tokenizer.json.encode()).hexdigest(),
        "source": source_sha256(recipe),
        "versions": {name: installed_version(name) for name in packages},
        "processor": processor(),
        "devices": {"kinds": sorted(kinds), "replicas": strategy.num_replicas_in_sync},
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """All in which two trainings differ, by what `about_training` says."""
    was = {**flattened(saved["recipe"]), **saved["versions"]}
    here = {**flattened(now["recipe"]), **now["versions"]}
    found = [
        Difference(key, was.get(key), here.get(key))
        for key in dict.fromkeys([*was, *here])
        if was.get(key) != here.get(key) and not _is_place(key)
    ]
    return found + [
        Difference(key, saved.get(key), now.get(key))
        for key in ("data", "vocabulary", "source", "devices", "processor")
        if saved.get(key) != now.get(key)
    ]


def at_beginning(
    about: Mapping[str, Any], recipe: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """What `about_training` said when a run began that has no checkpoint, by what its folder holds."""
    then = environment.get("versions", {})
    return {
        **about,
        "recipe": recipe,
        "data": environment.get("data_fingerprint"),
        "source": environment.get("source_sha256"),
        "versions": {name: then.get(name) for name in about["versions"]},
        "processor": environment.get("machine", {}).get("cpu"),
    }


def check_changes(run: Run, found: Iterable[Difference], allowed: Sequence[str]) -> list[Difference]:
    """Shows what differs, and refuses what can matter and was not allowed.

    Args:
        run: that is to go on.
        found: by `differences`.
        allowed: keys or sections (`optimizer`), from `--allow-change`.

    Returns:
        All of them.

    Raises:
        DlcliError: some can matter.
    """
    found = list(found)
    refused = []
    for difference in found:
        if _is_below(difference.key, HARMLESS):
            note(f"{run.path}: {difference}{_of_schedule(difference, run.recipe)}")
        elif _is_below(difference.key, allowed):
            warn(f"{difference}; from here on this is another training than the one that began")
        else:
            refused.append(difference)
    if refused:
        lines = "\n".join(f"  {difference}" for difference in refused)
        keys = " ".join(f"--allow-change {difference.key}" for difference in refused)
        raise DlcliError(
            f"{run.path}: not everything is as it was when this run stopped:\n{lines}\n"
            f"Put it back, or go on nevertheless with: {keys}"
        )
    return found


def _of_schedule(difference: Difference, recipe: Recipe) -> str:
    """What more epochs do to a learning rate that falls over all of them."""
    specs = (
        [spec for _, spec in recipe.schedule]
        if isinstance(recipe.schedule, PerNetwork)
        else [recipe.schedule]
    )
    spanning = [spec.name for spec in specs if spec.name not in SPAN_NOTHING]
    if difference.key != "training.epochs" or not spanning:
        return ""
    return (
        f"; schedule {spanning[0]} is from here on that of {difference.now} epochs, where it depends on them"
    )


def _is_place(key: str) -> bool:
    """Whether a key says where the data are; what they are is compared by their fingerprint."""
    return key.startswith("dataset.") and key.endswith("path")


def _is_below(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _shown(value: Any) -> str:
    if value is None:
        return _MISSING
    text = f"{value}"
    return f"{text[:12]}..." if isinstance(value, str) and len(text) == 64 else text[:200]
