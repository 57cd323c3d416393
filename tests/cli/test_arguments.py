"""What the commands make of their words before any work begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.cli.train import run_name
from dlcli.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("recipe", "name"),
    [("digits_cnn", "digits_cnn"), ("recipes/my.yaml", "my"), ("runs/digits-2/recipe.yaml", "digits-2")],
)
def test_a_run_is_named_after_its_recipe(recipe: str, name: str) -> None:
    assert run_name(recipe) == name


@pytest.mark.parametrize("change", ["training.seed=3", "dataset.validation_split=0.5", "architecture=cnn"])
def test_evaluate_changes_nothing_that_the_model_was_trained_with(change: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", "nowhere", "--set", change])
    assert f"--set {change}: " in str(result.exception)
    assert "only dataset.* and, of one that draws images, metrics.* can be changed" in str(result.exception)


def test_plan_refuses_a_strange_suffix_before_any_work() -> None:
    result = CliRunner().invoke(app, ["plan", "nowhere", "--out", "plan.txt"])
    assert "--out plan.txt: expected a file name that ends with .png" in str(result.exception)


def test_predict_reads_tables_as_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv = "dataset={name: csv, path: x.csv, target: kind, delimiter: ';', encoding: latin-1}"
    run = SimpleNamespace(recipe=load_recipe("iris_mlp", [csv]), model=None)
    monkeypatch.setattr("dlcli.runs.load_run", lambda path: run)
    received = {}
    monkeypatch.setattr(
        "dlcli.evaluation.predict.predict_inputs",
        lambda model, inputs, **options: received.update(options) or [],
    )
    out = tmp_path / "x.csv"
    result = CliRunner().invoke(app, ["predict", "run", "rows.csv", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert received == {"top": 3, "delimiter": ";", "encoding": "latin-1"}
    assert result.stdout.split() == f'{{ "predictions": 0, "failed": 0, "file": "{out}" }}'.split()
