"""What several workers do about kills, signals and failures."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from kill_harness import state_of
from team import Team, Watch, numbers_of, states_of
from two_workers import (
    DIGITS,
    STEPS,
    check_alike,
    check_equal,
    check_same,
    launch,
    run,
    until,
    with_imports,
    written,
)

from dlcli.launch.environment import free_ports, tf_config

pytestmark = pytest.mark.usefixtures("no_gpus_no_cluster")


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1])
def test_who_is_killed_in_the_middle_of_an_epoch_starts_again_with_all_others(
    worker: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(str(tmp_path / "watch"), kill=(worker, STEPS + 8, signal.SIGKILL))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])
    code, said = launch(uninterrupted.with_name("dropped.yaml"), "--workers", 2, "--out", tmp_path / "run")
    assert code == 0, said
    assert f"worker {worker} was killed by SIGKILL" in said
    assert "from the checkpoint epoch-0001-step-0000000020 (restart 1 of 3)" in said
    check_alike(tmp_path / "watch")
    check_same(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_nothing_of_a_test_is_needed_to_survive_a_kill(uninterrupted: Path, tmp_path: Path) -> None:
    """The command as users start it, and `kill -9` from outside while it trains."""
    command = [
        sys.executable,
        "-m",
        "dlcli",
        "launch",
        uninterrupted.with_name("dropped.yaml"),
        "--workers",
        "2",
    ]
    launcher = subprocess.Popen(
        [*map(str, command), "--out", str(tmp_path / "run"), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=with_imports(),
    )  # fmt: skip
    until(lambda: list(tmp_path.glob("run/checkpoints/epoch-*")))
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    out, said = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, said
    assert "was killed by SIGKILL" in said
    assert json.loads(out)["run"] == str(tmp_path / "run")
    found, expected = (numbers_of(each)["arrays"] for each in (tmp_path / "run", uninterrupted))
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


@pytest.mark.slow
def test_a_signal_saves_one_step_and_any_number_of_workers_goes_on_from_it(
    team: Team, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(tmp_path, DIGITS)
    watch = Watch(str(tmp_path / "watch"), delay=(-1, 0.2))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])

    def send() -> None:
        until(lambda: list(tmp_path.glob("watch/state-0-0000-000005-*")))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run")
    sender.join()
    assert code == 143, said
    assert "--continue" in said.splitlines()[-1]
    check_alike(tmp_path / "watch")
    last = list(states_of(tmp_path / "watch"))[-1]
    newest = max(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    steps = int(last.split("-")[2]) * STEPS + int(last.split("-")[3])
    assert newest.endswith(f"-{steps:010d}")
    assert steps < 2 * STEPS

    shutil.copytree(tmp_path / "run", tmp_path / "three")
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    watch = Watch(str(tmp_path / "watched"))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run", "--continue")
    assert code == 0, said
    run(team, folder, "signalled-two", "train", recipe)
    check_same(tmp_path / "run", folder / "signalled-two")
    run(team, folder, "signalled-one", "train", recipe, codes=[0])
    run(team, tmp_path, "one", "train", recipe, codes=[0])
    run(team, tmp_path, "three", "train", recipe, codes=[0, 0, 0], watch=Watch(str(tmp_path / "of_three")))
    check_alike(tmp_path / "of_three", workers=3)
    for name in ("run", "one", "three"):
        check_equal(folder / "signalled-one", tmp_path / name)


@pytest.mark.slow
def test_the_chiefs_clock_decides_when_all_save(team: Team, tmp_path: Path) -> None:
    """A clock of 60 ms, a first worker that is slow, so that the other one's clock would say something else."""
    recipe = written(tmp_path, DIGITS.replace("every_steps: 5", "every_minutes: 0.001"))
    watch = Watch(str(tmp_path / "watch"), delay=(0, 0.05))
    run(team, tmp_path, "run", "train", recipe, watch=watch)
    check_alike(tmp_path / "watch")
    inside = [place for place in states_of(tmp_path / "watch") if not place.endswith("-000000")]
    assert len(inside) > 4
    run(team, tmp_path, "other", "train", written(tmp_path, DIGITS, "other"))
    assert state_of(tmp_path / "run")["models"] == state_of(tmp_path / "other")["models"]


@pytest.mark.slow
def test_nan_ends_all_and_is_not_tried_again(tmp_path: Path) -> None:
    recipe = written(
        tmp_path,
        DIGITS.replace("adam, learning_rate: 2e-3", "sgd, learning_rate: 1000") + "regularization: {l2: 0.1}",
    )
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run")
    assert code == 4, said
    assert "[0] the loss became nan at step" in said
    assert "restart" not in said


@pytest.mark.slow
def test_a_worker_with_another_run_folder_is_refused(team: Team, tmp_path: Path) -> None:
    """As on two machines without a shared file system, where one has the checkpoint."""
    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"), kill=(0, 8, signal.SIGKILL))
    assert team.run("train", recipe, "--out", tmp_path / "run", "--continue", watch=watch)[0].code == -9
    each = [["--out", str(tmp_path / name)] for name in ("run", "elsewhere")]
    ended = team.run("train", recipe, "--continue", each=each)
    assert ended[1].code == 2, ended[1].log
    assert "from the beginning, and the first one from epoch-0000-step-0000000005" in ended[1].log
    assert ended[0].code == 4, ended[0].log


@pytest.mark.slow
def test_a_survivor_says_that_another_one_is_gone(tmp_path: Path) -> None:
    """Without a launcher, as under Slurm: it notices by itself after some seconds."""
    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"), kill=(1, 8, signal.SIGKILL))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    found = by_hand(recipe, tmp_path / "run", addresses, watch, ((), ()))
    assert found[1][0] == -9
    code, said = found[0]
    assert code == 4, said
    assert "Traceback" not in said
    assert "worker" in said.splitlines()[-1] or "go on" in said


def by_hand(
    recipe: Path, out: Path, addresses: Sequence[str], watch: Watch, before: Sequence[Sequence[str]]
) -> list[tuple[int, str]]:
    """Two workers without `dlcli launch`: exit code and stderr of each.

    Args:
        recipe: trained.
        out: the run folder.
        addresses: of the workers.
        watch: what is watched.
        before: words of a command that starts each of them.
    """
    program = [sys.executable, str(Path(__file__).with_name("team.py"))]
    running = [
        subprocess.Popen(
            [*words, *program, "train", str(recipe), "--out", str(out), "--continue"],
            env={**with_imports(), **watch.variables(), "TF_CONFIG": tf_config(addresses, index)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for index, words in enumerate(before)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[1] for process in running]
        return [(process.returncode, text) for process, text in zip(running, said, strict=True)]
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextlib.contextmanager
def namespaces() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces with a cable between them: two machines, as far as TCP can tell."""
    names = [f"dlcli-{os.getpid()}-{side}" for side in "ab"]
    cable = [f"dl{os.getpid() % 100_000}{side}" for side in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")

    if shutil.which("ip") is None:
        pytest.skip("no ip command: network namespaces cannot be made")
    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            cable[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            cable[1],
            "netns",
            names[1],
        )
        for name, end, address in zip(names, cable, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_network_namespaces_are_like_two_machines(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed in one of them and started again in both, they end as two workers of one machine."""
    recipe = uninterrupted.with_name("dropped.yaml")
    watch = Watch(str(tmp_path / "watch"), kill=(1, STEPS + 8, signal.SIGKILL))
    with namespaces() as made:
        addresses = [f"{address}:{port}" for (_, address), port in zip(made, (2221, 2222), strict=True)]
        inside = [["ip", "netns", "exec", name] for name, _ in made]
        found = by_hand(recipe, tmp_path / "run", addresses, watch, inside)
        assert [code for code, _ in found] == [4, -9], found
        found = by_hand(recipe, tmp_path / "run", addresses, watch, inside)
        assert [code for code, _ in found] == [0, 0], found
    check_alike(tmp_path / "watch")
    check_same(tmp_path / "run", uninterrupted)
