"""Rows 35, 36: a training that is killed at any moment and resumed equals one that was not, bit by bit.

What is compared: every weight, optimizer variable and seed generator of the last checkpoint, model.keras and its
neighbours, history.csv, metrics.json and the names of all files. Kills come at a change of a file in the run folder,
drawn at random, so that many hit a checkpoint or a model while it is written; and after a random time, inside steps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_harness import Trainings, state_of

IMAGES = """
task: image_classification
dataset: {name: digits, augmentation: [{name: random_translation, height_factor: 0.2, width_factor: 0.2}]}
architecture: {name: cnn, filters: [8], dense: [16]}
schedule: reduce_on_plateau
regularization: {dropout: 0.2, ema: 0.9, early_stopping: {patience: 2}}
training: {epochs: 3, batch_size: 128, checkpoint: {every_steps: 4}}
"""
GAN = """
task: {name: gan, conditional: true}
dataset: digits
architecture: {name: mlp_gan, latent_dimension: 8, dropout: 0.2}
optimizer: {generator: {name: adam, learning_rate: 1e-3}, discriminator: {name: lion, learning_rate: 1e-4}}
schedule: {generator: cosine_decay, discriminator: constant}
regularization: {ema: 0.9}
training: {epochs: 2, batch_size: 128, checkpoint: {every_steps: 3}}
"""
RECIPES = {
    "images": IMAGES,
    "gan": GAN,
    "mixed_images": """
task: image_classification
dataset: {name: digits, augmentation: [{name: random_crop, padding: 1}, {name: mix_up, alpha: 0.4}]}
architecture: {name: resnet, depth: 8}
optimizer: {name: muon, learning_rate: 1e-2}
schedule: {name: cosine_decay, warmup_epochs: 1}
regularization: {l2: 1e-4, label_smoothing: 0.1, class_weights: balanced, gradient_clipping: {norm: 1.0}}
training: {epochs: 3, batch_size: 100, checkpoint: {every_steps: 5, keep: 3}, gradient_accumulation: 2}
""",
    "table": """
task: tabular_classification
dataset: {name: breast_cancer}
architecture: {name: mlp, hidden: [16], dropout: 0.3}
optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9, nesterov: true}
training: {epochs: 6, batch_size: 32, steps_per_execution: 2, steps_per_epoch: 10, checkpoint: {every_steps: 3}}
""",
    "text": """
task: text_classification
dataset: {name: text_folder, path: texts, tokenizer: word, max_length: 12, augmentation: [{name: random_deletion, rate: 0.2}]}
architecture: {name: rnn, cell: lstm, units: [8], embedding_width: 8, dropout: 0.4}
training: {epochs: 3, batch_size: 8, checkpoint: {every_steps: 3}}
""",
    "language_model": """
task: {name: language_modeling, stride: 4}
dataset: {name: text_file, path: texts.txt, tokenizer: character, max_length: 16, validation_split: 0.2}
architecture: {name: gpt, num_layers: 1, num_heads: 2, width: 16, dropout: 0.1}
optimizer: {name: adafactor, learning_rate: 1e-2}
training: {epochs: 2, batch_size: 16, checkpoint: {every_steps: 5}}
""",
    "critic": """
task: {name: gan, objective: wasserstein_gp, critic_steps: 2}
dataset: digits
architecture: {name: dcgan, latent_dimension: 8, filters: 8}
training: {epochs: 2, batch_size: 64, checkpoint: {every_steps: 3}}
""",
    "vae": """
task: autoencoding
dataset: digits
architecture: {name: vae, latent_dimension: 6, filters: [8, 16], dense: 32}
training: {epochs: 3, batch_size: 64, checkpoint: {every_steps: 7}}
""",
    "diffusion": """
task: {name: diffusion, sampling_steps: 4}
dataset: digits
architecture: {name: diffusion_unet, filters: 8, multipliers: [1, 2], num_blocks: 1, attention_size: 4}
regularization: {ema: 0.9}
training: {epochs: 2, batch_size: 64, checkpoint: {every_steps: 6}}
""",
}
DEFAULT = {"images": 2, "gan": 1}
"""Recipe -> kills in the default suite."""
SLOW = {
    "images": 16, "gan": 16, "table": 16, "text": 14, "language_model": 14, "mixed_images": 10, "critic": 8, "vae": 6,
    "diffusion": 4,
}  # fmt: skip
"""104 in all; those of slow trainings are fewer."""


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the recipes, and the texts that some of them read."""
    made = tmp_path_factory.mktemp("kills")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for mood, word in (("bad", "awful"), ("good", "lovely")):
            (made / "texts" / split / mood).mkdir(parents=True)
            for number in range(24):
                words = [word, *draw.choice(["the", "film", "was", "so", "and"], draw.integers(1, 9))]
                (made / "texts" / split / mood / f"{number}.txt").write_text(" ".join(words))
    (made / "texts.txt").write_text(" ".join(draw.choice(["to", "be", "or", "not", "that"], 400)))
    for name, text in RECIPES.items():
        recipe = text.replace("path: texts,", f"path: {made / 'texts'},").replace(
            "path: texts.txt", f"path: {made / 'texts.txt'}"
        )
        (made / f"{name}.yaml").write_text(recipe)
    return made


def check(trainings: Trainings, folder: Path, name: str, kills: int, seed: int = 0) -> None:
    """Trains `name` without a stop, then with so many kills, and compares."""
    draw = random.Random(f"{name} {seed}")
    whole, cut = folder / f"{name}-whole", folder / f"{name}-cut-{seed}"
    ended = trainings.run("train", folder / f"{name}.yaml", "--out", whole, folder=whole)
    assert ended.code == 0, ended.log
    expected, killed, finished = state_of(whole), 0, 0
    begin = command = ("train", folder / f"{name}.yaml", "--out", cut)
    for _ in range(4 * kills):
        if killed == kills:
            break
        if draw.random() < 0.75:
            moment = {"at_change": draw.randint(1, max(2, ended.changes // 2))}
        else:
            moment = {"after_seconds": draw.uniform(0.3, 1) * ended.seconds}
        attempt = trainings.run(*command, folder=cut, **moment)
        assert attempt.code in (0, -9), attempt.log
        killed += attempt.code == -9
        if attempt.code == 0:
            compare(cut, expected, killed)
            finished += 1
            cut = folder / f"{name}-cut-{seed}-{finished}"
            begin = command = ("train", folder / f"{name}.yaml", "--out", cut)
        else:  # killed before there was a run, its user starts again
            command = ("train", "--resume", cut) if (cut / "recipe.yaml").is_file() else begin
    assert killed == kills
    last = trainings.run(*command)
    assert last.code == 0, last.log
    compare(cut, expected, killed)


def compare(run: Path, expected: dict[str, Any], killed: int) -> None:
    found = state_of(run)
    for part, value in expected.items():
        assert found[part] == value, f"{part} of {run} differs after {killed} kills"


@pytest.mark.parametrize("name", DEFAULT)
def test_row36_a_killed_training_ends_like_an_uninterrupted_one(
    name: str, trainings: Trainings, folder: Path
) -> None:
    check(trainings, folder, name, DEFAULT[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_row36_a_hundred_kills(name: str, trainings: Trainings, folder: Path) -> None:
    check(trainings, folder, name, SLOW[name], seed=1)
