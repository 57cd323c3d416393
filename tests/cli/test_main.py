"""The whole command line, from the words typed to what is printed, left on disk and returned."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import typer
from PIL import Image

from dlcli import console, doctor
from dlcli.cli.main import app, main
from dlcli.errors import TrainingInterruptedError

SMALL = (
    "--set", "architecture={name: mlp, hidden: [16]}", "--set", "training.epochs=1", "--set", "training.batch_size=256",
    "--set", "dataset.augmentation=[]", "--set", "schedule=constant",
)  # fmt: skip
COMMANDS = {"train", "evaluate", "predict", "plan", "validate", "schema", "doctor", "recipes", "data"}


class Ended(NamedTuple):
    code: Any
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; anything beside it is an error."""
        return json.loads(self.out)


def dlcli(*words: object) -> Ended:
    """`dlcli WORDS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["dlcli", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(console.console, "quiet", False),  # --quiet must not outlast the call
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Ended(ended.value.code or 0, out.getvalue(), err.getvalue())


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Ended:
    return dlcli("train", "digits_cnn", *SMALL, "--out", folder / "run", "--json")


@pytest.fixture(scope="module")
def run(trained: Ended, folder: Path) -> Path:
    assert trained.code == 0, trained.err
    return folder / "run"


@pytest.fixture(scope="module")
def samples(folder: Path) -> Path:
    ended = dlcli("data", "samples", "digits_cnn", "--out", folder / "samples", "--count", 4)
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == sorted(map(str, (folder / "samples").iterdir()))
    return folder / "samples"


def test_train_prints_one_json_object_and_its_progress_elsewhere(trained: Ended, run: Path) -> None:
    report = trained.json
    assert report["run"] == str(run)
    assert report["split"] == "test"
    assert report["examples"] == 360
    assert report["training"]["epochs"] == 1
    assert "epoch 1/1" in trained.err
    assert "data: digits" in trained.err


def test_evaluate_gives_what_training_wrote(trained: Ended, run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    ended = dlcli("evaluate", run, "--json", "--min", "accuracy=0")
    assert ended.code == 0, ended.err
    assert ended.json == trained.json
    assert json.loads((run / "metrics.json").read_text()) == before


def test_a_minimum_that_is_not_reached_is_3_after_the_whole_report(run: Path) -> None:
    ended = dlcli("evaluate", run, "--split", "validation", "--json", "--min", "accuracy=1.01")
    assert ended.code == 3
    assert ended.json["split"] == "validation"
    assert ended.err.splitlines()[-1].startswith("accuracy 0.")
    assert ended.err.rstrip().endswith("is below 1.01")
    assert json.loads((run / "metrics.json").read_text())["split"] == "test", (
        "metrics.json is the test split's"
    )


def test_results_go_to_stdout_and_notes_to_stderr(run: Path) -> None:
    ended = dlcli("evaluate", run)
    assert ended.code == 0
    assert "test: 360 examples" in ended.out and "accuracy" in ended.out and f"run: {run}" in ended.out
    assert f"{run}/plots/learning_curves.png" in ended.err and "pictures: " not in ended.out
    quiet = dlcli("evaluate", run, "--quiet")
    assert (quiet.out, quiet.err) == (ended.out, "")


def test_training_can_be_quiet_and_resuming_a_complete_run_reports_it(run: Path, tmp_path: Path) -> None:
    ended = dlcli("train", "digits_cnn", *SMALL, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert "run: runs/digits_cnn" in ended.out
    resumed = dlcli("train", "--resume", run, "--json")
    assert resumed.code == 0 and "complete already" in resumed.err
    assert resumed.json["run"] == str(run)


def test_predict_images(run: Path, samples: Path) -> None:
    ended = dlcli("predict", run, samples, "--json", "--top", 2)
    assert (ended.code, ended.err) == (0, "")
    rows = ended.json["predictions"]
    assert [row["input"] for row in rows] == [str(path) for path in sorted(samples.iterdir())]
    assert all(len(row["top"]) == 2 and row["class"] in "0123456789" for row in rows)
    shown = dlcli("predict", run, *sorted(samples.iterdir())[:1])
    assert shown.code == 0 and " %" in shown.out


def test_an_unreadable_input_is_2_and_the_others_are_predicted(
    run: Path, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    good = sorted(samples.iterdir())[0]
    ended = dlcli("predict", run, "broken.png", good, "absent.png", "--json")
    assert ended.code == 2
    assert [set(row) & {"class", "error"} for row in ended.json["predictions"]] == [
        {"error"},
        {"class"},
        {"error"},
    ]
    assert "2 of the inputs could not be read" in ended.err
    written = dlcli("predict", run, "broken.png", good, "--out", "predictions.csv")
    assert written.code == 2
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 3
    assert "1 predictions: predictions.csv" in written.out


def test_plan_draws_its_picture(tmp_path: Path) -> None:
    ended = dlcli("plan", "digits_cnn", *SMALL, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["parameters"]["total"] == 64 * 16 + 16 + 16 * 10 + 10
    with Image.open(tmp_path / "plan.png") as picture:
        assert picture.width > 100
    assert not (tmp_path / "runs").exists(), "a plan trains nothing"


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = dlcli("doctor", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["packages"]["keras"]
    monkeypatch.setattr(doctor.out, "width", 200)
    assert "CPU cores" in dlcli("doctor").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "digits_cnn", "--set", "optimizer.learning_rat=1"), "did you mean learning_rate"),
        (("train",), "give a recipe, or --resume RUN"),
        (("train", "digits_cnn", "--resume", "x"), "one of the two"),
        (("train", "--resume", "x", "--out", "y"), "--out does not go with it"),
        (("train", "digits_cnn", "--allow-change", "data"), "give --resume RUN too"),
        (("train", "--resume", "nowhere"), "nowhere: no such run folder"),
        (("evaluate", "nowhere"), "nowhere: no such run folder"),
        (("predict", "nowhere", "cat.png"), "nowhere: no such run folder"),
        (("predict", "nowhere"), "Missing argument"),
        (("plan", "digit_cnn"), "did you mean digits_cnn"),
        (("trian",), "trian"),
        (("train", "digits_cnn", "--sed", "1"), "No such option"),
    ],
)  # fmt: skip
def test_what_the_user_can_fix_is_2_without_a_traceback(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    ended = dlcli(*words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_what_evaluate_cannot_do_is_2(run: Path) -> None:
    assert "allowed: train, validation, test" in dlcli("evaluate", run, "--split", "tset").err
    for minimum, message in (
        ("accuracy", "give metric=number"),
        ("auc=1", "no such metric; allowed: accuracy"),
    ):
        ended = dlcli("evaluate", run, "--min", minimum)
        assert ended.code == 2 and message in ended.err


def test_a_run_is_never_overwritten(run: Path) -> None:
    before = (run / "model.keras").read_bytes()
    ended = dlcli("train", "digits_cnn", *SMALL, "--out", run)
    assert ended.code == 2
    assert f"--out {run}: is there already" in ended.err
    assert (run / "model.keras").read_bytes() == before


def test_a_loss_that_is_not_finite_is_4() -> None:
    """A deep linear network at the largest learning rate: its weights leave float32 within some steps."""
    explodes = (
        "optimizer={name: sgd, learning_rate: 1000}",
        "architecture={name: mlp, hidden: [16, 16, 16], activation: linear}",
    )
    ended = dlcli(
        "train", "digits_cnn", *SMALL, *(word for change in explodes for word in ("--set", change)), "--json"
    )
    assert (ended.code, ended.out) == (4, "")
    assert "the loss became" in ended.err and "try a tenth of it" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (TrainingInterruptedError("go on with --resume", 143), 143, "go on with --resume\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
    ],
)
def test_how_a_command_was_stopped(
    error: BaseException, code: int, message: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlcli.evaluation.evaluate.evaluate_run", mock.Mock(side_effect=error))
    ended = dlcli("evaluate", run)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err == message


def test_sigterm_outside_of_training_is_143(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "dlcli.evaluation.evaluate.evaluate_run", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    try:
        ended = dlcli("evaluate", run)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert (ended.code, ended.out, ended.err) == (143, "", "terminated\n")


def test_a_bug_is_1_with_a_traceback_and_how_to_report_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlcli.evaluation.evaluate.evaluate_run", mock.Mock(side_effect=RuntimeError("impossible"))
    )
    ended = dlcli("evaluate", run, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "Traceback" in ended.err and "RuntimeError: impossible" in ended.err
    assert "This is a bug in dlcli. Please report it" in ended.err and "dlcli doctor" in ended.err


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*words, name))


ALL_COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_each_help_explains_and_gives_an_example_that_names_the_command(words: tuple[str, ...]) -> None:
    ended = dlcli(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    if not hasattr(ALL_COMMANDS[words], "commands"):
        assert f"Example: dlcli {' '.join(words)}" in ended.out
    for parameter in ALL_COMMANDS[words].params:
        if parameter.name != "help" and getattr(parameter, "help", None) is not None:
            assert parameter.help[0].isupper() or parameter.help.startswith("train,"), parameter.name


def test_without_words_the_help_is_shown() -> None:
    ended = dlcli()
    assert ended.code in (0, 2)  # typer's own choice, which changed between its versions
    for name in COMMANDS:
        assert f"  {name} " in ended.out + ended.err


def test_version() -> None:
    ended = dlcli("--version")
    assert ended.code == 0 and ended.out.startswith("dlcli ")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from dlcli.cli.main import main\n"
        "sys.argv = ['dlcli', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'numpy', 'keras', 'tensorflow', 'sklearn', 'matplotlib', 'PIL', 'yaml'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example: dlcli train digits_cnn" in done.stdout
