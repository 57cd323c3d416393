from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dlcli.cli.data import app
from dlcli.cli.main import main
from dlcli.errors import CheckFailedError


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A recipe for two classes of two pictures."""
    for level, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(2):
            picture = Image.new("RGB", (4, 4), (level * 90, index * 90, 0))
            picture.save(tmp_path / "photos" / name / f"{index}.png")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: image_classification\n"
        f"dataset: {{name: image_folder, path: {tmp_path / 'photos'}}}\n"
        "architecture: cnn\n"
    )
    return path


def run(*arguments: str):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_check_prints_one_json_object_on_stdout(recipe):
    result = run("check", recipe, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["splits"] == {"train": 4}
    assert report["classes"] == {"train": {"cat": 2, "dog": 2}}


def test_check_prints_tables(recipe, capsys):
    app(["check", str(recipe)], standalone_mode=False)
    printed = capsys.readouterr().out
    for text in ("cat", "dog", "4 x 4", "unreadable files: 0", "duplicates within a split: none"):
        assert text in printed


def test_check_exits_with_3_when_training_would_refuse(recipe):
    broken = recipe.parent / "photos" / "cat" / "broken.png"
    broken.touch()
    result = run("check", recipe, "--json")
    assert isinstance(result.exception, CheckFailedError)
    assert result.exception.exit_code == 3
    assert json.loads(result.stdout)["unreadable"] == {str(broken): "is empty (0 bytes)"}
    skip = ("--set", "dataset.on_bad_file=skip")
    assert run("check", recipe, *skip, "--json").exit_code == 0
    for path in (recipe.parent / "photos" / "cat").iterdir():
        path.write_bytes(b"")
    assert isinstance(run("check", recipe, *skip).exception, CheckFailedError)


def test_preview_hands_recipe_to_the_picture(recipe, tmp_path, monkeypatch):
    preview = pytest.importorskip("dlcli.data.preview")
    received = {}

    def write_preview(loaded, out, count):
        received.update(name=loaded.dataset.name, out=out, count=count)
        return out

    monkeypatch.setattr(preview, "write_preview", write_preview)
    result = run("preview", recipe, "--out", tmp_path / "x.png", "--count", "7")
    assert result.exit_code == 0, result.output
    assert received == {"name": "image_folder", "out": tmp_path / "x.png", "count": 7}
    assert str(tmp_path / "x.png") in result.stdout


@pytest.mark.parametrize(
    ("command", "out", "expected"),
    [
        ("preview", "x.png", lambda out: {"picture": str(out)}),
        ("samples", "x", lambda out: {"samples": [str(out / f"{name}.png") for name in ("cat_0", "dog_3")]}),
    ],
)
def test_what_is_written_is_named_in_one_json_object(recipe, tmp_path, command, out, expected):
    whole = ("--set", "dataset.validation_split=0")
    result = run(command, recipe, *whole, "--out", tmp_path / out, "--count", "2", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == expected(tmp_path / out)


def test_preview_refuses_a_strange_suffix_before_it_reads_the_recipe(tmp_path):
    result = run("preview", tmp_path / "none.yaml", "--out", tmp_path / "x.gif")
    assert "x.gif: expected a file name that ends with .png" in str(result.exception)


@pytest.fixture
def odd_names(recipe) -> Path:
    """The two classes are named as no folder could be."""
    names = {"cat": "[/red]", "dog": "y" * 300}
    rows = [f"{name}/{index}.png,{names[name]}" for name in names for index in range(2)]
    labels = recipe.parent / "labels.csv"
    labels.write_text("path,label\n" + "\n".join(rows) + "\n")
    recipe.write_text(recipe.read_text().replace("image_folder,", f"image_folder, labels: {labels},"))
    return recipe


def test_check_shows_class_names_as_they_are_and_whole(odd_names, capsys):
    app(["check", str(odd_names)], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "[/red]" in printed
    assert printed.count("y") >= 300


def test_samples_of_any_class_get_a_file_name(odd_names, tmp_path):
    result = run("samples", odd_names, "--out", tmp_path / "samples", "--count", "4")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["__red__0.png", "__red__1.png", f"{'y' * 50}_2.png", f"{'y' * 50}_3.png"]


def test_a_folder_in_the_place_of_a_file_is_named_without_a_traceback(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    words = ["dlcli", "data", "samples", str(recipe), "--out", str(tmp_path / "file")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert str(tmp_path / "file") in printed and "Traceback" not in printed
