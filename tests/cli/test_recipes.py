import json

import pytest
from typer.testing import CliRunner

from dlcli.cli.recipes import app
from dlcli.errors import DlcliError
from dlcli.recipe.load import shipped_recipes


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_is_a_table_of_all(tmp_path):
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["name", "task", "dataset", "architecture", "note"]
    assert [line.split()[0] for line in lines[1:]] == list(shipped_recipes())
    digits = next(line for line in lines if line.startswith("digits_cnn "))
    assert digits.split()[1:4] == ["image_classification", "digits", "cnn"]
    assert len(digits.split()) > 4


def test_list_as_json():
    rows = json.loads(run("list", "--json").stdout)["recipes"]
    assert {row["name"] for row in rows} == set(shipped_recipes())
    assert all({"name", "task", "dataset", "architecture", "note", "path"} == set(row) for row in rows)


def test_show_prints_the_file():
    assert run("show", "digits_cnn").stdout == shipped_recipes()["digits_cnn"].read_text()


def test_copy_never_overwrites(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = shipped_recipes()["digits_cnn"].read_bytes()
    assert run("copy", "digits_cnn").stdout == "digits_cnn.yaml\n"
    assert (tmp_path / "digits_cnn.yaml").read_bytes() == content
    (tmp_path / "digits_cnn.yaml").write_text("mine")
    result = run("copy", "digits_cnn")
    assert isinstance(result.exception, DlcliError) and "is not overwritten" in str(result.exception)
    assert (tmp_path / "digits_cnn.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits_cnn.yaml"]


def test_copy_to_a_folder_or_a_new_name(tmp_path):
    (tmp_path / "folder").mkdir()
    assert run("copy", "digits_cnn", tmp_path / "folder").exit_code == 0
    assert (tmp_path / "folder" / "digits_cnn.yaml").is_file()
    assert run("copy", "digits_cnn", tmp_path / "mine.yaml").exit_code == 0
    assert (tmp_path / "mine.yaml").stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("destination", ["no/such/folder/r.yaml", "x" * 300 + ".yaml"])
def test_copy_where_nothing_can_be_written(tmp_path, destination):
    result = run("copy", "digits_cnn", tmp_path / destination)
    assert isinstance(result.exception, DlcliError) and "cannot be written" in str(result.exception)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize("command", ["show", "copy"])
def test_a_name_that_is_none(command):
    result = run(command, "digits_cnm")
    assert isinstance(result.exception, DlcliError)
    assert str(result.exception).startswith(
        "digits_cnm: no shipped recipe has this name; did you mean digits_cnn"
    )
