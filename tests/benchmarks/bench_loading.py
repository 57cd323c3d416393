"""Reading 60,000 small JPEG files against a plain Pillow loop, and again from the cache.

The folder (train/CLASS/*, test/CLASS/*) is named by DLCLI_CIFAR10; without it the benchmark is skipped.
Run: DLCLI_CIFAR10=cifar10/ make bench
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.data.load import load_source
from dlcli.recipe.load import load_recipe

ROUNDS = 3


def pillow_loop(root: Path) -> None:
    for split in ("train", "test"):
        np.stack(
            [np.asarray(Image.open(path).convert("RGB")) for path in sorted((root / split).glob("*/*.jpg"))]
        )


@pytest.mark.benchmark
def test_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.environ.get("DLCLI_CIFAR10")
    if not data:
        pytest.skip("DLCLI_CIFAR10 names no folder of JPEG files")
    recipe = load_recipe("cifar10_cnn", [f"dataset.path={data}"])
    first, again = [], []
    for number in range(ROUNDS):
        monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / str(number)))
        seconds = []
        for work in (
            lambda: load_source(recipe.dataset),
            lambda: load_source(recipe.dataset),
            lambda: pillow_loop(Path(data)),
        ):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        first.append(seconds[0] / seconds[2])
        again.append(seconds[1] / seconds[2])
        print(f"\nfirst {seconds[0]:.1f} s, cached {seconds[1]:.1f} s, Pillow loop {seconds[2]:.1f} s")
    print(
        f"first {statistics.median(first):.2f}, cached {statistics.median(again):.2f} of the Pillow loop's time"
    )
    assert statistics.median(first) < 0.5
