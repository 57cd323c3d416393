"""Rows 35-50: trainings that are killed, stopped, starved, changed or damaged."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_harness import Trainings, state_of

from dlcli.files import sha256_of
from dlcli.run_lock import locked

RECIPE = """
task: image_classification
dataset: digits
architecture: {name: mlp, hidden: [128], dropout: 0.2}
training: {epochs: 3, batch_size: 128, checkpoint: {every_steps: 4}}
"""


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as running:
        yield running


@pytest.fixture(scope="module")
def whole(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "r.yaml").write_text(RECIPE)
    ended = trainings.run("train", folder / "r.yaml", "--out", folder / "run")
    assert ended.code == 0, ended.log
    return folder / "run"


@pytest.fixture(scope="module")
def cut(trainings: Trainings, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, told to stop by SIGTERM (row 39); the tests work on copies of it."""
    path = tmp_path_factory.mktemp("cut") / "run"
    changes = 60  # the second epoch is on, and two checkpoints are there
    ended = trainings.run(
        "train", whole.parent / "r.yaml", "--out", path, folder=path, at_change=changes, signal=signal.SIGTERM
    )
    assert ended.code == 143, ended.log
    assert "stopping after this step" in ended.log
    assert f"Go on with: dlcli train --resume {path}" in ended.log
    assert ended.seconds < 30
    return path


@pytest.fixture
def copy(cut: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut, tmp_path / "run"))


def newest(run: Path) -> Path:
    return max((run / "checkpoints").iterdir())


def test_row39_sigterm_and_resume_equal_an_uninterrupted_training(
    trainings: Trainings, whole: Path, copy: Path
) -> None:
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 0, ended.log
    assert state_of(copy) == state_of(whole)


def test_row40_a_second_signal_leaves_at_once(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = trainings.run(
        "train",
        whole.parent / "r.yaml",
        "--out",
        run,
        folder=run,
        at_change=25,
        signal=signal.SIGINT,
        twice=True,
    )
    assert ended.code == -signal.SIGINT, ended.log
    assert trainings.run("train", "--resume", run).code == 0
    assert state_of(run) == state_of(whole)


def test_row37_a_disk_without_room_keeps_the_last_checkpoint(
    trainings: Trainings, whole: Path, copy: Path
) -> None:
    before = newest(copy)
    size = (before / "state.npz").stat().st_size
    ended = trainings.run("train", "--resume", copy, limit_bytes=size - 100)
    assert ended.code == 4, ended.log
    assert "cannot be written: File too large" in ended.log and "Traceback" not in ended.log
    assert f"dlcli train --resume {copy}" in ended.log
    assert newest(copy) == before
    assert trainings.run("train", "--resume", copy).code == 0
    assert state_of(copy) == state_of(whole)


def test_row38_a_run_folder_that_vanishes(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = trainings.run(
        "train", whole.parent / "r.yaml", "--out", run, folder=run, at_change=25, vanish=True
    )
    assert ended.code == 4, ended.log
    assert "cannot be written" in ended.log and "Traceback" not in ended.log


def test_row38_a_folder_that_may_not_be_written_to(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = trainings.run("train", whole.parent / "r.yaml", "--out", tmp_path / "file" / "run")
    assert ended.code == 2, ended.log
    assert "cannot be made" in ended.log and "Traceback" not in ended.log


def test_row43_two_trainings_in_one_folder(trainings: Trainings, copy: Path) -> None:
    before = sorted(copy.rglob("*"))
    with locked(copy):
        ended = trainings.run("train", "--resume", copy)
        assert ended.code == 2, ended.log
        assert f"process {os.getpid()} on" in ended.log and "is training there" in ended.log
    assert sorted(copy.rglob("*")) == before


def test_row44_a_clock_that_goes_back(trainings: Trainings, whole: Path, copy: Path) -> None:
    """Files from the future, and order by step: the newest name wins, and no duration is negative."""
    for age, path in enumerate(sorted((copy / "checkpoints").rglob("*"))):
        os.utime(path, (4e9 - age, 4e9 - age))
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 0, ended.log
    assert state_of(copy) == state_of(whole)
    rows = list(csv.DictReader((copy / "history.csv").read_text().splitlines()))
    assert all(float(row["seconds"]) >= 0 for row in rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate: 0.001 when it was saved, now 0.5"),
        ("training.batch_size=64", "training.batch_size: 128 when it was saved, now 64"),
        ("dataset.validation_split=0.2", "dataset.validation_split: 0.1 when it was saved, now 0.2"),
    ],
)
def test_row46_another_recipe_is_shown_and_refused(
    trainings: Trainings, copy: Path, change: str, said: str
) -> None:
    ended = trainings.run("train", "--resume", copy, "--set", change)
    assert ended.code == 2, ended.log
    assert said in ended.log
    assert f"--allow-change {change.partition('=')[0]}" in ended.log


@pytest.mark.parametrize("key", ["keras", "tensorflow", "data", "devices.replicas"])
def test_row46_other_versions_data_and_devices(trainings: Trainings, copy: Path, key: str) -> None:
    """As they would be seen after an upgrade, another file or on another machine."""
    for checkpoint in (copy / "checkpoints").iterdir():
        progress = json.loads((checkpoint / "progress.json").read_text())
        if key in progress["versions"]:
            progress["versions"][key] = "3.0.0"
        else:
            section, _, name = key.partition(".")
            progress[section] = {**progress[section], name: 4} if name else "0" * 64
        (checkpoint / "progress.json").write_text(json.dumps(progress))
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["files"]["progress.json"]["sha256"] = sha256_of(checkpoint / "progress.json")
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 2, ended.log
    assert f"--allow-change {key.partition('.')[0]}" in ended.log
    if key == "data":
        allowed = trainings.run("train", "--resume", copy, "--allow-change", key)
        assert allowed.code == 0, allowed.log


def test_row47_damaged_checkpoints_and_files(
    trainings: Trainings, whole: Path, copy: Path, tmp_path: Path
) -> None:
    (newest(copy) / "manifest.json").unlink()
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 0, ended.log
    assert "damaged checkpoint, passed over" in ended.log
    assert state_of(copy) == state_of(whole)


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json"])
def test_row47_other_files_of_a_run_that_are_cut_off(trainings: Trainings, copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    ended = trainings.run("train", "--resume", copy)
    assert ended.code in (0, 2), ended.log
    assert "Traceback" not in ended.log


def test_row47_no_checkpoint_left(trainings: Trainings, copy: Path) -> None:
    for path in (copy / "checkpoints").iterdir():
        (path / "state.npz").write_bytes(b"")
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 2, ended.log
    assert "no whole checkpoint to resume from" in ended.log


def test_row48_a_complete_run_and_none(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    ended = trainings.run("train", "--resume", whole)
    assert ended.code == 0 and "is complete already" in ended.log
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path != whole} == {
        path: when for path, when in before.items() if path != whole
    }
    ended = trainings.run("train", "--resume", tmp_path / "nowhere")
    assert ended.code == 2 and "no such run folder" in ended.log


def test_row35_nothing_is_left_of_a_killed_process(trainings: Trainings, whole: Path, tmp_path: Path) -> None:
    """Temporary files of a kill are gone after the next start; its lock is taken over."""
    run = tmp_path / "run"
    start = time.monotonic()
    ended = trainings.run("train", whole.parent / "r.yaml", "--out", run, folder=run, at_change=22)
    assert ended.code == -signal.SIGKILL and time.monotonic() - start < 60
    ended = trainings.run("train", "--resume", run)
    assert ended.code == 0, ended.log
    assert not list(run.rglob(".*"))
