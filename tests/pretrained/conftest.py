"""Models that are saved, and copies of them that are changed afterwards."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import pytest

from dlcli.errors import DlcliError
from dlcli.pretrained import model_file
from dlcli.pretrained.model_file import load_model_file

Config = dict[str, Any]


class Files:
    """Saves models, changes what was saved, and tells what is said of it."""

    @staticmethod
    def save(model: keras.Model, path: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of lambdas
            model.save(path)
        return path

    @staticmethod
    def refusal(path: Path) -> str:
        """What is said of a file."""
        with pytest.raises(DlcliError) as caught:
            load_model_file(path)
        message = str(caught.value)
        assert message.startswith(f"{path} ") and "; " in message and "\n" not in message
        assert caught.value.exit_code == 2
        return message

    @staticmethod
    def parts_of(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as members:
            return {name: members.read(name) for name in members.namelist()}

    @staticmethod
    def write_archive(path: Path, parts: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w") as members:
            for name, content in parts.items():
                members.writestr(name, content)
        return path

    @staticmethod
    def with_config(source: Path, target: Path, change: Callable[[Config], Any]) -> Path:
        """A copy with another configuration; `change` edits it, or returns a new one."""
        target = target / f"changed{source.suffix}"
        if source.suffix == ".keras":
            parts = Files.parts_of(source)
            config = json.loads(parts["config.json"])
            parts["config.json"] = json.dumps(change(config) or config).encode()
            return Files.write_archive(target, parts)
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(change(config) or config)
        return target

    @staticmethod
    def with_weights(source: Path, target: Path, change: Callable[[h5py.File], Any]) -> Path:
        """A copy with another HDF5 file of weights."""
        target = target / f"changed{source.suffix}"
        parts = Files.parts_of(source) if source.suffix == ".keras" else {}
        content = io.BytesIO(parts.get("model.weights.h5") or source.read_bytes())
        with h5py.File(content, "r+") as file:
            change(file)
        if not parts:
            target.write_bytes(content.getvalue())
            return target
        return Files.write_archive(target, {**parts, "model.weights.h5": content.getvalue()})


@pytest.fixture
def files() -> Files:
    """Saves models, changes what was saved, and tells what is said of it."""
    return Files()


def small_model() -> keras.Model:
    """23 numbers."""
    return keras.Sequential(
        [
            keras.Input((4,), name="input"),
            keras.layers.Dense(3, activation="gelu", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


@pytest.fixture(scope="module", params=["keras", "h5"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Files.save(small_model(), tmp_path_factory.mktemp("good") / f"model.{request.param}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Files.save(small_model(), tmp_path_factory.mktemp("archive") / "model.keras")


@pytest.fixture(autouse=True)
def _no_trial(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that tries an .h5 file first takes a third of a second."""
    if "trial" not in request.node.name:
        monkeypatch.setattr(model_file, "try_hdf5", lambda path: None)
