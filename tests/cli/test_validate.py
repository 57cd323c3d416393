import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from dlcli.cli.validate import validate

GOOD = "{task: image_classification, dataset: digits, architecture: cnn}"
BAD = "{task: image_classification, dataset: digits, architecture: cnn, training: {epoch: 1, seed: -1}}"


@pytest.fixture
def run():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(validate)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path / "good.yaml", tmp_path / "bad.yaml"


def test_all_files_are_checked(run, files):
    good, bad = files
    result = run(bad, good, "no_such_recipe", good)
    assert result.exit_code == 2
    assert result.stdout == f"ok  {good}\nok  {good}\n"
    lines = result.stderr.splitlines()
    assert [line.split("; ")[0] for line in lines] == [
        f"{bad}:1:77 training.epoch: unknown key",
        f"{bad}:1:93 training.seed: out of range",
        "no_such_recipe: no shipped recipe has this name, and a file's name ends in .yaml",
    ]


def test_good_files_give_zero(run, files):
    result = run(files[0], "digits_cnn")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"ok  {files[0]}\nok  digits_cnn\n"


def test_json_is_one_object_on_stdout(run, files):
    result = run(*files, "--json")
    assert result.exit_code == 2 and result.stderr == ""
    found = json.loads(result.stdout)
    assert found["ok"] is False and [recipe["ok"] for recipe in found["recipes"]] == [True, False]
    first = found["recipes"][1]["mistakes"][0]
    assert (first["line"], first["path"], first["what"], first["suggestion"]) == (
        1, "training.epoch", "unknown key", "epochs",
    )  # fmt: skip


def test_set_is_checked_too(run, files):
    result = run(files[0], "--set", "training.epochs=0")
    assert result.exit_code == 2 and result.stderr.startswith("--set training.epochs=0: out of range")
    assert run(files[1], "--set", "training={}").exit_code == 0


def test_validate_is_quick_and_imports_nothing_heavy(files):
    """0.4 s of CPU with Python's own start; the best of three, for other work slows the clock."""
    code = (
        "import sys, time\n"
        "from dlcli.cli.validate import validate\n"
        "assert not {'pydantic', 'rich', 'yaml'} & set(sys.modules), 'imported with the command line'\n"
        f"validate([{str(files[0])!r}, 'digits_cnn'])\n"
        "assert not {'keras', 'tensorflow', 'numpy', 'sklearn', 'rich'} & set(sys.modules)\n"
        "print(time.process_time())"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout.splitlines()[-1]))
    assert min(seconds) < 0.4, seconds
