"""`dlcli launch --calibrate`: what is timed, which number is taken, and that nothing stays of it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from rich.console import Console

from dlcli.cli.main import main
from dlcli.errors import DlcliError
from dlcli.launch import calibrate as calibrating
from dlcli.launch import supervise
from dlcli.launch.calibrate import (
    Calibration,
    Measured,
    calibrate,
    choose_fastest,
    numbers_up_to,
    print_calibration,
)
from dlcli.launch.timing import main as time_as_asked
from dlcli.launch.timing import time_steps
from dlcli.launch.workers import Ended
from dlcli.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("most", "numbers"),
    [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (5, [1, 2, 3, 4, 5]), (16, [1, 2, 3, 4, 8, 16])],
)
def test_every_small_number_is_timed_and_the_largest(most: int, numbers: list[int]) -> None:
    assert numbers_up_to(most) == numbers


@pytest.mark.parametrize(
    ("speeds", "chosen", "words"),
    [
        ([100.0], 1, "no other number was asked for"),
        ([100.0, 60.0], 1, "more are slower here, with 0.60 times its throughput at best"),
        ([100.0, 190.0], 2, "the highest throughput, 1.90 times that of fewer"),
        ([100.0, 190.0, 199.0], 2, "95% of the highest throughput, that of 3"),  # 190 / 199 is 0.955
        ([100.0, 190.0, 201.0], 3, "the highest throughput, 1.06 times"),
        ([None, 190.0], 2, "no other number could be timed"),
        ([100.0, None], 1, "no other number could be timed"),
    ],
)
def test_the_fewest_within_five_percent_of_the_fastest_are_taken(
    speeds: list[float | None], chosen: int, words: str
) -> None:
    rows = [Measured(count, speed) for count, speed in enumerate(speeds, start=1)]
    found, why = choose_fastest(rows)
    assert found == chosen
    assert words in why


def test_where_nothing_could_be_timed_the_first_reason_and_its_exit_code_are_ours() -> None:
    rows = [Measured(1, failed="no such folder", exit_code=2), Measured(2, failed="killed", exit_code=4)]
    with pytest.raises(DlcliError, match="1 worker: no such folder") as raised:
        choose_fastest(rows)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "gpus", "words"),
    [
        ("distribution.strategy=none", (), "strategy none trains on one device"),
        ("distribution.strategy=mirrored", (), "mirrored is over several GPUs, and none is here"),
        ("distribution={strategy: mirrored, devices: [GPU:0, GPU:1]}", ("0", "1"), "devices says how many"),
        ("distribution.logical_devices=2", (), "logical_devices says how many"),
        ("distribution.strategy=auto", ("0", "1"), "--workers 4: .* 2 are here"),
    ],
)
def test_a_recipe_that_leaves_nothing_to_choose_is_refused_before_anything_starts(
    change: str, gpus: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "_run", mock.Mock(side_effect=AssertionError("started")))
    with pytest.raises(DlcliError, match=words):
        calibrate(load_recipe("digits_cnn", [change]), 4, gpus)


class Machine:
    """Plays the processes that time: what each start was told, and what it answers."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.starts: list[dict[str, Any]] = []

    def run(self, command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Ended | None:
        request = json.loads(Path(command[-2]).read_text())
        recipe = load_recipe(request["recipe"])
        gpus = environments[0].get("CUDA_VISIBLE_DEVICES")
        self.starts.append(
            {
                "workers": len(environments),
                "strategy": recipe.distribution.strategy,
                "steps": request["steps"],
                "gpus": gpus,
            }
        )
        answer = self.answers[f"start_{len(self.starts)}"]
        if isinstance(answer, Ended):
            return answer
        for index in range(len(environments)):
            found = (
                answer
                if "error" in answer
                else {
                    "steps": 7, "seconds_per_step": 0.5, "examples_per_second": 0.0, "batch_size": 64,
                    "memory_bytes": 2**20 * (index + 1), "gpu_memory_bytes": None, **answer,
                }
            )  # fmt: skip
            Path(f"{command[-1]}.{index}").write_text(json.dumps(found))
        return None


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")


@pytest.mark.usefixtures("no_gpus")
def test_workers_take_the_same_steps_and_a_number_that_fails_is_no_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(
        start_1={"examples_per_second": 100.0},
        start_2={"examples_per_second": 150.0},
        start_3={"error": "batch_size 64 leaves some without", "exit_code": 2},
        start_4=Ended(1, -9),
    )
    monkeypatch.setattr(calibrating, "_run", machine.run)
    found = calibrate(load_recipe("digits_cnn"), 4, ())
    assert [(start["workers"], start["strategy"], start["steps"]) for start in machine.starts] == [
        (1, "auto", None), (2, "multi_worker", 7), (3, "multi_worker", 7), (4, "multi_worker", 7),
    ]  # fmt: skip
    assert [row.efficiency for row in found.rows] == [1.0, 0.75, None, None]
    assert found.rows[1].memory_bytes == 2 * 2**20  # of the worker with most
    assert found.rows[2].failed == "batch_size 64 leaves some without"
    assert found.rows[3].failed == "worker 1 was killed by SIGKILL (for want of memory?)"
    assert (found.chosen, found.workers, found.gpus) == (2, 2, ())
    print_calibration(found, Console(width=120))
    shown = capsys.readouterr().out
    for words in (
        "75%",
        "3 workers: not timed: batch_size",
        "2 workers: the highest throughput",
        "within 5%",
    ):
        assert words in shown


def test_several_gpus_are_devices_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(start_1={"examples_per_second": 100.0}, start_2={"examples_per_second": 180.0})
    monkeypatch.setattr(calibrating, "_run", machine.run)
    found = calibrate(load_recipe("digits_cnn"), None, ("3", "5"))
    assert [(start["workers"], start["strategy"], start["gpus"]) for start in machine.starts] == [
        (1, "auto", "3"), (1, "mirrored", "3,5"),
    ]  # fmt: skip
    assert (found.kind, found.chosen, found.workers, found.gpus) == ("devices", 2, 1, ("3", "5"))


@pytest.mark.usefixtures("no_gpus")
def test_one_worker_of_several_is_no_cluster_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(start_1={"examples_per_second": 100.0}, start_2={"examples_per_second": 50.0})
    monkeypatch.setattr(calibrating, "_run", machine.run)
    found = calibrate(load_recipe("digits_cnn", ["distribution.strategy=multi_worker"]), 2, ())
    assert machine.starts[0]["strategy"] == "auto"  # multi_worker would wait for others
    assert found.changes == ("distribution.strategy=auto",)


@pytest.mark.slow
def test_steps_are_timed_as_the_training_does_them_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(
        "digits_cnn",
        ["architecture.filters=[4]", "training.steps_per_execution=2", "training.batch_size=110"],
    )
    found = time_steps(recipe, 3)
    assert found["steps"] == 4  # whole calls of two steps
    assert found["replicas"] == 1
    assert found["batch_size"] == 110
    # 1,293 train examples or so in 12 batches, the last of which is not full
    assert found["examples_per_second"] * found["seconds_per_step"] == pytest.approx(1293 / 12, abs=1)
    assert found["memory_bytes"] > 2**27
    assert not list(tmp_path.iterdir())


def test_what_goes_wrong_while_timing_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLCLI_LAUNCHER", raising=False)
    monkeypatch.setenv("TF_CONFIG", '{"task": {"index": 3}}')
    monkeypatch.setattr("os._exit", mock.Mock(side_effect=SystemExit))
    (tmp_path / "request").write_text(json.dumps({"recipe": str(tmp_path / "none.yaml"), "steps": 1}))
    with pytest.raises(SystemExit):
        time_as_asked(tmp_path / "request", tmp_path / "result")
    found = json.loads((tmp_path / "result.3").read_text())
    assert "none.yaml" in found["error"]
    assert found["exit_code"] == 2


@pytest.mark.usefixtures("no_gpus")
class TestCommand:
    """`dlcli launch --calibrate`."""

    @pytest.fixture(autouse=True)
    def _found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("TF_CONFIG", raising=False)
        rows = (Measured(1, 100.0, 1.0, 0.6, 64, 2**29), Measured(2, 190.0, 0.95, 0.3, 64, 2**29))
        found = partial(Calibration, "workers", rows, gpus=())
        self.found = found(2, "2 workers: because")
        monkeypatch.setattr(calibrating, "calibrate", lambda *given: self.found)
        self.launched: list[supervise.Launch] = []
        monkeypatch.setattr(supervise, "supervise", self.launched.append)

    def launch(self, *words: str) -> tuple[int, str]:
        out = io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["dlcli", "launch", "digits_cnn", "--calibrate", *words]),
            contextlib.redirect_stdout(out),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        return ended.value.code or 0, out.getvalue()

    def test_alone_it_measures_and_starts_nothing(self, tmp_path: Path) -> None:
        code, out = self.launch("--dry-run", "--json")
        assert code == 0
        found = json.loads(out)
        assert (found["chosen"], found["why"], found["replicas_are"]) == (2, "2 workers: because", "workers")
        assert found["measured"][1]["efficiency"] == 0.95
        assert not self.launched
        assert not list(tmp_path.iterdir())

    def test_then_so_many_workers_are_launched(self) -> None:
        code, out = self.launch("--json")
        assert (code, out) == (0, "")  # the first worker prints the one JSON object
        (launch,) = self.launched
        assert len(launch.environments()) == 2

    def test_a_change_that_the_choice_needs_reaches_the_worker(self) -> None:
        self.found = Calibration("workers", (), 1, "1 worker: because", (), ("distribution.strategy=auto",))
        assert self.launch()[0] == 0
        (launch,) = self.launched
        assert "distribution.strategy=auto" in launch.command
        assert ["TF_CONFIG" in each for each in launch.environments()] == [False]

    def test_it_is_not_for_a_cluster(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.launch("--ray", "auto")[0] == 2
        assert "does not go with --ray" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("no_gpus")
def test_two_real_workers_are_timed_against_one() -> None:
    found = calibrate(load_recipe("digits_cnn"), 2, ())
    assert [row.failed for row in found.rows] == [None, None]
    assert [row.batch_size for row in found.rows] == [64, 64]
    one, two = (row.examples_per_second or 0 for row in found.rows)
    assert one > 0
    assert found.rows[1].efficiency == pytest.approx(two / one / 2)
