"""Two real workers through `dlcli launch`: kills and interruptions leave no trace in what is trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kill_harness import state_of

WORDS = (
    "digits_cnn", "--workers", "2", "--set", "architecture.filters=[4, 8]", "--set", "training.epochs=6",
    "--set", "training.batch_size=100", "--set", "training.checkpoint.every_steps=5",
)  # fmt: skip


class Launched:
    """`dlcli launch WORDS --out RUN`, read line by line."""

    def __init__(self, run: Path, *words: str) -> None:
        self.run, self.lines = run, []
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dlcli", "launch", *WORDS, "--out", str(run), *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.end()

    def until(self, text: str) -> None:
        """Reads on to a line with this text."""
        for line in self._process.stderr:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was not said:\n{''.join(self.lines)}")

    def workers(self) -> Iterator[int]:
        """The process numbers of the workers, in their order."""
        for path in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            yield int(path)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Reads to the end: the exit code."""
        if not self._process.stderr.closed:
            with self._process.stderr as rest:
                self.lines += rest
        return self._process.wait()


@pytest.mark.slow
def test_a_killed_worker_and_an_interruption_change_nothing(tmp_path):
    with Launched(tmp_path / "whole") as whole:
        assert whole.end() == 0, "".join(whole.lines)
    expected = state_of(whole.run)

    with Launched(tmp_path / "broken") as broken:
        broken.until("[0] epoch 2/6")
        os.kill(list(broken.workers())[1], signal.SIGKILL)
        broken.until("worker 1 was killed by SIGKILL")
        assert "all start again from the checkpoint epoch-000" in broken.lines[-1]
        broken.until("[0] epoch 4/6")
        left = list(broken.workers())
        broken.signal(signal.SIGINT)
        assert broken.end() == 130
    assert "Go on from the last checkpoint with: dlcli launch digits_cnn --workers 2" in broken.lines[-1]
    assert len(left) == 2 and not any(Path(f"/proc/{number}").exists() for number in left)

    with Launched(broken.run, "--continue") as again:
        assert again.end() == 0, "".join(again.lines)
    assert any("[0] resuming" in line for line in again.lines)
    found = state_of(broken.run)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_mistakes_in_the_data_end_all_workers_at_once(tmp_path):
    words = ("--set", "dataset={name: image_folder, path: nowhere}", "--set", "training.epochs=1")
    with Launched(tmp_path / "run", *words) as launched:
        assert launched.end() == 2
    said = "".join(launched.lines)
    assert "nowhere" in said and "restart 1" not in said and not launched.run.exists()
