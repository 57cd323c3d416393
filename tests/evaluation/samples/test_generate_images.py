"""`dlcli generate` of images: the files that were asked for, and none of anybody's overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.data.load import load_data
from dlcli.errors import DlcliError
from dlcli.evaluation.samples.generate_images import Wanted, generate_images, label_of, results_folder
from dlcli.evaluation.samples.sampling import draw_images, latents_of
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.runs import Run
from dlcli.training.build import build_models

GAN = {"name": "mlp_gan", "latent_dimension": 4, "hidden": [8], "discriminator_hidden": [4]}
UNET = {
    "name": "diffusion_unet",
    "filters": 8,
    "multipliers": [1],
    "num_blocks": 1,
    "attention_size": 0,
    "num_heads": 1,
}


def made(folder: Path, task: dict[str, Any], architecture: dict[str, Any]) -> Run:
    """A run of random weights."""
    folder.mkdir()
    value = {"task": task, "dataset": "digits", "architecture": architecture}
    (folder / "r.yaml").write_text(json.dumps(value))
    recipe = load_recipe(folder / "r.yaml")
    keras.utils.set_random_seed(0)
    build_models(recipe, load_data(recipe)).predictor.save(folder / "model.keras")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return Run(folder)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("runs") / "conditional", {"name": "gan", "conditional": True}, GAN)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("runs") / "plain", {"name": "gan"}, GAN)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(
        tmp_path_factory.mktemp("runs") / "denoiser", {"name": "diffusion", "sampling_steps": 2}, UNET
    )


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_hold_what_the_model_draws_and_are_named_by_their_class(
    conditional: Run, tmp_path: Path
) -> None:
    report = generate_images(conditional, Wanted(count=12, seed=3), tmp_path / "out")
    expected = draw_images(conditional.model, 12, 3)
    for number, (about, image) in enumerate(zip(report["images"], expected, strict=True)):
        assert about["class"] == str(number % 10)
        assert about["file"] == f"{number + 1:04d}_{number % 10}.png"
        assert np.abs(read(tmp_path / "out" / about["file"]).astype(int) - image[..., 0]).max() <= 1
    assert report["grid"] == "grid.png" and len(names(tmp_path / "out")) == 13
    assert read(tmp_path / "out" / "grid.png").shape[1] > 10 * 56  # a column for each class


def test_one_class_as_asked_and_no_grid(conditional: Run, tmp_path: Path) -> None:
    report = generate_images(
        conditional, Wanted(count=3, seed=0, class_name="7", grid=False), tmp_path / "out"
    )
    assert [each["class"] for each in report["images"]] == ["7"] * 3
    assert names(tmp_path / "out") == ["0001_7.png", "0002_7.png", "0003_7.png"]
    expected = draw_images(conditional.model, 3, 0, np.full(3, 7, np.int32))
    assert np.abs(read(tmp_path / "out" / "0002_7.png").astype(int) - expected[1, ..., 0]).max() <= 1


def test_a_walk_begins_at_the_first_latents_and_moves(plain: Run, tmp_path: Path) -> None:
    report = generate_images(plain, Wanted(count=16, seed=1, interpolate=True), tmp_path / "out")
    corners = draw_images(plain.model, 2, 1, latents=latents_of(plain.model, 2, 1))
    for place, corner in ((0, corners[0]), (8, corners[1])):
        drawn = read(tmp_path / "out" / report["images"][place]["file"])
        assert np.abs(drawn.astype(int) - corner[..., 0]).max() <= 1
    with Image.open(tmp_path / "out" / report["animation"]) as picture:
        assert picture.n_frames == 16
    with pytest.raises(DlcliError, match="2 images or more"):
        generate_images(plain, Wanted(count=1, interpolate=True), tmp_path / "other")


def test_a_denoiser_draws_and_walks_too(denoiser: Run, tmp_path: Path) -> None:
    generate_images(denoiser, Wanted(count=4, seed=1), tmp_path / "two")
    report = generate_images(denoiser, Wanted(count=4, seed=1, interpolate=True), tmp_path / "walk")
    first, begun = read(tmp_path / "two" / "0001.png"), read(tmp_path / "walk" / "0001.png")
    assert first.shape == (8, 8) and np.ptp(first) > 10
    assert np.abs(first.astype(int) - begun).max() <= 1
    assert report["animation"] == "interpolation.gif"


def test_nothing_is_overwritten(plain: Run, tmp_path: Path) -> None:
    folders = [generate_images(plain, Wanted(count=1))["folder"] for _ in range(2)]
    assert folders == [str(plain.path / "generated"), str(plain.path / "generated-2")]
    (tmp_path / "mine").write_text("")
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(DlcliError, match="nothing is overwritten"):
            generate_images(plain, Wanted(count=1), taken)
    assert names(tmp_path) == ["mine"]


def test_classes_are_found_by_name_then_by_index() -> None:
    assert label_of(("cat", "1", "dog"), "1") == 1
    assert label_of(("cat", "1", "dog"), "2") == 2
    with pytest.raises(DlcliError, match="did you mean dog"):
        label_of(("cat", "1", "dog"), "dgo")
    with pytest.raises(DlcliError, match="an index from 0"):
        label_of(("cat",), "1")
    with pytest.raises(DlcliError, match=r"task\.conditional"):
        label_of((), "cat")


def test_the_command_says_where_and_how_to_have_the_same_again(plain: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["generate", str(plain.path), "--count", "2", "--out", str(tmp_path / "a"), "--json"]
    )
    report = json.loads(done.stdout)
    assert [each["file"] for each in report["images"]] == ["0001.png", "0002.png"]
    again = [
        "generate",
        str(plain.path),
        "--count",
        "2",
        "--out",
        str(tmp_path / "b"),
        "--seed",
        str(report["seed"]),
    ]
    done = CliRunner().invoke(app, again)
    assert done.stdout.strip() == str(tmp_path / "b")
    assert (tmp_path / "a" / "0002.png").read_bytes() == (tmp_path / "b" / "0002.png").read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt", "ROMEO"], "--prompt: is for task language_modeling"),
        (["--top-k", "3"], "--top-k: is for task language_modeling"),
        (["--input", "photos"], "--input: is for task image_translation"),
        (["--reverse"], "--reverse: is for task image_translation"),
    ],
)
def test_flags_of_other_tasks_are_refused(plain: Run, flags: list[str], words: str) -> None:
    failed = CliRunner().invoke(app, ["generate", str(plain.path), *flags])
    assert isinstance(failed.exception, DlcliError) and words in str(failed.exception)


@pytest.mark.parametrize(
    ("task", "flags", "words"),
    [
        ("image_translation", [], "with --input"),
        ("image_translation", ["--input", "x", "--seed", "1"], "--seed 1: is for what is drawn at random"),
        ("image_translation", ["--input", "x", "--count", "3"], "--count: is for tasks gan"),
        ("language_modeling", ["--no-grid"], "--grid: is for images"),
        ("language_modeling", ["--interpolate"], "--interpolate: is for tasks gan"),
        ("image_classification", [], "writes no text and draws no images"),
    ],
)
def test_a_run_of_another_task_says_what_it_takes(plain, monkeypatch, task, flags, words) -> None:
    task_of = plain.recipe.task.model_copy(update={"name": task})
    changed = plain.recipe.model_copy(update={"task": task_of})
    monkeypatch.setattr(Run, "recipe", changed)
    failed = CliRunner().invoke(app, ["generate", str(plain.path), *flags])
    assert isinstance(failed.exception, DlcliError) and words in str(failed.exception)


@pytest.mark.parametrize("command", ["predict", "explain", "features", "finetune"])
def test_commands_for_models_that_predict_refuse_one_that_draws(
    plain, tmp_path, command, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {
        "predict": [str(plain.path), "x.png"],
        "explain": [str(plain.path), "x.png"],
        "features": [str(plain.path), "x.png", "--out", "f.npz"],
        "finetune": ["digits_cnn", "--from", str(plain.path)],
    }[command]
    failed = CliRunner().invoke(app, [command, *arguments])
    assert isinstance(failed.exception, DlcliError)
    assert "makes images and predicts nothing" in str(failed.exception)
    assert f"`dlcli {command}`" in str(failed.exception)


def test_a_folder_that_was_made_for_nothing_goes_again(plain: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out, stays in (("new", False), ("mine", True)):
        with pytest.raises(DlcliError, match="no image"), results_folder(plain, tmp_path / out):
            raise DlcliError("no image")
        assert (tmp_path / out).exists() == stays
    with pytest.raises(KeyboardInterrupt), results_folder(plain, tmp_path / "begun") as folder:
        (folder / "0001.png").touch()
        raise KeyboardInterrupt
    assert names(tmp_path / "begun") == ["0001.png"]


@pytest.mark.parametrize("given", ["-1", "10"])
def test_an_index_that_is_none_is_no_misspelt_class(given: str) -> None:
    with pytest.raises(DlcliError, match="no such class; allowed: 0, 1, 2"):
        label_of(tuple("0123456789"), given)
