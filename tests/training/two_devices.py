"""Recipes on one device and on two halves of it: `python two_devices.py FOLDER < CASES` prints how they differ.

Each case of the JSON list has a name, `recipe` (the text), `changes` (`key=value` each) and perhaps `source`, the text
of a recipe that is trained first and then fine-tuned. Both trainings are the whole of `dlcli train`, in this process.
"""
# ruff: noqa: E402  the backend is loaded before what imports it

from __future__ import annotations

import csv
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}

from dlcli.backend import load_backend

load_backend()

import keras
import numpy as np
import tensorflow as tf

from dlcli.evaluation import evaluate
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run
from dlcli.training import train as training
from dlcli.training.checkpoint_store import CheckpointStore

ONE = ("distribution.strategy=none",)
TWO = ("distribution.logical_devices=2",)
WITHOUT_EFFECT = "key/bias"
"""Of attention: what it adds to all scores, a softmax cancels. Its gradient is rounding, which most optimizers blow up."""
KEPT = ("trainable", "non_trainable", "optimizer")
"""Parts of a checkpoint that are compared; metrics are in the history."""


def prepare_tensorflow() -> None:
    """Two devices, and nothing that takes longer than it saves in so few steps."""
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    os.fsync = lambda fd: None
    for module in (evaluate, training):
        for name in [name for name in vars(module) if name.startswith(("plot_", "_plot_"))]:
            setattr(module, name, lambda *arguments: None)


def trained(case: dict[str, Any], folder: Path, name: str, changes: tuple[str, ...]) -> Run:
    keras.backend.clear_session(free_memory=False)
    path = folder / f"{name}.yaml"
    path.write_text(case["recipe"])
    recipe = load_recipe(path, [*case.get("changes", ()), *changes])
    if "source" not in case:
        return training.train(recipe, name, folder / name)
    source = folder / "source"
    if not source.exists():
        (folder / "source.yaml").write_text(case["source"])
        training.train(load_recipe(folder / "source.yaml", ONE), "source", source)
    return training.finetune(recipe, name, str(source), folder / name)


def state(run: Run) -> dict[str, np.ndarray]:
    """What the training reached: the last checkpoint, without what has no effect."""
    saved = CheckpointStore(run.checkpoints, 2).newest()
    if saved is None:
        raise RuntimeError(f"no checkpoint in {run.path}")
    names = {
        f"{part}/{index}": name
        for part, all_ in saved.progress["variables"].items()
        for index, name in enumerate(all_)
    }
    return {
        key: value for key, value in saved.arrays().items() if not names.get(key, "").endswith(WITHOUT_EFFECT)
    }


def compared(one: Run, two: Run) -> dict[str, Any]:
    """The largest differences of what two runs left behind."""
    first, second = state(one), state(two)
    if first.keys() != second.keys():
        raise RuntimeError(f"other variables: {sorted(first.keys() ^ second.keys())}")
    begun, ended = (
        row[next(key for key in row if key.endswith("loss"))] for row in (history(one)[0], history(one)[-1])
    )
    models = [
        [np.asarray(weight) for weight in run.model.weights if not weight.path.endswith(WITHOUT_EFFECT)]
        for run in (one, two)
    ]
    return {
        **{part: largest((first[key], second[key]) for key in first if key.startswith(f"{part}/")) for part in KEPT},
        "moved": abs(ended - begun),
        "normalizes_batches": any(isinstance(each, keras.layers.BatchNormalization) for each in one.model._flatten_layers()),
        "model": largest(zip(*models, strict=True)),
        "histories": [history(run) for run in (one, two)],
        "metrics": [numbers(run.metrics["metrics"]) for run in (one, two)],
        "best_epochs": [run.metrics["training"]["best_epoch"] for run in (one, two)],
        "distributions": [list(run.recipe.distribution.model_dump().values()) for run in (one, two)],
    }  # fmt: skip


def largest(pairs: Any) -> float:
    """Relative to values above 1, such as moving variances and the sums of an optimizer."""
    found = [
        float(np.max(np.abs(a.astype(float) - b) / np.maximum(1, np.abs(a.astype(float)))))
        for a, b in pairs
        if a.size and a.dtype.kind == "f"
    ]
    return max(found, default=0.0)


def history(run: Run) -> list[dict[str, float]]:
    with (run.path / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in rows]


def numbers(metrics: Any, path: str = "") -> dict[str, float]:
    """All numbers of a report, however deep they lie."""
    if isinstance(metrics, dict):
        return {
            key: found
            for name, value in metrics.items()
            for key, found in numbers(value, f"{path}/{name}").items()
        }
    return {path: float(metrics)} if isinstance(metrics, int | float) else {}


def main() -> None:
    prepare_tensorflow()
    results = {}
    for number, case in enumerate(json.load(sys.stdin)):
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir(parents=True)
        begun = time.process_time()
        try:
            runs = [trained(case, folder, name, changes) for name, changes in (("one", ONE), ("two", TWO))]
            results[case["name"]] = compared(*runs)
        except Exception:  # noqa: BLE001  of one case; the others are tried all the same
            results[case["name"]] = {"error": traceback.format_exc()}
        results[case["name"]]["seconds"] = time.process_time() - begun
    print(json.dumps(results))


if __name__ == "__main__":
    main()
