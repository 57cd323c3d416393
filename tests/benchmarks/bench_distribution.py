"""What sharing a batch costs, and brings: two parts of the CPU, and two processes, over one process with all of it.

python -m pytest -m benchmark -o python_files='bench_*.py' -s tests/benchmarks/bench_distribution.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.launch.environment import worker_environments
from dlcli.launch.workers import Workers
from dlcli.recipe.load import dump_recipe, load_recipe

pytestmark = pytest.mark.benchmark

ROUNDS, STEPS = 3, 30

RECIPES = {
    "digits, cnn, batch 64": ("digits_cnn", ()),
    "CIFAR-like, resnet 8, batch 128": (
        "cifar10_resnet20",
        ("architecture.depth=8", "dataset.name=image_folder", "dataset.augmentation=[]"),
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 images of 32 x 32 pixels in two classes."""
    folder, draws = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(512):
        path = folder / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


def timed(recipe: Path, folder: Path, workers: int) -> float:
    """Examples a second of a few steps in new processes."""
    (folder / "request").write_text(json.dumps({"recipe": str(recipe), "steps": STEPS}))
    command = [
        sys.executable,
        "-P",
        "-m",
        "dlcli.launch.timing",
        str(folder / "request"),
        str(folder / "result"),
    ]
    if workers == 1:
        subprocess.run(command, check=True)
    else:
        with Workers(command, worker_environments(workers, ())) as processes:
            while processes.alive:
                processes.next_end(0.5)
    found = json.loads((folder / "result.0").read_text())
    return float(found["examples_per_second"])


@pytest.mark.parametrize("name", RECIPES)
def test_two_over_one(name: str, tmp_path: Path, images: Path) -> None:
    base, changes = RECIPES[name]
    own = [f"dataset.path={images}"] if "image_folder" in str(changes) else []
    recipes = {}
    for kind, more in (("one process", []), ("two logical devices", ["distribution.logical_devices=2"])):
        recipes[kind] = tmp_path / f"{kind}.yaml"
        recipes[kind].write_text(dump_recipe(load_recipe(base, [*changes, *own, *more])))
    print(f"\n{name}: examples/s, rounds of {STEPS} steps")
    ratios: dict[str, list[float]] = {"two logical devices": [], "two processes": []}
    for _ in range(ROUNDS):
        one = timed(recipes["one process"], tmp_path, 1)
        ratios["two logical devices"].append(timed(recipes["two logical devices"], tmp_path, 1) / one)
        ratios["two processes"].append(timed(recipes["one process"], tmp_path, 2) / one)
        print(
            f"  one process {one:,.0f}; "
            + "; ".join(f"{kind} {each[-1]:.2f}" for kind, each in ratios.items())
        )
    assert all(ratio > 0 for each in ratios.values() for ratio in each)
