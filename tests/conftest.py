"""Fixtures of the whole suite: no test reads or writes the user's caches, and no test needs a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.backend import load_backend

load_backend()

MakeFolders = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = tmp_path_factory.getbasetemp() / "caches"
    monkeypatch.setenv("DLCLI_CACHE", str(caches / "dlcli"))
    monkeypatch.setenv("KERAS_HOME", str(caches / "keras"))


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Waiting for the disk takes longer than a tiny training; what it is for, no test can see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True)
def _no_trial_load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file from outside is loaded in a process of its own first, which costs four seconds each time."""
    if "trial_load" not in request.fixturenames:
        monkeypatch.setattr("dlcli.pretrained.model_file.try_loading", lambda copy: None)


@pytest.fixture
def trial_load() -> None:
    """Model files from outside are tried in a process of their own, as they are for users."""


@pytest.fixture
def class_folders(tmp_path: Path) -> MakeFolders:
    """Writes `split/CLASS/000.png` images whose class is their brightness: learnable at a glance."""

    def make(
        classes: tuple[str, ...] = ("cat", "dog", "owl"),
        size: int = 12,
        channels: int = 3,
        per_class: int = 8,
        splits: tuple[str, ...] = ("train", "test"),
    ) -> Path:
        random = np.random.default_rng(0)
        root = tmp_path / "pictures"
        for split in splits:
            for index, name in enumerate(classes):
                folder = root / split / name
                folder.mkdir(parents=True)
                level = 30 + 200 * index // max(1, len(classes) - 1)
                for number in range(per_class):
                    pixels = np.clip(random.normal(level, 8, (size, size, channels)), 0, 255).astype("uint8")
                    Image.fromarray(pixels.squeeze()).save(folder / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and evaluation without drawing, which takes longer than a tiny training.

    What a module-scoped fixture trains is drawn all the same.
    """
    from dlcli.evaluation import evaluate
    from dlcli.training import train

    for module in (evaluate, train):
        for name in [name for name in vars(module) if name.startswith(("plot_", "_plot_"))]:
            monkeypatch.setattr(module, name, lambda *arguments: None)
