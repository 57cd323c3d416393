"""A training by the workers of a Ray cluster: Ray places, names and restarts them, each one runs `dlcli train`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlcli.console import warn
from dlcli.errors import DlcliError, TrainingFailedError, TrainingInterruptedError
from dlcli.extras import require
from dlcli.files import write_text
from dlcli.launch.ray_worker import POLL_SECONDS, STOP, STOPPED, log_of, work
from dlcli.network import is_offline
from dlcli.recipe.load import dump_recipe, with_absolute_paths
from dlcli.recipe.schema import Recipe
from dlcli.training.interrupts import Interrupts

LOCAL = "local"
"""The address of a cluster that is started on this machine, for this training."""
_HOW = f"`ray start --head` starts a cluster, --ray {LOCAL} takes this machine alone"
_CONNECT_SECONDS = 5.0
_AT_A_TIME = 65_536


def check_ray(address: str) -> None:
    """Refuses `--ray` where it cannot work, before any work begins.

    Raises:
        DlcliError: the extra is missing, nothing answers at the address, or it is of Ray Client.
    """
    require("ray", "ray", "pyarrow", "pandas", "fsspec", what="--ray")
    if address.startswith("ray://"):
        raise DlcliError(
            f"--ray {address}: Ray Train is not run through Ray Client; run dlcli on a machine of the cluster with "
            f"--ray auto, or send it there: ray job submit --address http://HEAD:8265 -- dlcli launch --ray auto ..."
        )
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise DlcliError(f"--ray {address}: neither auto, {LOCAL} nor HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:  # Ray itself tries for two minutes
        raise DlcliError(f"--ray {address}: nothing answers there ({error}); {_HOW}") from error


def train_on_ray(
    recipe: Recipe, out: Path, address: str, workers: int, *, max_restarts: int, quiet: bool = False
) -> None:
    """Trains a recipe on a Ray cluster, through Ray Train's `TensorflowTrainer`.

    Every worker is a process `dlcli train --out OUT --continue` beside an actor of Ray's, with the TF_CONFIG and the
    devices that Ray gives it. A process, because Ray calls a training function in a thread, where no signal arrives and
    from which a collective operation that waits for a dead peer cannot be ended.

    Args:
        recipe: resolved.
        out: the run folder, on a file system that all machines of the cluster share.
        address: of the cluster, `HOST:PORT`; `auto`: the one that this machine belongs to; `local`: a new one.
        workers: processes.
        max_restarts: how often all of them are started anew after one died; they go on from the last checkpoint.
        quiet: the workers say nothing but errors.

    Raises:
        DlcliError: no such cluster, or what ended the workers, with their exit code.
    """
    check_ray(address)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe = with_absolute_paths(recipe)  # Ray's workers have another working directory
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.ray-", dir=out.parent))
    try:
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
        with _cluster(address, workers) as nodes:
            resources = resources_per_worker(nodes, workers, may_grow=address != LOCAL)
            trainer = _trainer(folder, out, workers, resources, max_restarts, quiet)
            code = _fit(trainer, folder, workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if code in (130, 143):
        raise TrainingInterruptedError(
            f"interrupted; go on with the same command, --out {out} --continue", code
        )
    if code:
        raise WorkersEndedError(f"the workers ended with exit code {code}; what they said stands above", code)


def report_of_ray(
    recipe: Recipe, out: Path, address: str, workers: int, max_restarts: int, json_: bool, quiet: bool
) -> None:
    """Trains on Ray, then prints what the first worker would have printed, which stood on another machine."""
    from dlcli.evaluation.tables import print_report
    from dlcli.runs import load_run

    train_on_ray(recipe, out, address, workers, max_restarts=max_restarts, quiet=quiet)
    run = load_run(out)
    print_report(run.metrics, run.path, json_)


class WorkersEndedError(DlcliError):
    """All workers ended, for a reason that they have said."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def resources_per_worker(
    nodes: Sequence[Mapping[str, float]], workers: int, may_grow: bool = True
) -> dict[str, float]:
    """The most of each machine that every worker can have alike: whole GPUs, or whole CPUs where there are none.

    Args:
        nodes: what each machine of the cluster has: `{"CPU": 8, "GPU": 2}`.
        workers: how many must find room.
        may_grow: whether machines may join; then Ray waits for them.

    Raises:
        DlcliError: the workers do not fit.
    """
    gpus, cpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("GPU", "CPU"))
    if any(gpus):
        each = _fair_share(gpus, workers)
        if each:
            return {"GPU": each, "CPU": 1}
        room = f"{sum(gpus)} GPUs"
    else:
        each = _fair_share(cpus, workers)
        if each:
            return {"CPU": each}
        room = f"{sum(cpus)} CPUs"
    if not may_grow:
        raise DlcliError(f"--workers {workers}: there are {room}, and each worker needs one")
    warn(f"the cluster has {room} and each of {workers} workers needs one: Ray waits until it has more")
    return {"GPU": 1, "CPU": 1} if any(gpus) else {"CPU": 1}


def _fair_share(amounts: Sequence[int], workers: int) -> int:
    """The largest whole number of which all workers get one on some machine; 0 where they find no room."""
    for each in range(max(amounts, default=0), 0, -1):
        if sum(amount // each for amount in amounts) >= workers:
            return each
    return 0


@contextmanager
def _cluster(address: str, workers: int) -> Iterator[list[dict[str, float]]]:
    """Joins a cluster, or starts one of this machine; gives what each machine has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that we start: nothing is reported
    from dlcli.backend import load_backend

    load_backend()  # ray.train.tensorflow imports TensorFlow, whose noise is kept back here
    import ray

    # Ray has its own way with SIGTERM; the workers' checkpoint needs ours.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        # More workers than cores are slow, but work.
        options |= {"num_cpus": max(os.cpu_count() or 1, workers), "include_dashboard": False}
    try:
        # TensorFlow, which Ray imports in each of its processes, is noisy; the workers' logs are shown by us.
        ray.init(**options, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DlcliError(
            f"--ray {address}: no cluster that can be used ({_first_line(error)}); {_HOW}"
        ) from error
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _trainer(
    folder: Path, out: Path, workers: int, resources: dict[str, float], max_restarts: int, quiet: bool
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    flags = [*(["--quiet"] if quiet else []), *(["--offline"] if is_offline() else [])]
    command = ["train", str(folder / "recipe.yaml"), "--out", str(out), "--continue", *flags]
    # The other cores of a machine are not ours: Ray gives them to other work.
    threads = 0 if "GPU" in resources else int(resources["CPU"])
    return TensorflowTrainer(
        work,
        train_loop_config={
            "command": command,
            "folder": str(folder),
            "workers": workers,
            "threads": threads,
        },
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="state", storage_path=str(folder), failure_config=FailureConfig(max_failures=max_restarts)
        ),
    )


def _fit(trainer: Any, folder: Path, workers: int) -> int:
    """Runs Ray's training to its end and gives the exit code of its workers.

    It runs in a thread, where Ray leaves Ctrl-C alone: Ray would end its workers at once, and here they are asked to
    save first. A second signal ends this process, and with it Ray's workers.
    """
    from ray.train import TrainingFailedError as RayTrainingFailedError

    ended: list[Any] = []
    has_ended = threading.Event()

    def run() -> None:
        try:
            ended.append(trainer.fit().return_value)
        except BaseException as error:  # noqa: BLE001  the thread that waits raises it
            ended.append(error)
        finally:
            has_ended.set()

    logs = _Logs(folder, workers)
    with Interrupts() as interrupts:
        threading.Thread(target=run, daemon=True).start()
        while not has_ended.wait(POLL_SECONDS):
            logs.show()
            if interrupts.received is not None:
                (folder / STOP).touch()
    logs.show(all_of_it=True)
    asked = None if interrupts.received is None else 128 + interrupts.received
    if isinstance(ended[0], RayTrainingFailedError):
        if asked is not None:
            return asked
        raise TrainingFailedError(f"the training on Ray failed for good: {_causes(ended[0])}") from None
    if isinstance(ended[0], BaseException):
        raise ended[0]
    code = int(ended[0] or 0)
    return asked if asked is not None and code == STOPPED else code


class _Logs:
    """Shows what the workers say, line by line; lines of all but the chief begin with `[rank]`."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._begun = {log_of(folder, rank): b"" for rank in range(workers)}
        self._read = dict.fromkeys(self._begun, 0)

    def show(self, all_of_it: bool = False) -> None:
        """Writes the lines that are new; at the end also one that is not whole."""
        for rank, path in enumerate(self._begun):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(self._read[path])
                while text := file.read(_AT_A_TIME):
                    self._read[path] += len(text)
                    *lines, self._begun[path] = (self._begun[path] + text).split(b"\n")
                    for line in lines:
                        _show(line, rank)
            if all_of_it and self._begun[path]:
                _show(self._begun[path], rank)


def _show(line: bytes, rank: int) -> None:
    sys.stderr.write(f"[{rank}] " * bool(rank) + line.decode(errors="replace") + "\n")


def _causes(error: Any) -> str:
    """What ended Ray's workers, in a line: the whole of it, with tracebacks, stands in Ray's own words above."""
    failures = getattr(error, "worker_failures", {})
    found = {_last_line(failure) for failure in failures.values()}
    return "; ".join(sorted(found)) or _last_line(error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
