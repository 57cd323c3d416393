"""What must be as it was when a training goes on, and what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from dlcli.console import note, warn
from dlcli.data import IMAGE_KINDS
from dlcli.data.examples import DataInfo
from dlcli.errors import DlcliError
from dlcli.recipe.flat import flattened
from dlcli.recipe.names import suggest
from dlcli.recipe.schema import PerNetwork, Recipe
from dlcli.runs import Run, installed_version, processor
from dlcli.training.checkpoint_store import Place, Saved
from dlcli.training.finetune import source_sha256
from dlcli.training.stages import stages_of

HARMLESS = (
    "training.checkpoint", "training.epochs", "training.on_nan", "training.on_out_of_memory", "metrics.samples",
    "processor", "replicas", "distribution",
)  # fmt: skip
"""What may differ without a word from the user, though it is shown: it changes no step, or at most its last bits, or
was asked for, as more epochs are."""

BESIDE = ("data", "vocabulary", "source", "devices", "replicas", "processor")
"""What is compared beside the recipe and versions."""

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
    was, here = ({**flattened(each["recipe"]), **each["versions"]} for each in (saved, now))
    beside_was, beside_here = (_beside(each) for each in (saved, now))
    found = [
        Difference(key, was.get(key), here.get(key))
        for key in dict.fromkeys([*was, *here])
        if was.get(key) != here.get(key) and not is_place(key)
    ]
    return found + [
        Difference(key, beside_was.get(key), beside_here.get(key))
        for key in BESIDE
        if beside_was.get(key) != beside_here.get(key)
    ]


def _beside(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared beside recipe and versions; how many devices there are apart from what they are."""
    devices = about.get("devices") or {}
    return {**about, "devices": devices.get("kinds"), "replicas": devices.get("replicas")}


def at_beginning(about: Mapping[str, Any], recipe: Recipe, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What `about_training` said when a run began that has no checkpoint, by what its folder holds."""
    then = environment.get("versions", {})
    return {
        **about,
        "recipe": recipe.model_dump(mode="json"),
        "data": environment.get("data_fingerprint"),
        "source": environment.get("source_sha256"),
        "versions": {name: then.get(name) for name in about["versions"]},
        "processor": environment.get("machine", {}).get("cpu"),
    }


def check_changes(
    run: Run, saved: Mapping[str, Any], now: Mapping[str, Any], allowed: Sequence[str]
) -> list[Difference]:
    """Shows what differs, and refuses what can matter and was not allowed.

    Args:
        run: that is to go on.
        saved: what `about_training` said then.
        now: what it says here.
        allowed: keys or sections (`optimizer`), from `--allow-change`.

    Returns:
        All that differs.

    Raises:
        DlcliError: some of it can matter; or there is no such key.
    """
    _check_keys(allowed, saved, now)
    found = differences(saved, now)
    harmless = [each for each in found if _is_below(each.key, HARMLESS)]
    accepted = [each for each in found if each not in harmless and _is_below(each.key, allowed)]
    refused = [each for each in found if each not in harmless and each not in accepted]
    for each in harmless:
        note(f"{run.path}: {each}{_of_schedule(each, run.recipe)}")
    if refused:
        sections = [each.key.split(".")[0] for each in refused]
        keys = dict.fromkeys(
            section if sections.count(section) > 2 else each.key
            for section, each in zip(sections, refused, strict=True)
        )
        raise DlcliError(
            f"{run.path}: not everything is as it was when this run stopped:\n"
            + "\n".join(f"  {each}" for each in refused)
            + "\nPut it back, or go on nevertheless with: "
            + " ".join(f"--allow-change {key}" for key in keys)
        )
    if accepted:
        lines = "\n".join(f"  {each}" for each in accepted)
        warn(f"from here on this is another training than the one that began:\n{lines}")
    return found


def _check_keys(allowed: Sequence[str], saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses keys of `--allow-change` that nothing has.

    Raises:
        DlcliError: with the nearest one.
    """
    known: set[str] = set(BESIDE)
    for about in (saved, now):
        known |= {*about["versions"]}
        for key in flattened(about["recipe"]):
            parts = key.split(".")
            known |= {".".join(parts[: count + 1]) for count in range(len(parts))}
    for key in allowed:
        if key not in known:
            near = suggest(key, sorted(known))
            raise DlcliError(
                f"--allow-change {key}: nothing has this name"
                + (f"; did you mean {near}?" if near else "; take a key that a refusal names")
            )


def is_complete(saved: Saved, recipe: Recipe) -> bool:
    """Whether a recipe has nothing left to do after a checkpoint."""
    place, stages = place_of(saved, recipe), stages_of(recipe)
    if place.stage < len(stages) - 1:
        return False
    return place.stopped or place.epochs_done >= place.stage_began + stages[-1].epochs


def place_of(saved: Saved, recipe: Recipe, steps_per_epoch: int | None = None) -> Place:
    """Where a training goes on.

    Not where it stopped, if early stopping is another one now; and at the beginning of an epoch that has other steps.
    """
    place, then = saved.place, saved.progress["recipe"]["regularization"]["early_stopping"]
    stopping = recipe.regularization.early_stopping
    if place.stopped and then != (stopping and stopping.model_dump(mode="json")):
        place = replace(place, stopped=False)
    aligned = place.step % recipe.training.steps_per_execution == 0
    if (
        place.step
        and steps_per_epoch
        and (saved.progress["steps_per_epoch"] != steps_per_epoch or not aligned)
    ):
        warn(
            f"epoch {place.epochs_done + 1} has other steps now: it begins anew, with the weights that were reached"
        )
        place = replace(place, step=0)
    return place


def warn_of_another_recipe(run: Run, given: Recipe) -> None:
    """Says where a run that goes on with its own recipe was given another one.

    Args:
        run: whose recipe says what its devices made of the one that it began with.
        given: resolved.
    """
    was, now = (flattened(each.model_dump(mode="json")) for each in (run.recipe, given))
    scaled = given.training.batch_size_per_replica is not None
    other = [
        f"{key}: {_shown(now.get(key))}, the run has {_shown(was.get(key))}"
        for key in dict.fromkeys([*now, *was])
        if was.get(key) != now.get(key)
        and not is_place(key)
        and key not in _SETTLED
        and not (scaled and (key == "training.batch_size" or key.endswith("learning_rate")))
    ]
    if other:
        warn(
            f"{run.path} goes on with its own recipe; what was given now differs, and is not used (--resume "
            f"{run.path} --set ... changes a run): {'; '.join(other)}"
        )


_SETTLED = (
    "training.batch_size_per_replica",
    "training.scale_learning_rate",
    "training.steps_per_execution",
    "finetune",
)
"""Keys that `dlcli.training.settled` or a training from scratch sets in the recipe of a run."""


def refuse_fewer(run: Run, saved: Saved, recipe: Recipe) -> None:
    """Refuses to go on with less than what is done: the recipe would say what was never trained.

    Raises:
        DlcliError: fewer stages or epochs.
    """
    place, stages = saved.place, stages_of(recipe)
    if place.stage >= len(stages):
        raise DlcliError(
            f"{run.path}: stage {place.stage + 1} is on, and finetune.stages has {len(stages)} now"
        )
    wanted = place.stage_began + stages[place.stage].epochs
    if place.epochs_done + (place.step > 0) > wanted:
        raise DlcliError(
            f"{run.path}: {place.epochs_done} epochs are done already, and now there shall be {wanted}: "
            "train the recipe anew for fewer"
        )


def refuse_idle_changes(run: Run, recipe: Recipe) -> None:
    """Refuses changes of a complete run that would change nothing.

    Raises:
        DlcliError: it names them, and why more epochs are none.
    """
    was, here = (flattened(each.model_dump(mode="json")) for each in (run.recipe, recipe))
    idle = [key for key in here if here[key] != was.get(key) and not is_place(key)]
    if not idle:
        return
    why = "its training is complete"
    if "training.epochs" in idle and recipe.finetune is not None and recipe.finetune.stages:
        why = "finetune.stages says how many epochs there are"
    elif "training.epochs" in idle:
        why = (
            "early stopping has ended it (--set regularization.early_stopping=null --allow-change "
            "regularization.early_stopping goes on), or so many epochs are done"
        )
    raise DlcliError(f"{run.path}: {', '.join(idle)} would change nothing: {why}")


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


def is_place(key: str) -> bool:
    """Whether a recipe's key says where the data are; what they are is compared by their fingerprint."""
    return key.startswith("dataset.") and key.endswith("path")


def _is_below(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _shown(value: Any) -> str:
    if value is None:
        return _MISSING
    text = f"{value}"
    return f"{text[:12]}..." if isinstance(value, str) and len(text) == 64 else text[:200]
