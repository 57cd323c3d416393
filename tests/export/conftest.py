"""Runs of every task with random weights, and their artefacts without the child process that exports run in."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.data.load import load_data
from dlcli.export import sample, verify
from dlcli.export.export import Expected, Request, expect
from dlcli.export.format import Format, Options
from dlcli.export.manifest import manifest, write_manifest
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run
from dlcli.training.build import build_models

WORDS = ["a", "film", "of", "some", "wit", "and", "charm", "that", "no", "one", "will", "forget"]
RANDOM = np.random.default_rng(0)


def sentence(low=3, high=12):
    return " ".join(RANDOM.choice(WORDS, RANDOM.integers(low, high)))


def rows(path, header, lines):
    path.write_text(
        "\n".join(["\t".join(header), *("\t".join(line) for line in lines)]) + "\n", encoding="utf-8"
    )
    return {"path": str(path)}


def pictures(folder):
    for index, name in enumerate(("cat", "dog", "owl")):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = RANDOM.integers(60 * index, 60 * index + 90, (6, 7, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return {"name": "image_folder", "path": str(folder), "normalization": "standardize"}


def table(path):
    lines = [
        [f"{RANDOM.normal(5, 2):.3f}", str(RANDOM.choice(["red", "blue", "?"])), str(RANDOM.choice(["?", "1.5"])),
         str(RANDOM.choice(["yes", "no"])), f"{RANDOM.normal(200, 50):.1f}"]
        for _ in range(60)
    ]  # fmt: skip
    return {"name": "csv", **rows(path, ["size (cm)", "colour", "age", "sold", "price"], lines)}


def documents(path):
    lines = [[sentence(), str(RANDOM.choice(["neg", "pos"]))] for _ in range(40)]
    return {"name": "text_csv", "text": "review", "target": "label", **rows(path, ["review", "label"], lines)}


def corpus(path):
    path.write_text("\n".join(sentence(20, 30) for _ in range(60)), encoding="utf-8")
    return {"name": "text_file", "path": str(path)}


def questions(path):
    made = []
    for _ in range(12):
        context = sentence(8, 12)
        made.append({"context": context, "qas": [{
            "id": str(len(made)), "question": sentence(3, 5),
            "answers": [{"text": context.split()[2], "answer_start": len(" ".join(context.split()[:2])) + 1}],
        }]})  # fmt: skip
    path.write_text(json.dumps({"data": [{"paragraphs": made}]}), encoding="utf-8")
    return {"name": "squad", "path": str(path)}


def tagged(path):
    lines = [
        f"{word} {'B-PER' if word == 'wit' else 'O'}" for _ in range(20) for word in [*sentence().split(), ""]
    ]
    path.write_text("\n".join(line if line[0] != " " else "" for line in lines) + "\n", encoding="utf-8")
    return {"name": "conll", "path": str(path)}


def pairs(path):
    return {
        "name": "pairs",
        **rows(path, ["source", "target"], [[sentence(), sentence()] for _ in range(20)]),
    }


TRANSFORMER = {"name": "transformer", "num_layers": 1, "num_heads": 2, "width": 8}
CASES = {
    "image": ("image_classification", pictures, {"name": "mlp", "hidden": [4]}, {}),
    "table": ("tabular_classification", table, {"name": "mlp", "hidden": [6]}, {"target": "sold"}),
    "value": ("regression", table, {"name": "mlp", "hidden": [6]}, {"target": "price"}),
    "text": ("text_classification", documents, TRANSFORMER, {}),
    "first": ({"name": "text_classification", "pooling": "first"}, documents, TRANSFORMER, {}),
    "language": ("language_modeling", corpus, {"name": "gpt", "num_layers": 1, "num_heads": 2, "width": 8}, {}),
    "masked": ("masked_language_modeling", corpus, {"name": "bert", "num_layers": 1, "num_heads": 2, "width": 8}, {}),
    "question": ({"name": "question_answering", "max_question_length": 4}, questions, TRANSFORMER, {}),
    "tags": ("token_classification", tagged, TRANSFORMER, {}),
    "translation": (
        "translation", pairs,
        {"name": "seq2seq_transformer", "num_layers": 1, "num_heads": 2, "width": 8, "feedforward_width": 8}, {},
    ),
}  # fmt: skip


def two_kinds(folder):
    for side, low in (("trainA", 0), ("trainB", 150)):
        (folder / side).mkdir(parents=True)
        for number in range(5):
            pixels = RANDOM.integers(low, low + 100, (32, 32, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / side / f"{number}.png")
    return {"name": "unpaired_images", "path": str(folder), "image_size": 32}


def digits(_):
    return {"name": "digits"}


UNET = {
    "name": "diffusion_unet",
    "filters": 4,
    "multipliers": [1],
    "num_blocks": 1,
    "attention_size": 0,
    "num_heads": 1,
}
DRAWING = {
    "gan": (
        {"name": "gan", "conditional": True}, digits,
        {"name": "dcgan", "latent_dimension": 6, "filters": 4}, {},
    ),
    "vae": ("autoencoding", digits, {"name": "vae", "latent_dimension": 3, "filters": [4], "dense": 8}, {}),
    "diffusion": (
        {"name": "diffusion", "conditional": True, "guidance": 2.0, "sampling_steps": 3}, digits, UNET, {},
    ),
    "cycle": (
        {"name": "image_translation", "buffer": 0}, two_kinds,
        {"name": "cycle_gan", "filters": 4, "blocks": 1, "discriminator_filters": 4, "discriminator_layers": 1}, {},
    ),
}  # fmt: skip
"""Models that make images."""


def made_run(name: str, folder: Path) -> Run:
    """A run of random weights."""
    task, data, architecture, more = {**CASES, **DRAWING}[name]
    of_texts = name not in ("image", "table", "value", *DRAWING)
    text = {"tokenizer": "word", "max_length": 12} if of_texts else {}
    dataset = {**data(folder / f"{name}.txt"), **more, **text, "validation_split": 0.5}
    recipe: Recipe = load_recipe_of(
        {"task": task, "dataset": dataset, "architecture": architecture}, folder / "r.yaml"
    )
    keras.utils.set_random_seed(1)
    predictor = build_models(recipe, load_data(recipe)).predictor
    predictor.set_weights(
        [weight + RANDOM.normal(0, 0.3, weight.shape) for weight in predictor.get_weights()]
    )
    run = Run(folder / name)
    run.path.mkdir()
    predictor.save(run.model_path)
    (run.path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return run


def load_recipe_of(value, path):
    path.write_text(json.dumps(value), encoding="utf-8")  # JSON is YAML
    return load_recipe(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Name -> the run, and what Keras says of its examples; each is made when it is first asked for."""
    folder, known = tmp_path_factory.mktemp("formats"), {}

    def make(name: str) -> tuple[Run, Expected]:
        if name not in known:
            run = made_run(name, folder)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(verify, "latencies", lambda run, inputs: {"one": 1.0, "batch": 1.0})
                known[name] = run, expect(run, run.recipe, Request(("keras",)))
        return known[name]

    return make


def _artefact(chosen: Format, expected: Expected, folder: Path, options: Options | None = None) -> np.ndarray:
    """Everything but the child process: the folder as it is left, and the artefact's outputs."""
    folder.mkdir(parents=True)
    item, samples, options = expected.item, expected.samples, options or Options()
    written = chosen.write(item, folder, options)
    described = manifest(expected.common, chosen, item, options, written)
    write_manifest(folder, described)
    described = json.loads((folder / "manifest.json").read_text())
    (folder / "example.py").write_text(chosen.example(described), encoding="utf-8")
    if item.tokenizer is not None:
        (folder / "tokenizer.json").write_text(item.tokenizer, encoding="utf-8")
    index = sample.chosen(item, samples, expected.outputs)
    sample.write_sample(item, samples, index, expected.common["task"], folder / expected.common["sample"])
    return chosen.load(folder, described)(samples.inputs if chosen.strings else samples.numeric)


@pytest.fixture
def artefact():
    """`artefact(format, expected, folder, options=None)` -> its outputs for the samples."""
    return _artefact


@pytest.fixture
def tasks():
    """Names of all runs that `made` can make."""
    return tuple(CASES)
