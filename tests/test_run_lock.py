"""One training in a run folder at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from dlcli.errors import DlcliError
from dlcli.run_lock import DEAD_AFTER_SECONDS, locked
from dlcli.runs import LOCK as NAME


def test_two_trainings_do_not_share_a_run(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(
            DlcliError, match=rf"process {os.getpid()} on {socket.gethostname()}, since 2.*is training there"
        ),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
    assert not (tmp_path / NAME).exists()


def test_a_dead_holder_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import os, sys, pathlib; from dlcli.run_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / NAME).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert "ended without a farewell" in capsys.readouterr().err


@pytest.mark.parametrize("silent", [DEAD_AFTER_SECONDS - 30, DEAD_AFTER_SECONDS + 30])
def test_a_holder_on_another_machine_lives_as_long_as_it_gives_signs(tmp_path: Path, silent: float) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": None, "since": "then"}))
    os.utime(path, (time.time() - silent, time.time() - silent))
    if silent > DEAD_AFTER_SECONDS:
        with locked(tmp_path):
            return
    with (
        pytest.raises(DlcliError, match=r"process 1 on elsewhere.*if that machine is gone"),
        locked(tmp_path),
    ):
        pass
    assert time.time() - path.stat().st_mtime > silent - 5, "asking is no sign of life"


@pytest.mark.parametrize("lives", [False, True])
def test_workers_that_start_again_elsewhere_wait_for_a_sign_of_life(
    tmp_path: Path, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, last = tmp_path / NAME, time.time() - DEAD_AFTER_SECONDS + 0.5
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": None, "since": "then"}))
    os.utime(path, (last, last))

    def sleep(_: float) -> None:
        then = time.time() if lives else last - 1  # older, as if time had gone by
        os.utime(path, (then, then))

    monkeypatch.setattr("dlcli.run_lock.time.sleep", sleep)
    with (
        pytest.raises(DlcliError, match="is training there") if lives else nullcontext(),
        locked(tmp_path, patient=True),
    ):
        pass


def test_a_torn_lock_file_is_no_holder(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"host": "els')
    with locked(tmp_path):
        pass
