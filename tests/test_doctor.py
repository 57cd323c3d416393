"""What `dlcli doctor` says of a machine."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import keras
import pytest

from dlcli import doctor
from dlcli.interconnect import SIGNS

REQUIRES = [
    "keras>=3",
    "surely-not-installed>=1; extra == 'dev'",
    "pytest>=1; extra == 'dev'",
    "tensorflow[and-cuda]>=2; extra == 'gpu'",
]


def test_it_names_what_is_installed_and_what_is_here() -> None:
    found = doctor.examine()
    assert found["python"] == platform.python_version()
    assert found["packages"]["keras"] == keras.__version__
    assert any(device.startswith("CPU") for device in found["devices"])
    assert found["cores"] >= 1 and found["disk_free_bytes"] > 0
    json.dumps(found, allow_nan=False)


def test_it_says_what_auto_takes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "gpu_links", lambda: {"GPU0-GPU1": "NV4"})
    monkeypatch.setattr(doctor, "network_interfaces", list)
    monkeypatch.setattr(doctor.out, "width", 300)
    for name in SIGNS:
        monkeypatch.delenv(name, raising=False)
    found = doctor.examine()
    assert (found["distribution"]["strategy"], found["distribution"]["replicas"]) == ("none", 1)
    doctor.print_examination(found, as_json=False)
    printed = capsys.readouterr().out
    for text in ("auto takes none: CPU:0", "GPU0-GPU1: 4 NVLinks", "none that is up", "no TF_CONFIG, Slurm"):
        assert text in printed
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    found = doctor.examine()
    assert found["distribution"] == {
        "strategy": "multi_worker", "devices": ["CPU:0"], "workers": 2, "worker": 1, "replicas": 2,
        "why": "TF_CONFIG names 2 workers", "described": "2 workers, each on CPU:0",
    }  # fmt: skip
    monkeypatch.setenv("TF_CONFIG", "{")
    found = doctor.examine()
    doctor.print_examination(found, as_json=False)
    assert "auto is refused: TF_CONFIG: not of the form" in capsys.readouterr().out


def test_data_folders_follow_keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / "cache"))
    assert doctor.examine()["data_folders"] == {
        str(tmp_path / "datasets"): True,
        str(tmp_path / "models"): False,
        str(tmp_path / "cache" / "tokens"): False,
        str(tmp_path / "cache" / "images"): False,
        str(tmp_path / "cache" / "features"): False,
    }


def test_an_extra_lists_only_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    versions = {"pytest": "8", "keras": "3"}
    monkeypatch.setattr(doctor, "installed_version", versions.get)
    found = doctor.examine()
    assert found["extras"]["dev"]["missing"] == ["surely-not-installed>=1"]
    assert found["extras"]["gpu"]["missing"] == ["tensorflow[and-cuda]>=2"]
    monkeypatch.setattr(doctor.out, "width", 200)
    doctor.print_examination(found, as_json=False)
    printed = capsys.readouterr().out
    assert "lacks surely-not-installed>=1: pip install 'dlcli[dev]'" in printed
    assert "tensorflow missing" in printed


def test_without_metadata_the_extras_are_unknown_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    monkeypatch.setattr(metadata, "version", missing)
    found = doctor.examine()
    assert found["dlcli"] is None
    assert set(found["extras"]) == set(doctor.EXTRAS)
