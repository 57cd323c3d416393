"""Row 49: terminals, pipes and surroundings of all kinds. Nothing that is printed, or cannot be, ends any work."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

DLCLI = f"{shlex.quote(sys.executable)} -m dlcli"
WRONG = "--set optimizer.learning_rat=1"
SMALL = (
    "--set", "architecture={name: mlp, hidden: [4]}", "--set", "training.epochs=2", "--set", "training.batch_size=8",
    "--set", "dataset.augmentation=[]", "--set", "schedule=constant", "--set", "regularization={}",
)  # fmt: skip
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[([0-9]+;)*[349][0-7][;m]")


@dataclass(frozen=True)
class Fault:
    """One command line in surroundings that are not the usual ones."""

    what: str
    line: str
    """For the shell; it writes the exit code of dlcli to the file `code`."""
    code: int
    said: str = ""
    """A regular expression of what is on stdout or stderr."""
    environment: dict[str, str] = field(default_factory=dict)
    """Changes of it; an empty text takes a variable away."""


def piped(words: str, reader: str = "true") -> str:
    """Both streams go to a reader that leaves at once."""
    return f"({DLCLI} {words}; echo $? > code) 2>&1 | {reader}"


def ended(words: str) -> str:
    return f"{DLCLI} {words}; echo $? > code"


FAULTS = [
    Fault("stdout_closed_early", f"({DLCLI} schema; echo $? > code) | true", 0, "^$"),
    Fault("both_closed_early", piped("schema"), 0),
    Fault("an_error_that_nobody_reads", piped(f"validate digits_cnn {WRONG}"), 2),
    Fault("an_error_on_a_full_disk", ended(f"validate digits_cnn {WRONG} 2> /dev/full"), 2),
    Fault("a_result_on_a_full_disk", ended("validate digits_cnn > /dev/full"), 2, "^No space left on device; free"),
    Fault("no_streams_at_all", ended("validate digits_cnn <&- >&- 2>&-"), 0),
    Fault("no_stderr", ended(f"validate digits_cnn {WRONG} 2>&-"), 2, "^$"),
    Fault("a_dumb_terminal", ended("recipes list"), 0, "digits_cnn", {"TERM": "dumb", "COLUMNS": "40"}),
    Fault("no_home", ended("recipes list"), 0, "digits_cnn", {"HOME": ""}),
    Fault("a_home_that_cannot_be", ended("validate '~/none.yaml'"), 2, "none.yaml: no such file", {"HOME": "/dev/null"}),
    Fault("a_folder_that_is_gone", f"mkdir gone; cd gone; rmdir ../gone; {DLCLI} validate digits_cnn; echo $? > ../code", 0, "ok"),
    Fault(
        "a_folder_with_spaces_and_emoji",
        "mkdir 'my 😀 [x] é'; echo 'task: nothing' > 'my 😀 [x] é/r.yaml'; " + ended("validate 'my 😀 [x] é/r.yaml'"),
        2,
        r"r\.yaml:1:7 task",
        {"LC_ALL": "C"},
    ),
    Fault(
        "an_encoding_without_emoji",
        "mkdir '😀'; echo 'task: nothing' > '😀/r.yaml'; " + ended("validate '😀/r.yaml'"),
        2,
        r"r\.yaml:1:7 task",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ),
]  # fmt: skip


def surroundings(changes: dict[str, str]) -> dict[str, str]:
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **changes}
    return {name: value for name, value in known.items() if value or name not in changes}


SLOW = {"both_closed_early", "no_stderr", "no_home", "a_home_that_cannot_be", "an_encoding_without_emoji"}
"""Much like others: each of them takes half a second."""
ROWS = [
    pytest.param(each, id=f"row49_{each.what}", marks=[pytest.mark.slow] if each.what in SLOW else [])
    for each in FAULTS
]


@pytest.mark.parametrize("fault", ROWS)
def test_no_surroundings_end_in_a_traceback(fault: Fault, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", fault.line],
        cwd=tmp_path,
        env=surroundings(fault.environment),
        capture_output=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert (tmp_path / "code").read_text().strip() == str(fault.code), said
    assert re.search(fault.said, said) and not re.search("Traceback|Exception ignored|\x1b", said), said


SHOWS_PROGRESS = """
from dlcli.streams import prepare_streams
prepare_streams()
from dlcli.console import Counting, console, note, out, print_json, status, warn
console.no_color, console.is_terminal  # as they are
with status("reading"), Counting("features", "images", 300) as counting:
    for number in range(300):
        counting.add(1)
        counting.doing("a long name of what is being done " * 4)
        note("a note [red] that is longer than forty characters, and wraps or does not")
        warn("x" * 3000)
out.print("ended well")
"""


def test_row49_work_goes_on_when_nobody_reads_its_progress(tmp_path: Path) -> None:
    line = f"({shlex.quote(sys.executable)} -c '{SHOWS_PROGRESS}' 3>&1 1> result 2>&3; echo $? > code) | true"
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=surroundings({}), check=False)
    assert (tmp_path / "code").read_text().strip() == "0"
    assert (tmp_path / "result").read_text() == "ended well\n"


def on_a_terminal(command: list[str], folder: Path, changes: dict[str, str]) -> tuple[int, str]:
    """Exit code and all that a terminal of 40 columns is sent."""
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, cwd=folder, start_new_session=True,
        env=surroundings({"COLUMNS": "40", "LINES": "10", **changes}),
    ) as process:  # fmt: skip
        os.close(its_end)  # else the end of what is sent would never be seen
        seen = b""
        try:
            while piece := os.read(terminal, 65536):
                seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(terminal)
    return process.returncode, seen.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("changes", "escapes", "colors"),
    [({"TERM": "xterm-256color", "NO_COLOR": ""}, True, True), ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
     ({"TERM": "dumb"}, False, False)],
    ids=["row49_40_columns", "row49_NO_COLOR", "row49_TERM_dumb"],
)  # fmt: skip
def test_a_narrow_terminal(changes: dict[str, str], escapes: bool, colors: bool, tmp_path: Path) -> None:
    code, seen = on_a_terminal([sys.executable, "-c", SHOWS_PROGRESS], tmp_path, changes)
    assert code == 0 and "ended well" in seen and "Traceback" not in seen
    assert (bool(ESCAPE.search(seen)), bool(COLOR.search(seen))) == (escapes, colors)


@pytest.fixture
def clock_going_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each look at the clock shows an hour less."""
    start, looks = time.time(), count()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: start - 3600 * next(looks))
        yield


@pytest.mark.usefixtures("no_pictures", "clock_going_back")
def test_row49_a_run_with_spaces_and_emoji_without_a_home_and_a_clock_going_back(
    run_dlcli, class_folders, tmp_path, monkeypatch
) -> None:
    (tmp_path / "home").write_text("a file in the place of the folder")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("DLCLI_CACHE", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    data = class_folders().rename(tmp_path / "bilder 😀 [x]")
    recipe = tmp_path / "mein rezept é.yaml"
    recipe.write_text(
        f"task: image_classification\narchitecture: mlp\ndataset: {{name: image_folder, path: {json.dumps(str(data), ensure_ascii=False)}}}\n"
    )
    run = tmp_path / "läufe 😀" / "nr. 1 [red]"
    trained = run_dlcli("train", recipe, *SMALL, "--out", run)
    trained.check(0)
    rows = (run / "history.csv").read_text().splitlines()
    seconds = rows[0].split(",").index("seconds")
    assert len(rows) == 3 and all(float(row.split(",")[seconds]) >= 0 for row in rows[1:])
    assert "-1" not in re.findall(r"[-0-9.]+ s\b", trained.err)
    picture = data / "test" / "cat" / "000.png"
    predicted = run_dlcli("predict", run, picture, "--json")
    predicted.check(0)
    assert json.loads(predicted.out)["predictions"][0]["input"] == str(picture)


@pytest.mark.slow
def test_row49_a_training_that_nobody_watches_is_not_lost(tmp_path: Path) -> None:
    line = piped(f"train digits_cnn {shlex.join(SMALL)} --set training.batch_size=256 --out run", "head -1")
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=surroundings({}), capture_output=True, check=False
    )
    assert (tmp_path / "code").read_text().strip() == "0", done.stdout
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"TERM": "xterm"}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_row49_training_on_a_narrow_terminal(changes: dict[str, str], tmp_path: Path) -> None:
    words = ["train", "digits_cnn", *SMALL, "--set", "training.batch_size=256", "--out", "run"]
    code, seen = on_a_terminal([sys.executable, "-m", "dlcli", *words], tmp_path, changes)
    assert code == 0 and "Traceback" not in seen and "accuracy" in seen
    assert bool(ESCAPE.search(seen)) == (changes["TERM"] != "dumb")
    assert not COLOR.search(seen) or "NO_COLOR" not in changes
