"""Trainings in processes of their own, killed at chosen moments, and what they leave behind.

TensorFlow takes seconds to import, so one process imports it and forks a child for each training. A child dies by
`kill -9`: after some seconds, or at its n-th change of a file in the run folder, which also hits it while it writes a
checkpoint or the model.

Run as a program it is that process: it reads `{"argv": [...], ...}` lines, and answers with the exit status of each.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.training.checkpoint_store import CheckpointStore

TIMES = {"seconds", "examples_per_second", "train_seconds", "sha256"}
"""What differs from one training to the next: clocks, and model files, which hold the date."""
_second_try = re.compile(r"(?<=step-\d{10})-\d+")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@dataclass(frozen=True)
class Ended:
    """How a training ended."""

    code: int
    """Exit code; minus the signal's number when it was killed."""
    log: str
    seconds: float
    changes: int
    """Changes of files in the run folder, where they were counted."""


class Trainings:
    """Runs `dlcli` in children of one process; a context manager."""

    def __enter__(self) -> Trainings:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, *argv: object, folder: Path | None = None, **how: Any) -> Ended:
        """One command.

        Args:
            argv: of `dlcli`.
            folder: whose changes are counted.
            how: `after_seconds=1.5` or `at_change=20`: when it is killed; `signal=15`: by another signal;
                `twice=True`: two signals; `vanish=True`: the folder is moved away instead; `limit_bytes`: no file may
                grow larger.
        """
        order = {"argv": [str(word) for word in argv], "folder": str(folder) if folder else None, **how}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def state_of(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on kills: arrays bit by bit, tables and names without times."""
    newest = CheckpointStore(run / "checkpoints").newest().path
    progress = json.loads((newest / "progress.json").read_text())
    progress["callbacks"]["KeepBest"].pop("sha256")
    progress["callbacks"]["History"] = without_times(progress["callbacks"]["History"]["rows"])
    progress["recipe"].pop("dataset")  # its path may be another
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {
        "arrays": arrays_of(newest / "state.npz"),
        "progress": progress,
        "history": without_times(list(csv.DictReader((run / "history.csv").read_text().splitlines()))),
        "metrics": without_times(json.loads((run / "metrics.json").read_text())),
        "files": {_second_try.sub("", name) for name in names if not name.startswith("tensorboard")},
        "models": {path.name: weights_of(path) for path in sorted(run.glob("*.keras"))},
    }


def without_times(value: Any) -> Any:
    """Tables and objects without their seconds."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def arrays_of(path: Path) -> dict[str, bytes]:
    """Name -> bytes of each array."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name].tobytes() for name in archive.files}


def weights_of(path: Path) -> dict[str, bytes]:
    """Name -> bytes of each weight in a .keras file."""
    import io
    import zipfile

    import h5py

    found: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None
        )
    return found


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from dlcli.backend import load_backend

    load_backend()
    import dlcli.training.train
    from dlcli.evaluation import evaluate

    for module in (evaluate, dlcli.training.train):  # drawing takes longer than these trainings
        for name in [name for name in vars(module) if name.startswith(("plot_", "_plot_"))]:
            setattr(module, name, lambda *_: None)
    for line in sys.stdin:
        order = json.loads(line)
        start = time.monotonic()
        reader, writer = os.pipe()
        log = Path(f"/tmp/dlcli-kill-{os.getpid()}.log")
        child = os.fork()
        if child == 0:
            os.close(reader)
            _train(order, log, writer)
        os.close(writer)
        if order.get("after_seconds") is not None:
            time.sleep(order["after_seconds"])
            os.kill(child, order.get("signal", signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        changes = len(os.read(reader, 1 << 20))
        os.close(reader)
        text = log.read_text(errors="replace") if log.is_file() else ""
        log.unlink(missing_ok=True)
        ended = {
            "code": os.waitstatus_to_exitcode(status), "log": text, "seconds": time.monotonic() - start,
            "changes": changes,
        }  # fmt: skip
        answers.write(json.dumps(ended) + "\n")
        answers.flush()


def _train(order: dict[str, Any], log: Path, counter: int) -> None:
    """The child: never returns."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    if order.get("limit_bytes"):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit_bytes"],) * 2)
    if order["folder"]:
        seen = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
            if not (writes or event in _CHANGES) or not str(arguments[0]).startswith(order["folder"]):
                return
            seen += 1
            os.write(counter, b".")
            if seen == order.get("at_change"):
                if order.get("vanish"):
                    Path(order["folder"]).rename(order["folder"] + "-gone")
                    return
                for _ in range(2 if order.get("twice") else 1):
                    os.kill(os.getpid(), order.get("signal", signal.SIGKILL))

        sys.addaudithook(watch)
    sys.argv = ["dlcli", *order["argv"]]
    code: Any = 1
    try:
        from dlcli.cli.main import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()
