"""One worker of a training on Ray: the process `dlcli train`, beside the actor that Ray has for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlcli.files import write_text
from dlcli.launch.environment import THREADS
from dlcli.launch.worker import PARENT
from dlcli.launch.workers import signal_name

STOP = "stop"
"""File in the workers' folder: where it is, all of them are to save and end."""
STOPPED = 143
"""Exit code of a worker that did so; SIGTERM asks it to, since SIGINT is blocked in the children of Ray's workers."""
POLL_SECONDS = 0.5
PEERS_SECONDS = 60.0
"""How long a worker that ended with 4 waits for the others to say the same: they notice a death within 11 seconds."""
STOP_SECONDS = 10.0
"""How long a worker has to end after SIGTERM, before SIGKILL."""

_USER_CAN_FIX = (2, 3)
"""Exit codes after which the same training would end in the same way: no restart mends them."""
_WENT_WRONG = 4
"""Final where every worker says so (NaN); of some of them it says that another one died."""


class WorkerDiedError(RuntimeError):
    """A worker died of something that a restart may mend: Ray counts it and starts all of them anew."""


def work(task: Mapping[str, Any]) -> int:
    """What Ray calls in each worker.

    Args:
        task: `command`: the arguments of `dlcli`; `folder`: shared by the workers; `workers`: how many there are;
            `threads`: of each one, 0 for TensorFlow's own choice.

    Returns:
        The exit code of the training.
    """
    from ray.train import get_context

    # Ray asks for tf_keras, which Keras 3 is not.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment[PARENT] = str(os.getpid())
    if task["threads"]:
        environment.setdefault(THREADS, str(task["threads"]))
    command = [sys.executable, "-m", "dlcli.launch.worker", *task["command"]]
    return follow(command, environment, Path(task["folder"]), get_context().get_world_rank(), task["workers"])


def follow(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, rank: int, workers: int
) -> int:
    """Runs the process of one worker to its end; the workers tell each other by files how they ended.

    Args:
        command: the process.
        environment: its whole environment, with TF_CONFIG.
        folder: shared with the other workers.
        rank: of this worker.
        workers: how many there are.

    Returns:
        The exit code of the training: this worker's, or another one's that is final.

    Raises:
        WorkerDiedError: a restart may mend how the process ended.
    """
    if not folder.is_dir():
        raise WorkerDiedError(f"worker {rank}: {folder} is not there; --out must be on a shared file system")
    if (folder / STOP).is_file():  # a worker died on the way out: no new start
        return STOPPED
    _ended(folder, rank).unlink(missing_ok=True)  # of an earlier try
    stopping = False
    with (
        log_of(folder, rank).open("ab") as log,
        subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log
        ) as process,
    ):
        try:
            while (code := process.poll()) is None:
                time.sleep(POLL_SECONDS)
                if not stopping and (stopping := (folder / STOP).is_file()):
                    process.terminate()
                if (final := _said_by_others(folder, rank, workers)) is not None:
                    _end(process)
                    return final
        finally:
            process.kill()  # where Ray ends this function
    return _verdict(code, folder, rank, workers)


def _verdict(code: int, folder: Path, rank: int, workers: int) -> int:
    """The exit code of the training, of a process that has ended by itself."""
    # One that heard of the stop from another worker first may be past its last step when SIGTERM arrives.
    if code in (STOPPED, -signal.SIGTERM) and (folder / STOP).is_file():
        return STOPPED
    final = code in _USER_CAN_FIX
    if final or code == _WENT_WRONG:
        write_text(_ended(folder, rank), str(code))
    if final or code == 0:
        return code
    if code == _WENT_WRONG and (agreed := _agreed(folder, rank, workers)) is not None:
        return agreed
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    with log_of(folder, rank).open("a", encoding="utf-8") as log:
        log.write(f"worker {rank} {how}\n")
    raise WorkerDiedError(f"worker {rank} {how}")


def log_of(folder: Path, rank: int) -> Path:
    """The file for all that a worker says; whoever waits for the training shows it."""
    return folder / f"log-{rank}"


def _said_by_others(folder: Path, rank: int, workers: int) -> int | None:
    """The final exit code that another worker has ended with; None while there is none."""
    codes = (_number(_ended(folder, other)) for other in range(workers) if other != rank)
    return next((code for code in codes if code not in (None, _WENT_WRONG)), None)


def _agreed(folder: Path, rank: int, workers: int) -> int | None:
    """4 where every worker ends with it, another worker's code where that is final; None where one says nothing."""
    until = time.monotonic() + PEERS_SECONDS
    while time.monotonic() < until:
        if (final := _said_by_others(folder, rank, workers)) is not None:
            return final
        if all(_ended(folder, each).is_file() for each in range(workers)):
            return _WENT_WRONG
        time.sleep(POLL_SECONDS)
    return None


def _ended(folder: Path, rank: int) -> Path:
    return folder / f"ended-{rank}"


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    return None


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
