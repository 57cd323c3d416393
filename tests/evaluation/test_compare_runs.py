"""Runs side by side: what differs, a test on the same examples, and a reason where there is none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.errors import DlcliError
from dlcli.evaluation import comparison_tables
from dlcli.evaluation.compare_runs import compare_runs, paired_test, short_names
from dlcli.evaluation.example_scores import class_scores
from dlcli.evaluation.paired_tests import mcnemar
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.runs import Run, write_json

MakeRun = Callable[..., Run]


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlcli.evaluation.compare_runs.plot_comparison", lambda *_: None)


@pytest.fixture
def make(iris_run: Run, tmp_path: Path) -> MakeRun:
    """Copies the trained run, with another recipe and other weights."""

    def copy(name: str, *changes: str, noise: float = 0.0) -> Run:
        shutil.copytree(iris_run.path, tmp_path / name)
        run = Run(tmp_path / name)
        if changes:
            recipe = load_recipe(iris_run.path / "recipe.yaml", changes)
            (run.path / "recipe.yaml").write_text(dump_recipe(recipe))
        if noise:
            random = np.random.default_rng(0)
            model = run.model
            for weight in model.trainable_weights:
                weight.assign(weight + random.normal(0, noise, weight.shape))
            model.save(run.model_path)
            metrics = run.metrics
            del metrics["training"]["sha256"]  # of the model that stood here
            write_json(run.path / "metrics.json", metrics)
        return Run(tmp_path / name)

    return copy


def test_runs_side_by_side(make: MakeRun, tmp_path: Path) -> None:
    one, two = make("one"), make("two", "optimizer.learning_rate=0.5", "training.seed=7", noise=2.0)
    history = (two.path / "history.csv").read_text().splitlines()
    (two.path / "history.csv").write_text("\n".join([history[0], history[2], history[1]]))
    environment = two.environment
    environment["versions"]["keras"] = "3.14.0"
    write_json(two.path / "environment.json", environment)
    comparison = compare_runs([one, two], tmp_path / "curves.png")
    was = one.recipe.optimizer.arguments["learning_rate"]
    assert comparison.recipes == {"optimizer.learning_rate": [was, 0.5], "training.seed": [0, 7]}
    assert comparison.environments == {"versions.keras": [one.environment["versions"]["keras"], "3.14.0"]}
    assert comparison.metrics[0]["metrics"] == one.metrics["metrics"]
    assert comparison.metrics[0]["intervals"] == one.metrics["intervals"]
    assert comparison.split == "test"

    (test,) = comparison.tests
    rows = [np.asarray(run.model.predict(_test_inputs(one)[0], verbose=0)) for run in (one, two)]
    right = [outputs.argmax(axis=1) == _test_inputs(one)[1] for outputs in rows]
    alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert sum(alone) > 3
    assert [test["only_first_right"], test["only_second_right"]] == alone
    assert test["examples"] == len(right[0])
    assert test["p"] == test["p_holm"] == mcnemar(*alone)
    accuracy = test["differences"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    assert accuracy["interval"][0] < accuracy["difference"] < accuracy["interval"][1]
    assert test["differences"]["log_loss"]["difference"] < 0

    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):  # one for each run
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 8).sum() > 50


def _test_inputs(run: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from dlcli.data.load import load_splits

    test = load_splits(run.recipe).test
    assert test is not None
    return test.inputs, test.targets  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("data", r"their data differ \(fingerprints 00000000 and "),
        ("environment", "environment.json is missing"),
        ("model", "holds no model.keras"),
        ("task", "task of tabular_classification, the other of text_classification"),
        ("drawn", "images are drawn, so there are no answers to pair"),
        ("split", "drawn by dataset.validation_split and training.seed, which differ"),
    ],
)
@pytest.mark.usefixtures("no_curves")
def test_why_there_is_no_test(change: str, reason: str, make: MakeRun, tmp_path: Path) -> None:
    one = make("one", *(["training.seed=3"] if change == "split" else []))
    two = make("two")
    if change == "data":
        write_json(one.path / "environment.json", {**one.environment, "data_fingerprint": "0" * 64})
    elif change == "environment":
        (one.path / "environment.json").unlink()
    elif change == "model":
        one.model_path.unlink()
    elif change == "task":
        (two.path / "recipe.yaml").write_text(dump_recipe(load_recipe("imdb_fasttext")))
    elif change == "drawn":
        (two.path / "recipe.yaml").write_text(dump_recipe(load_recipe("digits_dcgan")))
    comparison = compare_runs(
        [one, two], tmp_path / "curves.png", "validation" if change == "split" else None
    )
    (test,) = comparison.tests
    assert set(test) == {"first", "second", "reason"}
    assert re.search(reason, test["reason"])
    assert comparison.metrics[1]["metrics"] == two.metrics["metrics"], "all else is compared"


@pytest.mark.usefixtures("no_curves")
def test_several_pairs_are_corrected_together_and_shown(
    make: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make("one"), make("two", noise=2.0), make("th[r]ee", "training.seed=1")]
    write_json(runs[2].path / "environment.json", {**runs[2].environment, "data_fingerprint": "x"})
    monkeypatch.chdir(tmp_path)
    shown = Console(width=120, file=(tmp_path / "shown.txt").open("w"))
    monkeypatch.setattr(comparison_tables, "out", shown)
    comparison = compare_runs(runs, Path("comparison.png"))
    assert [("reason" in test) for test in comparison.tests] == [False, True, True]
    comparison_tables.print_comparison(comparison, as_json=False)
    shown.file.close()
    text = (tmp_path / "shown.txt").read_text()
    assert "one - two" in text
    assert "no paired test of one and th[r]ee: their data differ" in text
    assert "training.seed" in text
    value = runs[0].metrics["metrics"]["accuracy"]
    assert f"{value:.4f}" in text


def test_three_runs_without_a_picture_of_curves(make: MakeRun, tmp_path: Path) -> None:
    runs = [make("one"), make("two", noise=2.0), make("three", noise=1.0)]
    for run in runs:
        (run.path / "history.csv").unlink()
    comparison = compare_runs(runs, tmp_path / "curves.png")
    tests = comparison.tests
    assert len(tests) == 3
    smallest = min(tests, key=lambda test: test["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, 3 * smallest["p"]))
    assert all(test["p_holm"] >= test["p"] for test in tests)
    assert comparison.picture is None
    assert not (tmp_path / "curves.png").exists()


def test_the_command_prints_one_json_object(make: MakeRun, tmp_path: Path) -> None:
    names = [str(make(name).path) for name in ("one", "two")]
    picture = tmp_path / "a folder" / "curves.svg"
    result = CliRunner().invoke(app, ["compare", *names, "--json", "--out", str(picture)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["runs"] == names
    assert record["recipes"] == record["environments"] == {}
    assert record["tests"][0]["p"] == 1, "equal models"
    assert record["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["one"], {}, "give two runs or more"),
        (["one", "one"], {}, "named twice"),
        (["one", "two"], {"split": "dev"}, "allowed: train, validation, test"),
    ],
)
def test_what_cannot_be_compared(
    names: list[str], options: dict[str, str], message: str, make: MakeRun, tmp_path: Path
) -> None:
    runs = {name: make(name) for name in dict.fromkeys(names)}
    with pytest.raises(DlcliError, match=message):
        compare_runs([runs[name] for name in names], tmp_path / "curves.png", **options)


def test_a_damaged_history_is_named(make: MakeRun, tmp_path: Path) -> None:
    one, two = make("one"), make("two")
    header = (two.path / "history.csv").read_text().splitlines()[0]
    (two.path / "history.csv").write_text(f"{header}\n1,x\n")
    with pytest.raises(DlcliError, match=r"two/history\.csv: is no history of a training"):
        compare_runs([one, two], tmp_path / "curves.png")


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_was_interrupted_has_no_scores(make: MakeRun, tmp_path: Path) -> None:
    one, two = make("one"), make("two")
    (one.path / "metrics.json").unlink()
    comparison = compare_runs([one, two], tmp_path / "curves.png")
    assert comparison.metrics[0] == {"split": None, "metrics": None, "intervals": None}
    comparison_tables.print_comparison(comparison, as_json=False)


def test_examples_with_other_answers_are_not_paired() -> None:
    outputs, targets = np.eye(3), np.arange(3)
    scores = class_scores(outputs, targets, ("a", "b", "c"))
    test = paired_test(scores, scores)
    assert (test["p"], test["test"]) == (1, "McNemar")


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    assert short_names([Path("runs/a"), Path("runs/b")]) == ("a", "b")
    assert short_names([Path("x/a"), Path("y/a")]) == ("x/a", "y/a")
