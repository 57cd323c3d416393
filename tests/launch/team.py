"""Workers that are watched: what each of them holds whenever a state is saved; and one can be killed at a chosen step.

A `Team` forks them from one process that has imported TensorFlow, which takes seconds. Run as a program with words of
`dlcli` it is one worker, for `dlcli launch`. Either way TEAM in the environment says what is watched.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 180
"""Within which a team ends, or is ended."""


@dataclass(frozen=True)
class Watch:
    """What is watched.

    Args:
        folder: takes a file for each worker and state that was saved.
        kill: worker, step of the training, signal: what this worker sends itself, after that step, once.
        delay: worker, seconds that it sleeps after each step.
    """

    folder: str
    kill: tuple[int, int, int] | None = None
    delay: tuple[int, float] | None = None

    def variables(self) -> dict[str, str]:
        """For the environment of workers."""
        Path(self.folder).mkdir(exist_ok=True)
        return {"TEAM": json.dumps(asdict(self))}


@dataclass(frozen=True)
class Ended:
    """How a worker ended."""

    code: int
    """Exit code; minus the signal's number when it was killed."""
    log: str


class Team:
    """Runs commands of `dlcli` in one process or several that train together; a context manager."""

    def __enter__(self) -> Team:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(
        self, *argv: object, workers: int = 2, watch: Watch | None = None, each: Sequence[Sequence[str]] = ()
    ) -> list[Ended]:
        """One command, the same for all workers.

        Args:
            argv: of `dlcli`.
            workers: how many.
            watch: what is watched.
            each: words for each worker beside them.
        """
        from dlcli.launch.environment import free_ports, tf_config

        addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        cluster = [
            {"TF_CONFIG": tf_config(addresses, index)} if workers > 1 else {} for index in range(workers)
        ]
        order = {
            "argv": [str(word) for word in argv],
            "each": [list(words) for words in each] or [[]] * workers,
            "environments": [{**one, **(watch.variables() if watch else {})} for one in cluster],
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return [Ended(**ended) for ended in json.loads(self._process.stdout.readline())]


def states_of(folder: Path) -> dict[str, list[str]]:
    """Place of the training -> what each worker held there, as a digest."""
    found = defaultdict(list)
    for path in sorted(folder.glob("state-*")):
        found[path.name.partition("-worker-")[0]].append(path.read_text())
    return dict(found)


def numbers_of(run: Path) -> dict[str, Any]:
    """What a training found: arrays of its last checkpoint, history, scores."""
    newest = max(path for path in (run / "checkpoints").iterdir() if path.name.startswith("epoch-"))
    with np.load(newest / "state.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    metrics = run / "metrics.json"
    return {
        "arrays": arrays,
        "history": {name: [float(row[name] or "nan") for row in rows] for name in rows[0]},
        "metrics": json.loads(metrics.read_text())["metrics"] if metrics.is_file() else None,
    }


def largest_difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Between what two trainings learnt: weights, averages, state of the optimizer; not their seeds."""
    assert one.keys() == other.keys()
    learnt = [name for name in one if name.startswith(("trainable", "non_trainable", "optimizer"))]
    seeds = [name for name in learnt if one[name].dtype.kind != "f"]
    return max(np.abs(one[name] - other[name]).max(initial=0) for name in learnt if name not in seeds)


def watched(watch: Watch, worker: int) -> None:
    """Makes the trainings of this process write down what they hold."""
    import keras

    from dlcli.training import train
    from dlcli.training.checkpoint import Checkpoint, Place, _variables

    folder = Path(watch.folder)

    class Watched(Checkpoint):
        def save(self, place: Place, metrics: list[np.ndarray] | None = None) -> None:
            super().save(place, metrics)
            digest = hashlib.sha256()
            for part, variables in _variables(self.model).items():
                for variable in variables if part != "metrics" else ():
                    digest.update(keras.ops.convert_to_numpy(variable).tobytes())
            name = f"state-{place.stage}-{place.epochs_done:04d}-{place.step:06d}-worker-{worker}"
            (folder / name).write_text(digest.hexdigest())

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            done = self._epoch * self.steps_per_epoch + batch + 1
            if watch.kill is not None and (worker, done) == tuple(watch.kill[:2]):
                marker = folder / "killed"
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), watch.kill[2])
            super().on_train_batch_end(batch, logs)
            if watch.delay is not None and watch.delay[0] in (worker, -1):
                time.sleep(watch.delay[1])

    train.Checkpoint = Watched


def _prepared() -> None:
    """Imports what takes long, and leaves out what would."""
    from dlcli.backend import load_backend

    load_backend()
    import dlcli.training.train
    from dlcli.evaluation import evaluate

    os.fsync = lambda number: None
    for module in (evaluate, dlcli.training.train):  # drawing takes longer than these trainings
        for name in [name for name in vars(module) if name.startswith(("plot_", "_plot_"))]:
            setattr(module, name, lambda *_: None)


def _work(argv: Sequence[str]) -> None:
    """One command as a worker."""
    from dlcli.cli.main import main

    if order := os.environ.get("TEAM"):
        config = json.loads(os.environ.get("TF_CONFIG", "{}"))
        watched(Watch(**json.loads(order)), config.get("task", {}).get("index", 0))
    sys.argv = ["dlcli", *argv]
    main()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _prepared()
    for line in sys.stdin:
        order = json.loads(line)
        children = []
        with tempfile.TemporaryDirectory() as folder:
            logs = [Path(folder, str(index)) for index in range(len(order["environments"]))]
            for log, environment, words in zip(logs, order["environments"], order["each"], strict=True):
                child = os.fork()
                if child == 0:
                    _child([*order["argv"], *words], environment, log)
                children.append(child)
            statuses = _awaited(children)
            texts = [log.read_text(errors="replace") if log.is_file() else "" for log in logs]
        codes = [os.waitstatus_to_exitcode(statuses[child]) for child in children]
        answers.write(
            json.dumps([{"code": code, "log": text} for code, text in zip(codes, texts, strict=True)])
        )
        answers.write("\n")
        answers.flush()


def _awaited(children: Sequence[int]) -> dict[int, int]:
    """Status of each; when one was killed the others are too, as `dlcli launch` does it."""
    statuses: dict[int, int] = {}
    end = time.monotonic() + SECONDS
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    statuses[child] = status
                    end = 0.0 if os.WIFSIGNALED(status) else end
                elif time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return statuses


def _child(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Never returns."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.environ.update(environment)
    code: Any = 1
    try:
        _work(argv)
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except Exception:  # noqa: BLE001  its parent shows it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    if sys.argv[1:]:
        from dlcli.launch.worker import PARENT, stay_with

        if PARENT in os.environ:
            stay_with(int(os.environ[PARENT]))
        _prepared()
        _work(sys.argv[1:])
    else:
        _serve()
