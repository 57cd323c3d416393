"""`dlcli launch` with workers that are small scripts: who ends whom, what is started again, what comes out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlcli.errors import DlcliError, TrainingInterruptedError
from dlcli.launch import supervise as supervising
from dlcli.launch import workers as processes
from dlcli.launch.environment import worker_environments
from dlcli.launch.supervise import Launch, WorkerFailedError, supervise
from dlcli.launch.workers import Workers

PREPARED = """
import json, os, signal, sys, time
from pathlib import Path
config = json.loads(os.environ["TF_CONFIG"])
index, run = config["task"]["index"], Path(sys.argv[1])
count = len(config["cluster"]["worker"])
starts = len([name for name in os.listdir(run) if name.startswith(f"start-{index}-")])
def put(name, text):
    (run / f".{name}").write_text(text)
    (run / f".{name}").rename(run / name)
put(f"start-{index}-{starts}", str(os.getpid()))
def say(text): sys.stderr.write(text + "\\n"); sys.stderr.flush()
def checkpoint(): (run / "checkpoints" / f"epoch-0001-step-{starts:010d}").mkdir(parents=True)
def die(number=signal.SIGKILL): os.kill(os.getpid(), number); time.sleep(30)
def last_of_all():
    while len([name for name in os.listdir(run) if name.startswith("start-") and name.endswith(f"-{starts}")]) < count: time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(supervising, "SETTLE_SECONDS", 0.4)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launch]:
    """What launches a script with `index`, `starts` so far, and the helpers above."""

    def make(script: str, workers: int = 2, max_restarts: int = 3) -> Launch:
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        program = tmp_path / "program.py"
        program.write_text(PREPARED + textwrap.dedent(script))
        # -S -E: a worker that is nothing but Python starts in a hundredth of a second.
        command = [sys.executable, "-S", "-E", str(program), str(run)]
        return Launch(
            command, lambda: worker_environments(workers, ()), run, max_restarts, ["dlcli", "go", "on"]
        )

    return make


def starts_of(launched: Launch) -> int:
    return len(list(launched.run.glob("start-0-*")))


def left_behind(launched: Launch) -> list[int]:
    """Workers that are still there."""
    found = []
    for path in launched.run.glob("start-*"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
            found.append(int(path.read_text()))
    return found


# What comes out


def test_lines_carry_the_workers_number_and_the_result_is_on_stdout_alone(launch, capfd):
    launched = launch(
        """
        say(f"line of {index}")
        sys.stderr.write("10 %\\r50 %\\r100 %\\n\\x1b and \\u00e9\\n" if index else "no newline at the end")
        print(json.dumps({"accuracy": 1}) if index == 0 else "what worker 1 prints is no result")
        """
    )
    supervise(launched)
    out, err = capfd.readouterr()
    assert json.loads(out) == {"accuracy": 1}
    assert sorted(err.splitlines()) == sorted(
        [
            "[0] line of 0", "[0] no newline at the end", "[1] line of 1", "[1] 100 %", "[1] \x1b and é",
            "[1] what worker 1 prints is no result",
        ]
    )  # fmt: skip


def test_one_worker_has_no_number_and_no_cluster(tmp_path, capfd):
    script = "import os, sys; sys.stderr.write(f'{os.environ.get(\"TF_CONFIG\")}\\n')"
    command = [sys.executable, "-S", "-E", "-c", script]
    given = {"PATH": os.environ["PATH"], "TF_CONFIG": "of somebody else"}
    supervise(Launch(command, lambda: worker_environments(1, (), given), tmp_path, 0, []))
    assert capfd.readouterr().err == "None\n"


def test_what_a_worker_prints_without_end_fills_no_memory(launch, capfd):
    supervise(launch("sys.stderr.write('x' * 100_000 if index else '')"))
    lines = capfd.readouterr().err.splitlines()
    assert {len(line) for line in lines} <= {len("[1] ") + length for length in (8192, 100_000 % 8192)}
    assert sum(len(line) - len("[1] ") for line in lines) == 100_000


# Who ends whom, and what is started again


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_who_was_killed_starts_again_with_all_others(launch, capfd, number):
    launched = launch(
        f"if starts == 0 and index == 1: checkpoint(); last_of_all(); die({number})\nif starts == 0: time.sleep(30)"
    )
    began = time.monotonic()
    supervise(launched)
    assert time.monotonic() - began < 10
    assert starts_of(launched) == 2 and not left_behind(launched)
    said = capfd.readouterr().err
    assert f"worker 1 was killed by {number.name}" in said
    assert "all start again from the checkpoint epoch-0001-step-0000000000 (restart 1 of 3)" in said


def test_who_is_always_killed_is_started_as_often_as_allowed(launch, capfd):
    launched = launch("last_of_all()\ndie() if index else time.sleep(30)", max_restarts=2)
    with pytest.raises(
        WorkerFailedError, match=r"worker 1 was killed by SIGKILL .*2 restarts are used up"
    ) as failed:
        supervise(launched)
    assert failed.value.exit_code == 4
    assert starts_of(launched) == 3 and not left_behind(launched)
    assert "all start again from the beginning (restart 2 of 2)" in capfd.readouterr().err


@pytest.mark.parametrize("code", [2, 3, 4])
def test_what_would_come_again_ends_with_the_same_exit_code(launch, capfd, code):
    launched = launch(
        f"if index == 1: last_of_all(); say('why'); sys.exit({code})\ntime.sleep(0.3); sys.exit(4)"
    )
    with pytest.raises(WorkerFailedError, match=f"worker 1 ended with exit code {code}") as failed:
        supervise(launched)
    assert failed.value.exit_code == code
    assert starts_of(launched) == 1 and not left_behind(launched)
    assert capfd.readouterr().err.splitlines()[0] == "[1] why"


def test_a_crash_gets_another_chance_but_not_the_same_one_twice(launch):
    launched = launch("if index == 0: last_of_all(); sys.exit(1)\ntime.sleep(30)")
    with pytest.raises(WorkerFailedError) as failed:
        supervise(launched)
    assert (failed.value.exit_code, starts_of(launched)) == (1, 2)


def test_crashes_with_progress_in_between_get_all_their_chances(launch):
    launched = launch("if index == 0: checkpoint(); last_of_all(); sys.exit(1)\ntime.sleep(30)")
    with pytest.raises(WorkerFailedError, match=r"3 restarts are used up .*: dlcli go on") as failed:
        supervise(launched)
    assert (failed.value.exit_code, starts_of(launched)) == (1, 4)


def test_the_cause_counts_and_not_who_noticed_it_first(launch, capfd):
    """Worker 1 sees the connection close (4) while worker 0 is still on its way out, with the reason (2)."""
    launched = launch("last_of_all()\nif index: sys.exit(4)\ntime.sleep(0.2); say('the reason'); sys.exit(2)")
    with pytest.raises(WorkerFailedError, match="worker 0 ended with exit code 2") as failed:
        supervise(launched)
    assert failed.value.exit_code == 2
    assert "[0] the reason" in capfd.readouterr().err


def test_who_hangs_is_started_again_with_all_others(launch, capfd, monkeypatch):
    """Worker 1 stands still, worker 0 notices that it no longer answers."""
    monkeypatch.setattr(supervising, "NOTICE_SECONDS", 0.3)
    launched = launch(
        "if starts == 0: last_of_all(); os.kill(os.getpid(), signal.SIGSTOP) if index else sys.exit(4)"
    )
    supervise(launched)
    assert "worker 1 no longer answered the others; all start again" in capfd.readouterr().err
    assert starts_of(launched) == 2 and not left_behind(launched)


def test_survivors_have_nothing_to_say(launch, capfd):
    launched = launch(
        """
        def complain(*_): say("stuck"); time.sleep(30)
        signal.signal(signal.SIGTERM, complain)
        if starts == 0: last_of_all(); die() if index else time.sleep(30)
        """
    )
    supervise(launched)
    assert "stuck" not in capfd.readouterr().err
    assert not left_behind(launched)


def test_when_worker_0_has_ended_well_nobody_waits_for_ever(launch, monkeypatch):
    monkeypatch.setattr(supervising, "FAREWELL_SECONDS", 0.3)
    launched = launch("if index: time.sleep(30)")
    supervise(launched)
    assert starts_of(launched) == 1 and not left_behind(launched)


def test_worker_0_may_end_long_after_the_others(launch, capfd, monkeypatch):
    monkeypatch.setattr(supervising, "FAREWELL_SECONDS", 0.1)
    launched = launch("if index == 0: last_of_all(); time.sleep(0.6); print('done')")
    supervise(launched)
    assert capfd.readouterr().out == "done\n"


# Signals


@contextlib.contextmanager
def signalled(number: int, when: Callable[[], bool]) -> Iterator[None]:
    """Sends this process a signal, once something is so."""

    def send() -> None:
        while not when():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    thread.join()


HEARS = """
def hear(number, frame): (run / f"heard-{index}-{number}").touch(); %s
signal.signal(signal.SIGINT, hear); signal.signal(signal.SIGTERM, hear)
(run / f"ready-{index}").touch()
time.sleep(30)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_passed_on_once_and_all_end_in_order(launch, number, code):
    launched = launch(HEARS % "checkpoint() if index == 0 else None; time.sleep(0.3); sys.exit(128 + number)")
    ready = lambda: len(list(launched.run.glob("ready-*"))) == 2  # noqa: E731
    with (
        signalled(number, ready),
        pytest.raises(TrainingInterruptedError, match="with: dlcli go on") as stopped,
    ):
        supervise(launched)
    assert stopped.value.exit_code == code
    heard = sorted(path.name for path in launched.run.glob("heard-*"))
    assert heard == [f"heard-{index}-{int(number)}" for index in range(2)]
    assert starts_of(launched) == 1 and not left_behind(launched)


def test_an_end_that_was_asked_for_waits_for_worker_0_to_save(launch):
    """Worker 1 has nothing to save and ends first; that must not take worker 0 with it."""
    launched = launch(
        HEARS % "time.sleep(0 if index else 0.8); (run / f'saved-{index}').touch(); sys.exit(130)"
    )
    ready = lambda: len(list(launched.run.glob("ready-*"))) == 2  # noqa: E731
    with signalled(signal.SIGINT, ready), pytest.raises(TrainingInterruptedError):
        supervise(launched)
    assert (launched.run / "saved-0").exists()


def test_a_signal_to_one_worker_ends_all_without_a_restart(launch):
    """They agree on it among themselves."""
    launched = launch(
        "last_of_all(); time.sleep(0 if index else 0.5); checkpoint() if index == 0 else None; sys.exit(143)"
    )
    with pytest.raises(
        TrainingInterruptedError, match="worker 1 ended with exit code 143: someone"
    ) as stopped:
        supervise(launched)
    assert (stopped.value.exit_code, starts_of(launched)) == (143, 1)
    assert (launched.run / "checkpoints").exists()


def test_a_failure_while_saving_is_no_interruption(launch):
    launched = launch(HEARS % "sys.exit(130 if index else 4)")
    ready = lambda: len(list(launched.run.glob("ready-*"))) == 2  # noqa: E731
    with signalled(signal.SIGINT, ready), pytest.raises(WorkerFailedError) as failed:
        supervise(launched)
    assert failed.value.exit_code == 4


LAUNCHER = """
import os, signal, sys
from pathlib import Path
from dlcli.launch.environment import worker_environments
from dlcli.launch.supervise import Launch, supervise
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, by all that it starts too
run = Path(sys.argv[1])
code = (
    "import os, signal, sys, time; from pathlib import Path; from dlcli.launch.worker import PARENT, stay_with;"
    "stay_with(int(os.environ[PARENT]));"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(60)"
)
command = [sys.executable, "-c", code, str(run)]
supervise(Launch(command, lambda: worker_environments(2, ()), run, 0, []))
"""


@pytest.mark.parametrize(
    "numbers", [[signal.SIGKILL], [signal.SIGINT] * 2, [signal.SIGTERM, signal.SIGINT], [signal.SIGHUP]]
)
def test_no_worker_outlives_its_launcher(tmp_path, numbers):
    """Workers that hear no signal: by kill -9 of the launcher, and by the second signal that it gets, they end at once."""
    run = tmp_path / "run"
    run.mkdir()
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(run)],
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # who is killed leaves a folder there
    )
    try:
        wait_until(lambda: len(list(run.iterdir())) == 2)
        for number in numbers:
            os.kill(launcher.pid, number)
            time.sleep(0.3)
        assert launcher.wait(10) == -numbers[-1]
        wait_until(lambda: not any(map(is_running, run.iterdir())))
    finally:
        launcher.kill()
        launcher.wait()


def wait_until(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(path: Path) -> bool:
    """Whether a process does anything; one that nobody waits for stays in the table for a while."""
    try:
        return Path("/proc", path.name, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_of_a_worker_goes_with_it(launch):
    launched = launch(
        """
        import subprocess
        if index == 0:
            child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
            put("start-child", str(child.pid))
            time.sleep(60)
        while not (run / "start-child").exists(): time.sleep(0.01)
        sys.exit(2)
        """
    )
    with pytest.raises(WorkerFailedError):
        supervise(launched)
    wait_until(lambda: not is_running(Path((launched.run / "start-child").read_text())))


def test_what_cannot_be_started_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(DlcliError, match="worker 0 cannot be started"),
        Workers([str(tmp_path / "none")], [{}]),
    ):
        pass
