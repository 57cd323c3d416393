"""Rows 35-50: trainings that are killed, stopped, starved, changed or damaged."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from kill_harness import Trainings, state_of

from dlcli.files import sha256_of
from dlcli.run_lock import locked
from dlcli.training.callbacks import History

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


@pytest.mark.parametrize("change", [25, 32])
def test_row38_a_run_folder_that_vanishes(
    change: int, trainings: Trainings, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = trainings.run(
        "train", whole.parent / "r.yaml", "--out", run, folder=run, at_change=change, vanish=True
    )
    assert ended.code == 4, ended.log
    assert any(word in ended.log for word in ("cannot be written", "is gone", "No such file"))
    assert "Traceback" not in ended.log


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


@pytest.mark.parametrize("key", ["keras", "tensorflow", "data", "devices.kinds"])
def test_row46_other_versions_data_and_devices(trainings: Trainings, copy: Path, key: str) -> None:
    """As they would be seen after an upgrade, another file or on another machine; how many devices there are is free."""
    for checkpoint in (copy / "checkpoints").iterdir():
        progress = json.loads((checkpoint / "progress.json").read_text())
        if key in progress["versions"]:
            progress["versions"][key] = "3.0.0"
        else:
            section, _, name = key.partition(".")
            progress[section] = {**progress[section], name: ["TPU"]} if name else "0" * 64
        progress["devices"]["replicas"] = 4
        (checkpoint / "progress.json").write_text(json.dumps(progress))
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["files"]["progress.json"]["sha256"] = sha256_of(checkpoint / "progress.json")
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    ended = trainings.run("train", "--resume", copy)
    assert ended.code == 2, ended.log
    assert f"--allow-change {key.partition('.')[0]}" in ended.log
    assert "replicas: 4 when it was saved, now 1" in ended.log and "--allow-change replicas" not in ended.log
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


# Trainings that fail by themselves, in this process


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Recipe of three epochs of 11 steps."""
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], Any]) -> None:
    """Something happens once, after so many steps of the training."""
    original, steps = History.on_train_batch_end, iter(range(1, 1000))

    def look(callback: History, batch: int, logs: Any = None) -> None:
        original(callback, batch, logs)
        if next(steps) == step:
            do()

    monkeypatch.setattr(History, "on_train_batch_end", look)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("steps_at_once", [1, 11])
def test_row41_a_loss_that_is_not_finite(run_dlcli, small: Path, steps_at_once: int, tmp_path: Path) -> None:
    """Told with its step and its examples; what was saved before is kept."""
    run = tmp_path / "run"
    words = (
        "--set",
        "optimizer={name: sgd, learning_rate: 1000}",
        "--set",
        "architecture.hidden=[128, 128, 128]",
        "--set",
        f"training.steps_per_execution={steps_at_once}",
    )
    ended = run_dlcli("train", small, *words, "--out", run)
    ended.check(4)
    (record,) = json.loads((run / "failures.json").read_text())
    assert (record["what"], record["action"], record["epoch"]) == ("loss not finite", "stop", 1)
    step = record["step_of_training"]
    assert 1 < step <= 11 and f"step {step} of the training" in " ".join(ended.err.split())
    assert step == 11 or len(set(record["examples"])) == 128
    assert "No epoch was complete, so no model was kept" in " ".join(ended.err.split())
    assert not (run / "metrics.json").exists()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "error",
    [tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[128,128]"), MemoryError()],
    ids=["device", "host"],
)  # fmt: skip
def test_row42_no_memory_left(
    run_dlcli, small: Path, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise error

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        after_step(patch, 16, full)
        ended = run_dlcli("train", small, "--out", run)
    ended.check(4)
    said = " ".join(ended.err.split())
    assert "out of memory: try --set training.batch_size=64" in said and f"dlcli train --resume {run}" in said
    assert newest(run).name.endswith("step-0000000012")  # as saved before
    with monkeypatch.context() as patch:
        after_step(patch, 3, full)
        run_dlcli(
            "train", small, "--set", "training.on_out_of_memory=halve_batch", "--out", tmp_path / "halved"
        ).check(0)
    (record,) = json.loads((tmp_path / "halved" / "failures.json").read_text())
    assert record["gradient_accumulation"] == 2


def as_pipes(paths: list[Path]) -> None:
    away(paths)
    for path in paths:
        os.mkfifo(path)


def as_noise(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(bytes(range(256)) * 4)


def away(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


@pytest.fixture
def waited(tmp_path: Path) -> Iterator[list[Path]]:
    """The pipes in the test's folder that were still there after some seconds; who waits for them waits no longer."""
    found: list[Path] = []

    def end_waiting() -> None:
        for path in tmp_path.rglob("*"):
            if path.is_fifo():
                found.append(path)
                os.close(os.open(path, os.O_RDWR))

    def watch() -> None:
        patience = 5.0
        while not over.wait(patience):
            end_waiting()
            patience = 0.1

    over = threading.Event()
    watching = threading.Thread(target=watch)
    watching.start()
    yield found
    over.set()
    watching.join()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("change", [away, as_noise, as_pipes])
def test_row45_images_that_go_bad_while_they_are_read(
    run_dlcli, change: Callable[[list[Path]], None], waited, class_folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Each epoch reads them anew; for a pipe that nobody writes to it would wait without end."""
    monkeypatch.setattr("dlcli.data.listed_images.memory_budget", lambda: 0)
    data = class_folders(per_class=40)
    (tmp_path / "r.yaml").write_text(
        "task: image_classification\narchitecture: {name: mlp, hidden: [4]}\n"
        f"dataset: {{name: image_folder, path: {data}}}\ntraining: {{epochs: 20, batch_size: 4}}\n"
    )
    after_step(monkeypatch, 5, lambda: change(sorted((data / "train").rglob("*.png"))))
    ended = run_dlcli("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    ended.check(2)
    assert not waited
    assert re.search(r"train/\w+/\d+\.png (cannot|has changed|is )", " ".join(ended.err.split())), ended.err


GAN = """
task: gan
dataset: digits
architecture: {name: mlp_gan, latent_dimension: 1, hidden: [1], discriminator_hidden: [128]}
optimizer: {generator: {name: sgd, learning_rate: 1e-9}, discriminator: {name: adam, learning_rate: 1e-2}}
metrics: {samples: 100}
training: {epochs: 6, batch_size: 128}
"""


@pytest.mark.usefixtures("no_pictures")
def test_row50_a_discriminator_that_wins_and_a_generator_that_is_nan(run_dlcli, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(GAN)
    won = run_dlcli("train", tmp_path / "r.yaml", "--out", tmp_path / "won")
    won.check(0)
    said = {each["name"] for each in json.loads((tmp_path / "won" / "warnings.json").read_text())["warnings"]}
    assert {"discriminator_won", "mode_collapse"} <= said
    assert "the discriminator's loss is near zero" in " ".join(won.err.split())
    words = ("--set", "optimizer={name: sgd, learning_rate: 1000}", "--set", "task.objective=hinge")
    ended = run_dlcli("train", tmp_path / "r.yaml", *words, "--out", tmp_path / "nan")
    ended.check(4)
    assert (
        "loss became nan at step" in " ".join(ended.err.split())
        and not (tmp_path / "nan" / "metrics.json").exists()
    )
