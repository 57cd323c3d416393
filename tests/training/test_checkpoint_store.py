"""Checkpoints on a disk that fails: cut off, flipped, missing, full. Never a wrong state, never a lost good one."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlcli.errors import OutputError
from dlcli.training.checkpoint_store import ARRAYS, MANIFEST, PROGRESS, CheckpointStore, Place

FILES = (ARRAYS, PROGRESS, MANIFEST)


def state(number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values = np.random.default_rng(number).normal(size=500).astype("float32")
    return {"trainable/0": values}, {
        "place": asdict(Place(epochs_done=number)),
        "callbacks": {"History": {"rows": [number]}},
    }


def write(store: CheckpointStore, number: int) -> Path:
    return store.write(number, 10 * number, *state(number))


def found(store: CheckpointStore) -> int | None:
    """Number of the newest whole state, compared with what was written."""
    saved = store.newest()
    if saved is None:
        return None
    arrays, progress = state(saved.place.epochs_done)
    assert saved.progress == progress
    np.testing.assert_array_equal(saved.arrays()["trainable/0"], arrays["trainable/0"])
    return saved.place.epochs_done


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    made = CheckpointStore(tmp_path / "checkpoints")
    for number in (1, 2):
        write(made, number)
    return made


def test_the_newest_ones_stay(store: CheckpointStore) -> None:
    write(store, 3)
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["epoch-0002-step-0000000020", "epoch-0003-step-0000000030"]
    assert found(store) == 3 and not store.broken


def test_older_ones_that_a_kill_left_go_later(store: CheckpointStore) -> None:
    CheckpointStore(store.folder, keep=5).write(3, 30, *state(3))
    assert len(list(store.folder.iterdir())) == 3
    store.remove_older(store.newest().path)
    assert sorted(path.name[:10] for path in store.folder.iterdir()) == ["epoch-0002", "epoch-0003"]


def test_a_state_is_of_a_future_that_is_no_more(store: CheckpointStore) -> None:
    """Who goes back to epoch 1 and comes to step 15 has lost epoch 2."""
    store.write(1, 15, *state(1))
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "epoch-0001-step-0000000010",
        "epoch-0001-step-0000000015",
    ]


def test_a_second_try_at_the_same_step_never_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    write(store, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        write(store, 1)
    assert found(store) == 1
    write(store, 1)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "epoch-0001-step-0000000010", "epoch-0001-step-0000000010-2",
    ]  # fmt: skip
    assert store.newest().path.name.endswith("-2")
    write(store, 2)
    assert found(store) == 2


def test_a_clock_that_goes_back_changes_nothing(store: CheckpointStore) -> None:
    for age, path in enumerate(sorted(store.folder.iterdir())):
        os.utime(path, (10**9 - age, 10**9 - age))
    assert found(store) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", range(20))
def test_cut_off_at_any_twentieth_it_is_passed_over(store: CheckpointStore, name: str, part: int) -> None:
    path = max(store.folder.iterdir()) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * part // 20])
    assert found(store) == 1
    [broken] = store.broken
    assert str(path.parent) in broken


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_never_loaded(store: CheckpointStore, name: str) -> None:
    path, draw = max(store.folder.iterdir()) / name, random.Random(name)
    content = path.read_bytes()
    passed_over = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(flipped))
        passed_over += found(store) == 1  # `found` compares what is loaded
    assert (
        passed_over == 60 if name != MANIFEST else passed_over > 40
    )  # a manifest holds names and spaces too


@pytest.mark.parametrize("name", FILES)
def test_without_one_of_its_files_it_is_none(store: CheckpointStore, name: str) -> None:
    (max(store.folder.iterdir()) / name).unlink()
    assert found(store) == 1


def test_all_broken_is_none_and_says_why(store: CheckpointStore) -> None:
    for path in store.folder.iterdir():
        (path / MANIFEST).unlink()
    assert store.newest() is None
    assert len(store.broken) == 2 and all("no manifest.json" in text for text in store.broken)


def test_files_that_are_folders_or_text_are_passed_over(store: CheckpointStore) -> None:
    path = store.folder / "epoch-0009-step-0000000090"
    path.mkdir()
    (path / MANIFEST).mkdir()
    (store.folder / "epoch-0010-step-0000000100").write_text("no folder")
    (store.folder / "notes.txt").write_text("mine")
    assert found(store) == 2
    write(store, 3)
    assert (store.folder / "notes.txt").read_text() == "mine"


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_leaves_what_was_there(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before = sorted(store.folder.rglob("*"))
    for target in ("dlcli.training.checkpoint_store.np.savez", "dlcli.files.os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(target, failing(code))
            with pytest.raises(OutputError, match="cannot be written"):
                write(store, 3)
        assert sorted(store.folder.rglob("*")) == before
    assert found(store) == 2


@pytest.fixture
def quota() -> Iterator[None]:
    """No file may grow larger than 1,000 bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_quota_leaves_what_was_there(store: CheckpointStore, quota: None) -> None:
    with pytest.raises(OutputError, match="File too large"):
        write(store, 3)
    assert found(store) == 2


def test_a_full_file_system_leaves_what_was_there(tmp_path: Path) -> None:
    """A small file system of its own, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        store = CheckpointStore(disk / "checkpoints")
        write(store, 1)
        arrays = {"trainable/0": np.zeros(20_000, "float32")}
        with pytest.raises(OutputError, match="No space left on device"):
            store.write(2, 20, arrays, state(2)[1])
        assert found(store) == 1
        write(store, 2)
        assert found(store) == 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_vanished_folder_is_said(store: CheckpointStore) -> None:
    shutil.rmtree(store.folder)
    store.folder.write_text("a file in its place")
    with pytest.raises(OutputError, match="cannot be written"):
        write(store, 3)
