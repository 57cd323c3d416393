"""`dlcli launch --ray`: what Ray is told, what its workers tell each other, and a real cluster of this machine."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlcli.errors import DlcliError, TrainingFailedError
from dlcli.launch import ray as on_ray
from dlcli.launch import ray_worker
from dlcli.launch.ray import check_ray, resources_per_worker, train_on_ray
from dlcli.launch.ray_worker import STOP, WorkerDiedError, follow, log_of
from dlcli.recipe.load import load_recipe

PYTHON = [sys.executable, "-S", "-E", "-c"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_worker, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(ray_worker, "PEERS_SECONDS", 0.5)
    monkeypatch.setattr(ray_worker, "STOP_SECONDS", 0.3)
    monkeypatch.setattr(on_ray, "POLL_SECONDS", 0.02)


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 8.0}], 2, {"CPU": 4}),
        ([{"CPU": 8.0}, {"CPU": 3.0}], 3, {"CPU": 3}),  # 3 + 3 on the first, 3 on the second
        ([{"CPU": 16.0, "GPU": 4.0}], 2, {"GPU": 2, "CPU": 1}),
        (
            [{"CPU": 16.0, "GPU": 3.0}, {"CPU": 16.0, "GPU": 3.0}],
            3,
            {"GPU": 1, "CPU": 1},
        ),  # 2 would go into two places
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0}], 1, {"GPU": 1, "CPU": 1}),
    ],
)
def test_workers_share_a_cluster_evenly(
    nodes: list[dict[str, float]], workers: int, expected: dict[str, float]
) -> None:
    assert resources_per_worker(nodes, workers) == expected


def test_workers_that_find_no_room_are_refused_on_one_machine_and_waited_for_on_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DlcliError, match="--workers 3: there are 2 GPUs"):
        resources_per_worker([{"CPU": 8.0, "GPU": 2.0}], 3, may_grow=False)
    assert resources_per_worker([{"CPU": 2.0}], 3) == {"CPU": 1}
    assert "Ray waits until it has more" in " ".join(capsys.readouterr().err.split())


def test_a_missing_ray_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlcli.extras._is_installed", lambda name: name != "ray")
    with pytest.raises(DlcliError, match=r"--ray needs the package ray: pip install 'dlcli\[ray\]'"):
        check_ray("local")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "not run through Ray Client; .* --ray auto"),
        ("head", "neither auto, local nor HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there .* `ray start --head`"),
        ("127.0.0.1:99999", "nothing answers there"),
    ],
)
def test_an_address_that_cannot_be_is_refused_at_once(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlcli.extras._is_installed", lambda name: True)
    began = time.monotonic()
    with pytest.raises(DlcliError, match=words):
        check_ray(address)
    assert time.monotonic() - began < 6  # Ray itself would try for two minutes


def followed(folder: Path, *scripts: str) -> list[Any]:
    """What `follow` gives or raises for each of several workers, which run at the same time."""
    ends: list[Any] = [None] * len(scripts)

    def run(rank: int) -> None:
        try:
            ends[rank] = follow([*PYTHON, scripts[rank]], dict(os.environ), folder, rank, len(scripts))
        except WorkerDiedError as error:
            ends[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(scripts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return ends


WAIT = "import time; time.sleep(15)"


def test_workers_that_end_well_end_the_training(tmp_path: Path) -> None:
    assert followed(tmp_path, "pass", "import time; time.sleep(0.2)") == [0, 0]


def test_what_a_user_can_fix_ends_all_workers_at_once_and_is_not_tried_again(tmp_path: Path) -> None:
    began = time.monotonic()
    assert followed(tmp_path, WAIT, "raise SystemExit(2)", WAIT) == [2, 2, 2]
    assert time.monotonic() - began < 5


def test_a_worker_that_does_not_hear_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(15)"
    began = time.monotonic()
    assert followed(tmp_path, deaf, "import time; time.sleep(0.3); raise SystemExit(3)") == [3, 3]
    assert time.monotonic() - began < 5


def test_a_killed_worker_is_left_to_ray(tmp_path: Path) -> None:
    (end,) = followed(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert isinstance(end, WorkerDiedError)
    assert log_of(tmp_path, 0).read_text() == "worker 0 was killed by SIGKILL\n"
    assert not list(tmp_path.glob("ended-*"))


def test_nan_is_final_where_all_say_it_but_not_where_one_has_only_lost_another(tmp_path: Path) -> None:
    four = "raise SystemExit(4)"
    assert followed(tmp_path, four, "import time; time.sleep(0.2); raise SystemExit(4)") == [4, 4]
    ends = followed(tmp_path, four, "import os; os.kill(os.getpid(), 9)")
    assert [str(end) for end in ends] == ["worker 0 ended with exit code 4", "worker 1 was killed by SIGKILL"]


def test_an_earlier_try_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "ended-0").write_text("2")
    assert followed(tmp_path, "pass") == [0]
    assert not (tmp_path / "ended-0").exists()


def test_a_stop_is_passed_on_and_what_the_workers_say_about_it_is_final(tmp_path: Path) -> None:
    saves = """
import signal, sys, time
def save(*_): sys.stderr.write("saved"); sys.exit(143)
signal.signal(signal.SIGTERM, save)
sys.stderr.write("ready\\n"); sys.stderr.flush()
time.sleep(15)
"""

    def stop_when_ready() -> None:
        logs = [log_of(tmp_path, rank) for rank in range(2)]
        while not all(log.is_file() and log.read_text() for log in logs):
            time.sleep(0.01)
        (tmp_path / STOP).touch()

    threading.Thread(target=stop_when_ready, daemon=True).start()
    assert followed(tmp_path, saves, saves) == [143, 143]
    assert log_of(tmp_path, 1).read_text() == "ready\nsaved"


def test_a_worker_that_ended_before_the_stop_reached_it_is_not_started_again(tmp_path: Path) -> None:
    touch = f"open({str(tmp_path / STOP)!r}, 'w').close()"
    by_agreement = f"{touch}; raise SystemExit(143)"
    on_the_way_out = f"{touch}; import os; os.kill(os.getpid(), 15)"
    assert followed(tmp_path, by_agreement, on_the_way_out) == [143, 143]
    assert followed(tmp_path, "open('started', 'w')") == [143]
    assert not list(tmp_path.glob("ended-*"))


def test_a_sigterm_that_nobody_here_sent_is_no_reason_to_stop(tmp_path: Path) -> None:
    (end,) = followed(tmp_path, "raise SystemExit(143)")
    assert isinstance(end, WorkerDiedError)


def test_a_folder_that_a_machine_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerDiedError, match=r"elsewhere is not there; --out must be on a shared file system"
    ):
        follow([*PYTHON, "pass"], {}, tmp_path / "elsewhere", 0, 1)


def test_ray_s_environment_goes_to_the_process_without_its_wish_for_keras_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = types.SimpleNamespace(get_world_rank=lambda: 1)
    monkeypatch.setitem(
        sys.modules,
        "ray.train",
        types.SimpleNamespace(get_context=lambda: context),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(ray_worker, "follow", lambda *given: given)
    for name, value in {"TF_CONFIG": "{}", "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    task = {"command": ["train", "x"], "folder": str(tmp_path), "workers": 2, "threads": 4}
    command, environment, folder, rank, workers = ray_worker.work(task)
    assert command[1:] == ["-m", "dlcli.launch.worker", "train", "x"]
    assert (folder, rank, workers) == (tmp_path, 1, 2)
    assert "TF_USE_LEGACY_KERAS" not in environment
    expected = {"TF_CONFIG": "{}", "CUDA_VISIBLE_DEVICES": "3", "TF_NUM_INTRAOP_THREADS": "4"}
    assert {name: environment[name] for name in expected} == expected
    assert environment["DLCLI_LAUNCHER"] == str(os.getpid())


def test_logs_come_out_in_whole_lines_with_the_numbers_of_all_but_the_chief(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = on_ray._Logs(tmp_path, 2)
    logs.show()
    with log_of(tmp_path, 0).open("ab") as chief, log_of(tmp_path, 1).open("ab") as other:
        chief.write(b"epoch 1\nepo")
        other.write("\u00e9\xff\n".encode("latin-1"))
        chief.flush()
        other.flush()
        logs.show()
        assert capsys.readouterr().err == "epoch 1\n[1] \ufffd\ufffd\n"
        chief.write(b"ch 2")
        chief.flush()
        logs.show()
        assert capsys.readouterr().err == ""
        logs.show(all_of_it=True)
        assert capsys.readouterr().err == "epoch 2\n"


class RayFailedError(Exception):
    """Stands for Ray's TrainingFailedError."""

    def __init__(self, message: str, worker_failures: dict[int, Exception]) -> None:
        super().__init__(message)
        self.worker_failures = worker_failures


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path, Path], Any]], None]:
    """`train_on_ray` with Ray played by a function of the workers' folder and the run."""
    monkeypatch.setattr(on_ray, "check_ray", lambda address: None)
    fake = types.SimpleNamespace(TrainingFailedError=RayFailedError)
    monkeypatch.setitem(sys.modules, "ray.train", fake)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def cluster(address: str, workers: int) -> Iterator[list[dict[str, float]]]:
        yield [{"CPU": 4.0}]

    monkeypatch.setattr(on_ray, "_cluster", cluster)

    def train(ray: Callable[[Path, Path], Any]) -> None:
        def trainer(folder: Path, out: Path, *_: Any) -> Any:
            return types.SimpleNamespace(fit=lambda: types.SimpleNamespace(return_value=ray(folder, out)))

        monkeypatch.setattr(on_ray, "_trainer", trainer)
        try:
            train_on_ray(load_recipe("digits_cnn"), tmp_path / "run", "local", 2, max_restarts=1)
        finally:
            assert not list(tmp_path.glob(".run.ray-*")), "the workers' folder stays behind"

    return train


def test_the_workers_find_the_whole_recipe_beside_the_run(trained: Any, tmp_path: Path) -> None:
    def ray(folder: Path, out: Path) -> int:
        assert out == tmp_path / "run"
        assert folder.parent == tmp_path  # on the run's file system
        assert load_recipe(folder / "recipe.yaml") == load_recipe("digits_cnn")
        return 0

    trained(ray)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_the_workers_exit_code_is_ours(trained: Any, code: int) -> None:
    with pytest.raises(DlcliError, match="what they said stands above") as raised:
        trained(lambda *_: code)
    assert raised.value.exit_code == code


def test_what_ray_gives_up_on_went_wrong(trained: Any) -> None:
    def ray(*_: Path) -> None:
        failure = ValueError("Traceback ...\nWorkerDiedError: worker 1 was killed by SIGKILL")
        raise RayFailedError("a long story", {1: failure})

    with pytest.raises(TrainingFailedError, match="failed for good: WorkerDiedError: worker 1 was killed"):
        trained(ray)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_workers_save_and_ends_as_everywhere(trained: Any, number: int, code: int) -> None:
    def ray(folder: Path, _: Path) -> int:
        os.kill(os.getpid(), number)
        until = time.monotonic() + 10
        while not (folder / STOP).exists() and time.monotonic() < until:
            time.sleep(0.01)
        return 143

    with pytest.raises(DlcliError, match="--continue") as raised:
        trained(ray)
    assert raised.value.exit_code == code


def _worker(out: Path, index: int) -> int | None:
    """The process of a worker that trains in `out`."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"dlcli.launch.worker" in words and str(out).encode() in words:
                variables = dict(
                    each.split(b"=", 1)
                    for each in (folder / "environ").read_bytes().split(b"\0")
                    if b"=" in each
                )
                if json.loads(variables[b"TF_CONFIG"])["task"]["index"] == index:
                    return int(folder.name)
    return None


@pytest.mark.slow
def test_a_cluster_of_this_machine_trains_on_after_a_kill_and_gets_what_one_process_gets(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    recipe = ["digits_cnn", "--set", "training.epochs=3", "--set", "regularization.dropout=0"]
    recipe += ["--set", "training.checkpoint.every_steps=10"]
    # Not Adam, whose first steps make much of the last bit.
    recipe += ["--set", "optimizer.name=sgd", "--set", "optimizer.learning_rate=0.05"]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    dlcli = [sys.executable, "-m", "dlcli"]
    out = tmp_path / "ray"
    command = [*dlcli, "launch", *recipe, "--ray", "local", "--workers", "2", "--out", str(out), "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as launched:
        until = time.monotonic() + 240
        while not list(out.glob("checkpoints/*")) and launched.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        victim = _worker(out, 1)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        printed, said = launched.communicate(timeout=300)
    assert launched.returncode == 0, said.decode()
    assert "[1] worker 1 was killed by SIGKILL" in said.decode()
    assert "resuming" in said.decode()
    assert json.loads(printed)["run"] == str(out)
    alone = tmp_path / "alone"
    subprocess.run([*dlcli, "train", *recipe, "--out", str(alone), "-q"], env=environment, check=True)
    ours, theirs = (
        [
            {key: float(row[key]) for key in ("loss", "val_loss", "accuracy")}
            for row in csv.DictReader((run / "history.csv").read_text().splitlines())
        ]
        for run in (out, alone)
    )
    assert len(ours) == 3
    assert ours == [pytest.approx(row, rel=1e-4) for row in theirs]
