"""Scoring a run: on any split, on other data of the same classes, and against minimums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.errors import CheckFailedError, DataError, DlcliError
from dlcli.evaluation.evaluate import check_minimums, evaluate_run, read_minimums
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run
from dlcli.training.train import train

QUICK = (
    "training={epochs: 2, batch_size: 16}",
    "optimizer={name: adam, learning_rate: 0.05}",
    "schedule=constant",
)

without_pictures = pytest.mark.usefixtures("no_pictures")


def write_pictures(root: Path, classes: tuple[str, ...], size: int, splits: tuple[str, ...]) -> Path:
    """Grey levels far apart: two epochs learn them."""
    for split in splits:
        for index, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                picture = Image.new(
                    "RGB", (size, size), (20 + 200 * index // (len(classes) - 1) + number,) * 3
                )
                picture.save(root / split / name / f"{number}.png")
    return root


def write_table(path: Path, rows: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    lines = ["size,colour,kind"]
    for size in random.uniform(0, 10, rows):
        lines.append(f"{size:.3f},{random.choice(['red', 'blue'])},{'large' if size > 5 else 'small'}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def image_run(folder: Path) -> Run:
    pictures = write_pictures(folder / "pictures", ("cat", "dog", "owl"), 8, ("train", "test"))
    recipe = load_recipe(
        "digits_cnn",
        [
            f"dataset={{name: image_folder, path: {pictures}, validation_split: 0.5}}",
            "architecture={name: mlp, hidden: [8]}", "regularization={}", *QUICK,
        ],
    )  # fmt: skip
    return train(recipe, "images", folder / "images")


@pytest.fixture(scope="module")
def table_run(folder: Path) -> Run:
    recipe = load_recipe(
        "iris_mlp",
        [f"dataset={{name: csv, path: {write_table(folder / 'train.csv', 60, 0)}, target: kind}}", *QUICK],
    )
    return train(recipe, "table", folder / "table")


def changed(run: Run, *changes: str) -> Recipe:
    return load_recipe(run.path / "recipe.yaml", changes)


@without_pictures
def test_evaluating_again_gives_metrics_json_to_the_last_digit(image_run: Run, table_run: Run) -> None:
    for run, split in ((image_run, "test"), (table_run, "validation")):
        known = json.loads((run.path / "metrics.json").read_text())
        del known["training"]
        assert known["split"] == split
        assert json.loads(json.dumps(evaluate_run(run, run.recipe, split))) == known


@without_pictures
def test_each_split_is_scored_on_its_own_examples(image_run: Run) -> None:
    for split, examples in (("train", 9), ("validation", 9), ("test", 18)):
        report = evaluate_run(image_run, image_run.recipe, split)
        assert (report["split"], report["examples"]) == (split, examples)
        assert [row["support"] for row in report["per_class"]] == [examples // 3] * 3


def test_each_split_has_pictures_of_its_own(image_run: Run) -> None:
    before = set(image_run.plots.iterdir())
    evaluate_run(image_run, image_run.recipe, "validation")
    drawn = {path.name for path in set(image_run.plots.iterdir()) - before}
    assert {
        "validation_confusion_matrix.png",
        "validation_per_class.png",
        "validation_calibration.png",
    } <= drawn
    assert all(name.startswith("validation_") for name in drawn)


@without_pictures
def test_a_split_that_is_not_there_is_refused(table_run: Run) -> None:
    with pytest.raises(
        DlcliError, match=r"--split test: this data set has no such split; allowed: train, validation$"
    ):
        evaluate_run(table_run, table_run.recipe, "test")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "cow", "owl"), "missing dog; unknown cow"),
        (("cat", "owl"), "missing dog"),
        (("cat", "dog", "emu", "owl"), "unknown emu"),
    ],
)
@without_pictures
def test_other_classes_are_refused_by_name(
    classes: tuple[str, ...], message: str, image_run: Run, tmp_path: Path
) -> None:
    other = write_pictures(tmp_path / "other", classes, 8, ("train", "test"))
    with pytest.raises(DataError, match=f"classes are not the model's: {message}$"):
        evaluate_run(image_run, changed(image_run, f"dataset.path={other}"), "test")


@pytest.mark.parametrize("size", [5, 30])
@without_pictures
def test_pictures_of_another_size_are_read_at_the_models(size: int, image_run: Run, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "other", ("cat", "dog", "owl"), size, ("train", "test"))
    report = evaluate_run(image_run, changed(image_run, f"dataset.path={other}"), "test")
    known = evaluate_run(image_run, image_run.recipe, "test")
    assert report["metrics"] == pytest.approx(known["metrics"], rel=1e-4), (
        "one grey level looks the same at any size"
    )


@without_pictures
def test_a_grey_model_reads_colour_pictures_grey(image_run: Run, tmp_path: Path) -> None:
    grey = tmp_path / "grey"
    shutil.copytree(Path(image_run.recipe.dataset.arguments["path"]), grey)
    for path in grey.rglob("*.png"):
        with Image.open(path) as picture:
            picture.convert("L").save(path)
    report = evaluate_run(image_run, changed(image_run, f"dataset.path={grey}"), "test")
    known = evaluate_run(image_run, image_run.recipe, "test")
    assert report["metrics"] == pytest.approx(known["metrics"], rel=1e-4), (
        "a colour model reads grey as colour"
    )


@without_pictures
def test_a_table_can_be_scored_on_a_file_that_came_later(table_run: Run, tmp_path: Path) -> None:
    later = write_table(tmp_path / "later.csv", 25, 1)
    recipe = changed(table_run, f"dataset.test_path={later}")
    report = evaluate_run(table_run, recipe, "test")
    assert report["examples"] == 25
    assert sum(row["support"] for row in report["per_class"]) == 25
    assert report["metrics"]["accuracy"] > 0.6
    # The order of the columns is the file's business, not the model's.
    rows = [line.split(",") for line in later.read_text().splitlines()]
    later.write_text("\n".join(",".join(reversed(row)) for row in rows) + "\n")
    assert {**evaluate_run(table_run, recipe, "test"), "pictures": report["pictures"]} == report


@without_pictures
def test_a_table_is_read_as_the_model_reads_it(table_run: Run, tmp_path: Path) -> None:
    """Constant columns, another meaning of the target: what a new file looks like decides nothing."""
    other = tmp_path / "other.csv"
    other.write_text("size,colour,kind,extra\n9,green,large,1\n8,green,large,2\n7.5,green,large,3\n")
    for change in ("path", "test_path"):
        report = evaluate_run(table_run, changed(table_run, f"dataset.{change}={other}"), "test")
        assert report["examples"] == 3
        assert [row["support"] for row in report["per_class"]] == [3, 0]
    with pytest.raises(DlcliError, match=r"--split validation: .*; allowed: test$"):
        evaluate_run(table_run, changed(table_run, f"dataset.path={other}"), "validation")


@without_pictures
def test_a_label_that_the_model_does_not_know_is_named(table_run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("size,colour,kind\n9,red,large\n1,red,smal\n")
    message = r"other\.csv:3 kind: smal is no class .*\(large, small\); did you mean 'small'\?$"
    with pytest.raises(DataError, match=message):
        evaluate_run(table_run, changed(table_run, f"dataset.path={other}"), "test")


@without_pictures
def test_another_folder_without_splits_is_a_test_split_as_a_whole(image_run: Run, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "other", ("cat", "dog", "owl"), 8, ("train",)) / "train"
    recipe = changed(image_run, f"dataset.path={other}")
    assert evaluate_run(image_run, recipe, "test")["examples"] == 18
    with pytest.raises(DlcliError, match=r"allowed: test$"):
        evaluate_run(image_run, recipe, "train")


def test_pictures_of_other_data_leave_the_runs_own_alone(
    table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_run(table_run, table_run.recipe, "validation")
    before = {path: path.read_bytes() for path in table_run.plots.glob("*.png")}
    later = write_table(tmp_path / "later.csv", 25, 1)
    report = evaluate_run(table_run, changed(table_run, f"dataset.path={later}"), "test")
    pictures = Path(report["pictures"])
    assert pictures.parent == table_run.plots
    assert pictures.name.startswith("evaluate-")
    assert (pictures / "test_confusion_matrix.png").is_file()
    assert str(pictures) in capsys.readouterr().err
    assert {path: path.read_bytes() for path in table_run.plots.glob("*.png")} == before


@without_pictures
def test_data_that_changed_are_warned_of_for_test_and_refused_where_they_would_leak(
    image_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(image_run.path, run.path)
    about = json.loads((run.path / "environment.json").read_text())
    (run.path / "environment.json").write_text(json.dumps({**about, "data_fingerprint": "other"}))
    assert evaluate_run(run, run.recipe, "test")["examples"] == 18
    assert "data are not as they were" in capsys.readouterr().err
    for split in ("validation", "train"):
        with pytest.raises(DlcliError, match=f"--split {split}: the data are not as they were"):
            evaluate_run(run, run.recipe, split)


@without_pictures
def test_the_validation_split_is_the_runs_whatever_the_change_says(image_run: Run) -> None:
    dataset = f"dataset={{name: image_folder, path: {image_run.recipe.dataset.arguments['path']}}}"
    assert evaluate_run(image_run, changed(image_run, dataset), "validation")["examples"] == 9


def test_minimums() -> None:
    report = {"metrics": {"accuracy": 0.9, "f1_macro": 0.5, "auc": None}}
    check_minimums(report, {})
    check_minimums(report, read_minimums(["accuracy=0.9", "f1_macro=.25"]))
    below = r"^accuracy 0\.9000 is below 0\.95; f1_macro 0\.5000 is below 0\.6; auc is undefined, so it is not at least 0$"
    with pytest.raises(CheckFailedError, match=below) as failed:
        check_minimums(report, read_minimums(["accuracy=0.95", "f1_macro=0.6", "auc=0"]))
    assert failed.value.exit_code == 3
    with pytest.raises(
        DlcliError, match=r"--min acc: no such metric; allowed: accuracy, f1_macro, auc$"
    ) as refused:
        check_minimums(report, read_minimums(["acc=0.5"]))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("text", ["accuracy", "accuracy=high", "accuracy=", "accuracy=nan", ""])
def test_a_minimum_that_is_no_number_is_the_users_mistake(text: str) -> None:
    with pytest.raises(DlcliError, match=f"--min {text}: give metric=number"):
        read_minimums([text])


@without_pictures
def test_other_pictures_are_seen_as_they_are(image_run: Run, class_folders: Callable[..., Path]) -> None:
    """Noise of another brightness in each class: the score is of these pictures, not of the run's own."""
    other = class_folders(("cat", "dog", "owl"), size=8, per_class=3)
    for path in (other / "test" / "cat").iterdir():
        shutil.copy(next((other / "test" / "owl").iterdir()), path)
    report = evaluate_run(image_run, changed(image_run, f"dataset.path={other}"), "test")
    assert report["examples"] == 9
    matrix = np.array(report["confusion_matrix"])
    np.testing.assert_array_equal(matrix[0] > 0, matrix[2] > 0)
