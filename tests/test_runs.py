"""Run folders: named, never overwritten, opened with clear words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlcli.errors import DlcliError
from dlcli.runs import load_run, new_run, write_json


def test_a_second_run_gets_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(new_run("cnn", None).path) for _ in range(3)] == ["runs/cnn", "runs/cnn-2", "runs/cnn-3"]


def test_out_is_never_overwritten(tmp_path: Path) -> None:
    new_run("cnn", tmp_path / "a")
    (tmp_path / "a" / "model.keras").write_text("precious")
    with pytest.raises(DlcliError, match="never overwritten"):
        new_run("cnn", tmp_path / "a")
    assert (tmp_path / "a" / "model.keras").read_text() == "precious"


def test_a_missing_run_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "cnn").mkdir()
    (tmp_path / "cnn" / "recipe.yaml").touch()
    with pytest.raises(DlcliError, match=r"no such run folder; runs there: cnn"):
        load_run(tmp_path / "cn")
    with pytest.raises(DlcliError, match="not a run folder"):
        load_run(tmp_path)


def test_a_run_without_a_model_says_why(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(DlcliError, match=r"no model\.keras: training stopped before its first epoch"):
        _ = load_run(tmp_path).model


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
