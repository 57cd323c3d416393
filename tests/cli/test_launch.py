"""`dlcli launch`: what is refused before anything starts, and what it starts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from unittest import mock

import pytest

from dlcli import console
from dlcli.cli.main import main
from dlcli.launch import workers

RECORDS = """
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
run = Path(words[words.index("--out") + 1])
index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / f"words-{index}.json").write_text(json.dumps(words))
if index == 0: print('{"result": 1}')
"""


@pytest.fixture(autouse=True)
def _no_gpus_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("TF_CONFIG", raising=False)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers only write down what they were told."""
    program = tmp_path / "program.py"
    program.write_text(RECORDS)
    monkeypatch.setattr(
        workers, "dlcli_command", lambda *words: [sys.executable, "-S", "-E", str(program), *words]
    )


def launch(*words: object) -> tuple[int, str]:
    """`dlcli launch WORDS` in this process: exit code, stderr."""
    err = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["dlcli", "launch", *map(str, words)]),
        mock.patch.object(console.console, "quiet", False),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code or 0, err.getvalue()


def test_every_worker_runs_the_same_training_and_one_result_comes_out(started, capfd):
    code, said = launch(
        "digits_cnn", "-n", 2, "--set", "training.epochs=3", "--set", "dataset.augmentation=[]", "--json"
    )
    assert (code, json.loads(capfd.readouterr().out)) == (0, {"result": 1})
    run = Path("runs/digits_cnn")
    words = [json.loads((run / f"words-{index}.json").read_text()) for index in range(2)]
    assert words[0] == words[1]
    assert words[0] == [
        "train", "digits_cnn", "--set", "training.epochs=3", "--set", "dataset.augmentation=[]", "--out", str(run),
        "--continue", "--json",
    ]  # fmt: skip
    assert f"2 workers on the CPU, which has {len(os.sched_getaffinity(0))} cores" in said


def test_each_launch_has_a_folder_of_its_own_and_an_old_one_goes_on_when_asked(started):
    assert launch("digits_cnn", "-n", 1, "-q") == (0, "")
    assert launch("digits_cnn", "-n", 1, "-q") == (0, "")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["digits_cnn", "digits_cnn-2"]
    run = Path("runs/digits_cnn")
    (run / "recipe.yaml").touch()
    code, said = launch("digits_cnn", "-n", 1, "--out", run)
    assert code == 2 and "is there already and a run is never overwritten" in said
    assert launch("digits_cnn", "-n", 1, "-q", "--out", run, "--continue") == (0, "")
    assert launch("digits_cnn", "-n", 1, "-q", "--out", "new", "--continue") == (0, "")


def test_a_training_that_did_not_begin_leaves_no_folder(monkeypatch):
    monkeypatch.setattr(
        workers, "dlcli_command", lambda *words: [sys.executable, "-S", "-c", "raise SystemExit(2)"]
    )
    monkeypatch.setattr("dlcli.launch.supervise.SETTLE_SECONDS", 0.2)
    code, said = launch("digits_cnn", "-n", 2)
    assert code == 2 and "ended with exit code 2" in said and "Go on" not in said
    assert not Path("runs/digits_cnn").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits_cnn"], "--workers N: how many processes"),
        (["digits_cnn", "-n", 0], "Invalid value for '--workers'"),
        (["digits_cnn", "-n", 2, "--set", "optimizer.learning_rat=1"], "did you mean learning_rate"),
        (["digits_cnn", "-n", 2, "--set", "distribution.strategy=mirrored"], "mirrored trains in one process"),
        (["digits_cnn", "-n", 2, "--set", "distribution.strategy=none"], "strategy none trains in one process"),
        (["digits_cnn", "-n", 1, "--set", "distribution.strategy=multi_worker"], "is for several workers"),
        (["digits_cnn", "-n", 2, "--continue"], "name it with --out"),
        (["none.yaml", "-n", 2], "no such file"),
    ],
)  # fmt: skip
def test_refused_before_anything_starts(words, message, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", mock.Mock(side_effect=AssertionError))
    code, said = launch(*words)
    assert code == 2 and message in " ".join(said.split())
    assert not Path("runs").exists()


@pytest.mark.parametrize("variables", [{"TF_CONFIG": "{}"}, {"SLURM_STEP_NUM_TASKS": "2"}])
def test_a_worker_launches_no_workers(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, said = launch("digits_cnn", "-n", 2)
    assert code == 2 and "is itself one of several workers" in said


def test_too_few_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    code, said = launch("digits_cnn", "-n", 2)
    assert code == 2 and "1 GPU is here (3)" in said and not Path("runs").exists()


def test_dry_run_shows_commands_that_can_be_typed_and_does_nothing(capsys):
    assert launch("digits_cnn", "-n", 2, "--dry-run") == (0, "")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines] == ["[0] env", "[1] env"] and "'TF_CONFIG={" in lines[1]
    assert lines[0].endswith("-m dlcli.launch.worker train digits_cnn --out runs/digits_cnn --continue")
    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": "4,5"}):
        assert launch("digits_cnn", "-n", 2, "--dry-run", "--json", "--out", "there")[0] == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workers"] == 2 and found["command"][-4:] == ["--out", "there", "--continue", "--json"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found["environments"]] == ["4", "5"]
    assert list(Path().iterdir()) == []
