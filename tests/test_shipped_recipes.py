"""Every shipped recipe is a test: it loads, builds, trains one tiny step, evaluates."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlcli.recipe.load import dump_recipe, load_recipe, shipped_recipes
from dlcli.tasks import GENERATIVE_TASKS
from dlcli.training.train import finetune, train

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SLIM = {
    # Large networks keep their depth and lose their width, or the step would take a minute.
    "cifar10_wide_resnet": ["architecture.width=1", "architecture.depth=10"],
    "cifar10_vgg16": ["architecture.depth=11"],
    "cifar10_fast": ["architecture.filters=[8, 8, 8]"],
    # Building EfficientNet takes longer than all the other recipes; tests/architectures tests it by name.
    "folder_efficientnet": [
        "architecture.model=mobilenet",
        "architecture.weights=none",
        "dataset.image_size=32",
    ],
    "shakespeare_gpt_gpu": ["architecture.num_layers=2", "architecture.width=48", "dataset.max_length=32"],
    "shakespeare_gpt": ["architecture.num_layers=2", "architecture.width=32", "dataset.max_length=32"],
    "multi30k_transformer": [
        "architecture.num_layers=1",
        "architecture.width=48",
        "task.beam_size=2",
        "dataset.max_length=16",
    ],
    "tiny_bert": ["architecture.num_layers=1", "architecture.width=32", "dataset.max_length=16"],
    "cifar10_resnet_gan": ["architecture.filters=4", "architecture.discriminator_filters=[4, 4]"],
    "cifar10_resnet_gan_gpu": [
        "architecture.filters=4",
        "architecture.discriminator_filters=[4, 4]",
        "task.critic_steps=1",  # five are five times the tracing
        "metrics.features=null",
    ],
    "mnist_dcgan": ["architecture.filters=4"],
    "mnist_wgan_gp": ["architecture.filters=4"],
    "mnist_vae": ["architecture.filters=[4, 4]"],
    "mnist_diffusion": ["architecture.filters=8", "architecture.multipliers=[1]", "task.sampling_steps=1"],
    "horse2zebra_cycle_gan": [
        "architecture.filters=4",
        "architecture.blocks=1",
        "architecture.discriminator_filters=4",
        "architecture.discriminator_layers=1",
        "dataset.image_size=32",
    ],
    "camvid_pix2pix": [
        "architecture.filters=4",
        "architecture.discriminator_filters=4",
        "architecture.discriminator_layers=1",
        "dataset.image_size=32",
    ],
}
SCORES = {
    "regression": "mae",
    "translation": "bleu",
    "gan": "diversity",
    "autoencoding": "bits_per_dim",
    "diffusion": "denoising_loss",
    "mnist_vae": "bits_per_dim",
    "mnist_diffusion": "denoising_loss",
    "horse2zebra_cycle_gan": "cycle_loss_a",
    "camvid_pix2pix": "reconstruction_loss",
}
"""Task or recipe -> a metric that its report must hold; accuracy for the others."""
BUNDLED = ("digits", "iris", "diabetes")


def data_changes(name: str, class_folders: Callable[..., Path], tmp_path: Path) -> list[str]:
    dataset, task = load_recipe(name).dataset.name, load_recipe(name).task.name
    if dataset in BUNDLED:
        return ["training.batch_size=256", *_few_samples(task)]
    if dataset == "csv":
        return [f"dataset.{key}={_adult(tmp_path, seed)}" for seed, key in enumerate(("path", "test_path"))]
    if dataset in ("image_pairs", "unpaired_images"):
        folders = class_folders(("A", "B"), size=40, per_class=3)
        for path in folders.glob("*/*"):
            path.rename(folders / f"{path.parent.name}{path.name}")
        return [f"dataset.path={folders}", "training.steps_per_epoch=1"]
    if dataset in ("imdb", "text_csv", "text_file", "pairs"):
        return _text_changes(dataset, tmp_path)
    size, channels = (28, 1) if dataset == "mnist" else (32, 3)
    classes = CIFAR if dataset == "cifar10" else tuple("0123456789")
    folder = class_folders(classes, size=size, channels=channels, per_class=2)
    # A step of a GAN reads one batch for each update of its discriminator.
    batch = ["training.batch_size=2", "training.steps_per_epoch=1"] if task in GENERATIVE_TASKS else []
    split = "dataset.validation_split=0.5"
    return [f"dataset.path={folder}", split, "training.batch_size=16", *batch, *_few_samples(task)]


def _few_samples(task: str) -> list[str]:
    return ["metrics.samples=100"] if task in ("autoencoding", "diffusion", "gan") else []


def _text_changes(dataset: str, tmp_path: Path) -> list[str]:
    """Few short texts in the form that the source reads, and fewer steps."""
    random = np.random.default_rng(0)
    common = ["dataset.validation_split=0.3", "training.batch_size=8"]

    def texts(mood: str, count: int) -> list[str]:
        return [" ".join([*random.choice(list("abcdefgh"), 6), mood, str(n)]) for n in range(count)]

    if dataset == "imdb":
        for split in ("train", "test"):
            for mood in ("pos", "neg"):
                folder = tmp_path / "reviews" / split / mood
                folder.mkdir(parents=True)
                for number, text in enumerate(texts(f"{mood} {split}", 12)):
                    (folder / f"{number}.txt").write_text(text)
        return [*common, f"dataset.path={tmp_path / 'reviews'}"]
    if dataset == "text_file":
        path = tmp_path / "input.txt"
        path.write_text("\n".join(texts("to be", 400)))
        return [f"dataset.path={path}", "training.steps_per_epoch=2"]
    path = tmp_path / "texts.tsv"
    if dataset == "text_csv":
        rows = [f"{text}\t{mood}" for mood in ("good", "bad") for text in texts(mood, 20)]
        path.write_text("\n".join(["text\tlabel", *rows]))
        return [
            *common,
            f"dataset.path={path}",
            "dataset.text=text",
            "dataset.target=label",
            "dataset.test_path=null",
        ]
    rows = [f"{text}\t{text.upper()}" for text in texts("und", 30)]
    path.write_text("\n".join(["de\ten", *rows]))
    paths = [f"dataset.{name}=null" for name in ("validation_path", "test_path")]
    return [*common, f"dataset.path={path}", *paths, "dataset.tokenizer.vocabulary_size=300"]


def needs_a_source(name: str) -> bool:
    """Whether even `train` downloads a pretrained model."""
    return load_recipe(name).architecture.name in ("pretrained", "frozen_features")


def _adult(tmp_path: Path, seed: int) -> Path:
    path = tmp_path / f"adult{seed}.csv"
    random = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "workclass", "hours_per_week", "income"])
        for age in random.integers(18, 80, 60):
            writer.writerow(
                [age, random.choice(["Private", "State-gov", "?"]), 40, ">50K" if age > 45 else "<=50K"]
            )
    return path


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", [name for name in shipped_recipes() if not needs_a_source(name)])
def test_recipe(name: str, class_folders: Callable[..., Path], tmp_path: Path) -> None:
    recipe = load_recipe(
        name,
        [
            *data_changes(name, class_folders, tmp_path),
            *SLIM.get(name, []),
            "training.epochs=1",
        ],
    )
    run = train(recipe, name, tmp_path / "run")
    metrics = run.metrics["metrics"]
    assert metrics[SCORES.get(name) or SCORES.get(recipe.task.name, "accuracy")] >= 0
    assert run.recipe == load_recipe(run.path / "recipe.yaml") == recipe.model_copy(update={"finetune": None})
    assert dump_recipe(run.recipe) == (run.path / "recipe.yaml").read_text()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "name", [name for name in shipped_recipes() if load_recipe(name).finetune is not None]
)
def test_fine_tuning(name: str, class_folders: Callable[..., Path], tmp_path: Path) -> None:
    """In the place of a download stands a run on the same made data, and each stage has one epoch."""
    assert load_recipe(name).task.name == "text_classification"
    changes = data_changes(name, class_folders, tmp_path)
    source = train(load_recipe("rt_textcnn", [*changes, "training.epochs=1"]), "source", tmp_path / "source")
    recipe = load_recipe(name, changes)
    stages = tuple(stage.model_copy(update={"epochs": 1}) for stage in recipe.finetune.stages)
    recipe = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"stages": stages})})
    run = finetune(recipe, name, str(source.path), tmp_path / "run")
    assert run.metrics["metrics"]["accuracy"] >= 0
    assert len((run.path / "history.csv").read_text().splitlines()) == 1 + len(stages)
    assert dump_recipe(run.recipe) == (run.path / "recipe.yaml").read_text()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_key_of_a_recipe_is_explained(name: str) -> None:
    first, *lines = shipped_recipes()[name].read_text().splitlines()
    assert re.match(r"# dlcli (train|finetune) ", first), "the first line gives the command"
    assert re.match(r"# ((test|validation) .*\d|untested in full: )", lines[0]), (
        "the second gives the score, or says why there is none"
    )
    for line in lines:
        if re.match(r" *(- )?[a-z_0-9]+: +[^ #]", line):
            assert " # " in line, f"no comment: {line}"
