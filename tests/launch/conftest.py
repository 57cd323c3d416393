"""Workers that are started once for several tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from team import Team
from two_workers import DROPPED, run, written


@pytest.fixture
def no_gpus_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the texts that some recipes read."""
    made = tmp_path_factory.mktemp("two_workers")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for mood, word in (("bad", "awful"), ("good", "lovely")):
            (made / "texts" / split / mood).mkdir(parents=True)
            for number in range(24):
                words = [word, *draw.choice(["the", "film", "was", "so", "and"], draw.integers(1, 9))]
                (made / "texts" / split / mood / f"{number}.txt").write_text(" ".join(words))
    (made / "texts.txt").write_text(" ".join(draw.choice(["to", "be", "or", "not", "that"], 400)))
    return made


@pytest.fixture(scope="module")
def uninterrupted(team: Team, folder: Path) -> Path:
    """A run of DROPPED by two workers; its recipe stands beside it."""
    run(team, folder, "uninterrupted", "train", written(folder, DROPPED, "dropped"))
    return folder / "uninterrupted"
