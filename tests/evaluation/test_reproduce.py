"""A run trained again from its own recipe: the same bits, or what differs and what has changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dlcli.cli.main import app
from dlcli.errors import CheckFailedError, DlcliError, TrainingInterruptedError
from dlcli.evaluation import reproduce, reproduction_tables
from dlcli.evaluation.reproduce import check_reproduction, compare_exactly, compare_weights, reproduce_run
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run, write_json
from dlcli.training.train import finetune, train

Copy = Callable[[str], Run]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture
def copy(iris_run: Run, tmp_path: Path) -> Copy:
    def made(name: str) -> Run:
        shutil.copytree(iris_run.path, tmp_path / name)
        return Run(tmp_path / name)

    return made


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


@pytest.mark.usefixtures("no_pictures")
def test_a_training_of_the_same_recipe_gives_the_same_bits(iris_run: Run) -> None:
    result = call(iris_run.path, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    again = Run(iris_run.path.with_name("iris-reproduced"))
    assert report["reproduction"] == str(again.path)
    assert (report["exact"], report["expected_exact"]) == (True, True)
    assert report["changed"] == {}
    assert set(report["history"]) >= {"loss", "val_loss", "accuracy", "learning_rate"}
    assert "seconds" not in report["history"]
    assert set(report["metrics"]) == set(iris_run.metrics["metrics"])
    for one, two in zip(iris_run.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (again.path / "recipe.yaml").read_bytes() == (iris_run.path / "recipe.yaml").read_bytes()


def forget_models(run: Run) -> None:
    """Lets a run take a model that it was not scored with."""
    metrics = run.metrics
    del metrics["training"]["sha256"]
    write_json(run.path / "metrics.json", metrics)


def moved_weight(run: Run) -> None:
    """The last bit of one number."""
    model = run.model
    weight = model.trainable_weights[0]
    values = np.asarray(weight.value).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))
    weight.assign(values)
    model.save(run.model_path)
    forget_models(run)


def moved_history(run: Run) -> None:
    path = run.path / "history.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    rows[2][rows[0].index("val_loss")] = "3.5"
    path.write_text("\n".join(",".join(row) for row in rows))


def shorter_history(run: Run) -> None:
    path = run.path / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def moved_metric(run: Run) -> None:
    write_json(
        run.path / "metrics.json", {**run.metrics, "metrics": {**run.metrics["metrics"], "accuracy": 2}}
    )


@pytest.mark.parametrize(
    ("change", "part", "name", "where"),
    [
        (moved_weight, "weights", "model", "kernel"),
        (moved_history, "history", "val_loss", "epoch 2"),
        (shorter_history, "history", "loss", "epoch 2"),
        (moved_metric, "metrics", "accuracy", None),
    ],
)
def test_whatever_differs_is_found(
    change: Callable[[Run], None], part: str, name: str, where: str | None, iris_run: Run, copy: Copy
) -> None:
    again = copy("again")
    assert compare_exactly(iris_run, again)["exact"]
    change(again)
    report = compare_exactly(iris_run, Run(again.path))
    wrong = [(each, key) for each in ("weights", "history", "metrics") for key, found in report[each].items()
             if not found["exact"]]  # fmt: skip
    assert (part, name) in wrong
    assert {each for each, _ in wrong} == {part}
    assert where is None or where in report[part][name]["where"]
    if change is not shorter_history:
        assert report[part][name]["largest_difference"] > 0
    with pytest.raises(CheckFailedError, match="is not bit-exact, though recipe, data, versions and devices"):
        check_reproduction(report, None)


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_the_tolerance_is_of_metrics(tolerance: float, iris_run: Run, copy: Copy) -> None:
    again = copy("again")
    moved_weight(again)
    check_reproduction(compare_exactly(iris_run, Run(again.path)), tolerance)
    moved_metric(again)
    report = compare_exactly(iris_run, Run(again.path))
    with pytest.raises(CheckFailedError, match=rf"--tolerance {tolerance:g}: accuracy [0-9.]+ and 2"):
        check_reproduction(report, tolerance)
    check_reproduction(report, 2.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_fingerprint": "x"}, "data_fingerprint"),
        ({"devices": ["CPU:/physical_device:CPU:0", "GPU:0"]}, "devices"),
        ({"distribution": {"strategy": "multi_worker", "workers": 2}}, "distribution.workers"),
        ({"resumed": [{"step": 3}]}, "resumed"),
        (None, "environment.json was not kept"),
    ],
)
def test_where_something_has_changed_other_bits_are_no_failure(
    change: dict[str, Any] | None, said: str, iris_run: Run, copy: Copy, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    then, again = copy("then"), copy("again")
    if change is None:
        (then.path / "environment.json").unlink()
    else:
        write_json(then.path / "environment.json", {**then.environment, **change})
    moved_weight(again)
    report = compare_exactly(then, Run(again.path))
    assert (report["exact"], report["expected_exact"]) == (False, False)
    assert said in json.dumps([report["changed"], report["doubts"]])
    check_reproduction(report, None)
    with (tmp_path / "shown.txt").open("w") as file:
        monkeypatch.setattr(reproduction_tables, "out", Console(width=100, file=file))
        monkeypatch.setattr("dlcli.evaluation.comparison_tables.out", Console(width=100, file=file))
        reproduction_tables.print_reproduction(report, as_json=False)
    shown = (tmp_path / "shown.txt").read_text()
    assert said in shown
    assert "kernel" in shown


def fail(run: Run, action: str) -> None:
    write_json(run.path / "failures.json", [{"what": "loss not finite", "action": action}])


@pytest.mark.parametrize(
    ("sha256", "key", "expected"),
    [
        ((None, None), "dataset.path", True),
        (("a", "a"), "finetune.source", True),
        (("a", "b"), "finetune.source", False),
        ((None, None), "finetune.source", False),  # two presets, of which nothing is known but the names
    ],
)
def test_where_data_lie_does_not_matter_but_what_they_are(
    sha256: tuple[str | None, str | None], key: str, expected: bool, copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    then, again = copy("then"), copy("again")
    for run, known in zip((then, again), sha256, strict=True):
        write_json(run.path / "environment.json", {**run.environment, "source_sha256": known})
    monkeypatch.setattr(reproduce, "recipe_differences", lambda runs: {key: ["here", "there"]})
    moved_weight(again)
    report = compare_exactly(then, Run(again.path))
    assert report["expected_exact"] is expected
    if expected:
        with pytest.raises(CheckFailedError, match="is not bit-exact"):
            check_reproduction(report, None)


@pytest.mark.parametrize(
    ("minutes", "action", "expected"),
    [(5, "rollback", False), ("null", "rollback", True), (5, "stop", True)],
)
def test_a_rollback_to_where_the_clock_said_may_differ(
    minutes: int | str, action: str, expected: bool, copy: Copy
) -> None:
    runs = [copy(name) for name in ("then", "again")]
    for run in runs:
        text = (run.path / "recipe.yaml").read_text()
        changed = re.sub(r"every_minutes: \S+", f"every_minutes: {minutes}", text)
        assert "every_minutes" in changed
        (run.path / "recipe.yaml").write_text(changed)
        fail(run, action)
    report = compare_exactly(*runs)
    assert report["expected_exact"] is expected
    assert ("training.checkpoint.every_minutes" in json.dumps(report["doubts"])) is not expected


def test_a_tolerance_needs_metrics(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [copy(name) for name in ("then", "again")]
    for run in runs:
        write_json(run.path / "metrics.json", {**run.metrics, "split": None, "metrics": {}})
    report = compare_exactly(*runs)
    check_reproduction(report, None)
    with pytest.raises(DlcliError, match=r"--tolerance 0\.1: .*then has no metrics"):
        check_reproduction(report, 0.1)
    monkeypatch.setattr(reproduce, "train", lambda *arguments: pytest.fail("hours for nothing"))
    result = call(runs[0].path, "--tolerance", "0.1")
    assert isinstance(result.exception, DlcliError)
    assert "has no metrics" in str(result.exception)


def test_other_vocabularies_and_shapes_are_named() -> None:
    def model(width: int, depth: int = 1) -> keras.Model:
        return keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(width) for _ in range(depth))])

    assert "the shape of" in compare_weights(model(2), model(4))["where"]
    assert compare_weights(model(3), model(3, 2))["where"] == "2 weights, and 4"
    one = model(2)
    two = keras.models.clone_model(one)
    two.set_weights([weight + np.nan for weight in one.get_weights()])
    assert compare_weights(one, two)["exact"] is False


def test_an_interrupted_reproduction_goes_on(
    iris_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **named: Any) -> Run:
        shutil.copytree(iris_run.path, tmp_path / "out")
        raise TrainingInterruptedError("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(reproduce, "train", interrupted)
        with pytest.raises(
            TrainingInterruptedError, match=r"Then compare: dlcli reproduce .* --resume .*out"
        ):
            reproduce_run(iris_run, tmp_path / "out")
    result = call(iris_run.path, "--resume", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "bit-exact" in result.stdout


def test_what_cannot_be_reproduced(iris_run: Run, copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(DlcliError, match=r"--set training\.seed=1: .*only where its data lie"):
        reproduce_run(iris_run, tmp_path / "out", ["training.seed=1"])
    with pytest.raises(DlcliError, match=r"a run is never overwritten"):
        reproduce_run(iris_run, copy("full").path)
    half = copy("half")
    (half.path / "metrics.json").unlink()
    with pytest.raises(DlcliError, match=r"training has not ended.*dlcli train --resume"):
        reproduce_run(half)
    other = copy("other")
    text = (other.path / "recipe.yaml").read_text()
    (other.path / "recipe.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    result = call(iris_run.path, "--resume", other.path)
    assert isinstance(result.exception, DlcliError)
    assert "their recipes differ in training.seed" in str(result.exception)


@pytest.mark.slow
def test_fine_tuning_is_reproduced_from_its_source(iris_run: Run, copy: Copy, folder: Path) -> None:
    source = copy("source")
    quick = iris_run.path / "recipe.yaml"
    run = finetune(load_recipe(quick), "tuned", str(source.path), folder / "tuned")
    again = reproduce_run(run)
    report = compare_exactly(run, again)
    assert (report["exact"], report["expected_exact"]) == (True, True)
    moved_weight(source)
    report = compare_exactly(run, reproduce_run(run))
    assert report["expected_exact"] is False
    assert "source_sha256" in report["changed"]


@pytest.mark.slow
def test_a_vocabulary_that_is_learnt_otherwise_each_time_is_taken_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), 6)) for _ in range(300)]
    rows = [f"{' '.join(random.choice(words, 8))},{label}" for label in ("good", "bad") * 60]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
    recipe = load_recipe(
        "rt_textcnn",
        [
            f"dataset.path={folder / 'texts.csv'}",
            "dataset.test_path=null",
            "dataset.tokenizer={name: unigram, vocabulary_size: 100}",
            "architecture={name: fasttext, embedding_width: 4}",
            "training={epochs: 1, batch_size: 32}",
        ],
    )
    run = train(recipe, "texts", folder / "texts")
    monkeypatch.setenv("DLCLI_CACHE", str(folder / "another cache"))

    def learn(*arguments: Any) -> None:
        raise AssertionError("a vocabulary was learnt, which may be another one")

    monkeypatch.setattr("dlcli.data.text.vocabulary.learn_vocabulary", learn)
    report = compare_exactly(run, reproduce_run(run))
    assert (report["exact"], report["expected_exact"]) == (True, True)


@pytest.mark.slow
def test_both_players_of_a_gan_are_reproduced(folder: Path) -> None:
    quick = ["training={epochs: 1, batch_size: 64, steps_per_epoch: 2}"]
    run = train(load_recipe("digits_dcgan", quick), "gan", folder / "gan")
    report = compare_exactly(run, reproduce_run(run))
    assert report["exact"]
    assert list(report["weights"]) == ["model", "discriminator"]
