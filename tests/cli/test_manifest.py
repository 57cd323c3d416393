"""`dlcli manifest`: what the command makes of its words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.recipe.load import load_recipe

KUBERNETES = ("kubernetes", "digits_cnn", "--image", "dlcli:0.1", "--claim", "runs")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["manifest", *words])


def test_slurm_prints_a_file_that_bash_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "--nodes",
        "4",
        "--gpus",
        "8",
        "--partition",
        "gpu",
        "--account",
        "me",
        "--sbatch=--constraint=a100",
    )
    done = run("slurm", "digits_cnn", *words, "--set", "training.epochs=3")
    assert done.exit_code == 0, done.output
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
    for line in ("--nodes=4", "--gpus-per-node=8", "--partition=gpu", "--account=me", "--constraint=a100"):
        assert f"\n#SBATCH {line}\n" in done.stdout
    assert f"\ncd -- {tmp_path} || exit 2\n" in done.stdout
    assert 'worker=(dlcli train digits_cnn --set training.epochs=3 --out "$run" --continue)' in done.stdout


def test_kubernetes_carries_the_changed_recipe(tmp_path: Path) -> None:
    out = tmp_path / "new" / "job.yaml"
    done = run(
        *KUBERNETES, "--workers", "2", "--set", "training.epochs=3", "--env", "A=b=c", "--out", str(out)
    )
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    config, service, job = yaml.safe_load_all(out.read_text())
    path = tmp_path / "recipe.yaml"
    path.write_text(config["data"]["recipe.yaml"])
    assert load_recipe(path) == load_recipe("digits_cnn", ["training.epochs=3"])
    assert service["metadata"]["name"] == job["metadata"]["name"] == "digits-cnn"
    assert job["spec"]["template"]["spec"]["containers"][0]["env"][0] == {"name": "A", "value": "b=c"}


def test_json_holds_the_manifest() -> None:
    found = json.loads(run(*KUBERNETES, "--json").stdout)
    assert (found["kind"], found["path"]) == ("kubernetes", None)
    assert [each["kind"] for each in yaml.safe_load_all(found["manifest"])] == ["ConfigMap", "Job"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("slurm", "digits_cnn", "--set", "training.epoch=1"), "training.epoch"),
        (
            ("slurm", "digits_cnn", "--nodes", "2", "--set", "distribution.strategy=mirrored"),
            "trains in one process",
        ),
        (("slurm", "digits_cnn", "--set", "distribution.strategy=multi_worker"), "is for several processes"),
        ((*KUBERNETES, "-n", "2", "--set", "distribution.logical_devices=2"), "distribution.logical_devices"),
        ((*KUBERNETES, "--env", "A"), "--env A: expected NAME=VALUE"),
        ((*KUBERNETES, "--env", "A=1", "--env", "A=2"), "A is given twice"),
        ((*KUBERNETES, "--volume", "data"), "--volume data: expected CLAIM:PATH"),
        ((*KUBERNETES, "--out", "."), "--out .: is a folder"),
        (KUBERNETES[:-2], "--claim NAME"),
    ],
)
def test_mistakes_are_said_in_words(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert said in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2


@pytest.mark.parametrize("change", ["training.on_nan=rollback", "training.on_out_of_memory=halve_batch"])
def test_what_several_workers_cannot_do_is_said_before_they_are_queued(change: str) -> None:
    done = run("slurm", "digits_cnn", "--nodes", "2", "--set", change)
    assert change.partition("=")[0] in str(done.exception)
    assert run("slurm", "digits_cnn", "--set", change).exit_code == 0
