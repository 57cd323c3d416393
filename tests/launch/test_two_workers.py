"""Processes that train together through `dlcli launch`, with the numbers of one device; killed, they go on alike."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from team import Team, Watch, states_of
from two_workers import (
    DIGITS,
    STEPS,
    check_alike,
    check_equal,
    check_same,
    launch,
    run,
    written,
)

from dlcli.recipe.load import load_recipe

pytestmark = pytest.mark.usefixtures("no_gpus_no_cluster")


def test_two_workers_learn_what_one_device_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    from dlcli.training.train import train

    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"))
    for name, value in watch.variables().items():
        monkeypatch.setenv(name, value)
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "two", "--json")
    assert code == 0, said
    report = json.loads(capfd.readouterr().out)  # one object, of one worker
    assert report["run"] == str(tmp_path / "two")
    lines = said.splitlines()
    assert any(line.startswith("[0] epoch 2/2") for line in lines) and not any(
        "[1]" in line for line in lines
    )
    check_alike(tmp_path / "watch")
    assert len(states_of(tmp_path / "watch")) == 2 + 2 * STEPS // 5

    train(load_recipe(recipe), "one", tmp_path / "one")
    check_equal(tmp_path / "one", tmp_path / "two")
    files = [
        {str(path.relative_to(run)) for path in run.rglob("*") if "events" not in path.name}
        for run in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1], "one run folder, as one process leaves it"


TEXTS = "dataset: {name: text_folder, path: texts, tokenizer: word, max_length: 12}"


CASES: dict[str, tuple[str, float | None]] = {
    "everything": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1, augmentation: [{name: mix_up, alpha: 0.4}, {name: random_crop, padding: 1}]}
architecture: {name: cnn, filters: [4], dense: [8], normalization: none}
optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9}
schedule: {name: cosine_decay, warmup_epochs: 1}
regularization: {l2: 1e-3, label_smoothing: 0.1, class_weights: balanced, gradient_clipping: {norm: 0.5}, ema: 0.9}
training: {epochs: 3, batch_size: 101, gradient_accumulation: 3, checkpoint: {every_steps: 5}}
""",
        1e-6,
    ),
    "normalized_parts": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: muon, learning_rate: 1e-2}
training: {epochs: 2, batch_size: 76, gradient_accumulation: 3, checkpoint: {every_steps: 5}}
""",
        None,
    ),
    "empty_part": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: sgd, learning_rate: 0.05}
training: {epochs: 3, batch_size: 76, checkpoint: {every_steps: 7}}
""",  # 1,293 = 17 * 76 + 1
        1e-5,
    ),
    "local_normalization": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: resnet, depth: 8, normalization: batch_local}
optimizer: {name: sgd, learning_rate: 0.05}
training: {epochs: 2, batch_size: 101, checkpoint: {every_steps: 5}}
""",
        None,
    ),
    "dropout": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: adamw, learning_rate: 2e-3}
schedule: reduce_on_plateau
regularization: {dropout: 0.3, early_stopping: {patience: 1}, ema: 0.9}
training: {epochs: 3, batch_size: 101, checkpoint: {every_steps: 4}}
""",
        None,
    ),
    "table": (
        """
task: tabular_classification
dataset: {name: breast_cancer}
architecture: {name: mlp, hidden: [16]}
optimizer: {name: adamw, learning_rate: 5e-3}
regularization: {early_stopping: {patience: 1, min_delta: 0.05}}
training: {epochs: 8, batch_size: 32, steps_per_epoch: 10, steps_per_execution: 2, checkpoint: {every_steps: 3}}
""",
        1e-6,
    ),
    "lstm": (
        f"""
task: text_classification
{TEXTS[:-1]}, augmentation: [{{name: random_deletion, rate: 0.2}}]}}
architecture: {{name: rnn, cell: lstm, units: [8], embedding_width: 8}}
optimizer: {{name: lion, learning_rate: 1e-3}}
training: {{epochs: 3, batch_size: 7, checkpoint: {{every_steps: 3}}}}
""",
        1e-6,
    ),
    "unigram": (
        f"""
task: text_classification
{TEXTS.replace("word", "{name: unigram, vocabulary_size: 40}")}
architecture: {{name: transformer, num_layers: 1, num_heads: 2, width: 8, dropout: 0.0}}
optimizer: {{name: sgd, learning_rate: 0.05}}
training: {{epochs: 2, batch_size: 9, checkpoint: {{every_steps: 3}}}}
""",
        1e-6,
    ),
    "language_model": (
        """
task: {name: language_modeling, stride: 4}
dataset: {name: text_file, path: texts.txt, tokenizer: character, max_length: 16, validation_split: 0.2}
architecture: {name: gpt, num_layers: 1, num_heads: 2, width: 16, dropout: 0.0}
optimizer: {name: adafactor, learning_rate: 1e-2}
training: {epochs: 2, batch_size: 15, checkpoint: {every_steps: 5}}
""",
        1e-5,
    ),
    "dcgan": (
        """
task: {name: gan, conditional: true}
dataset: digits
architecture: {name: dcgan, latent_dimension: 8, filters: 8}
optimizer: {name: sgd, learning_rate: 1e-2}
regularization: {ema: 0.9}
training: {epochs: 2, batch_size: 128, checkpoint: {every_steps: 3}}
""",
        1e-5,
    ),
    "critic": (
        """
task: {name: gan, objective: wasserstein_gp, critic_steps: 2}
dataset: digits
architecture: {name: dcgan, latent_dimension: 8, filters: 8}
training: {epochs: 1, batch_size: 64, checkpoint: {every_steps: 3}}
""",
        None,
    ),
    "diffusion": (
        """
task: {name: diffusion, sampling_steps: 4}
dataset: digits
architecture: {name: diffusion_unet, filters: 8, multipliers: [1, 2], num_blocks: 1, attention_size: 4}
optimizer: {name: sgd, learning_rate: 1e-2}
regularization: {ema: 0.9}
training: {epochs: 1, batch_size: 64, checkpoint: {every_steps: 6}}
""",
        1e-5,
    ),
}
"""Name -> recipe, and how far two workers may be from one device; None where each draws or normalizes for itself."""


KILLED = {
    "everything": 17,
    "normalized_parts": 21,
    "dropout": 20,
    "local_normalization": 16,
    "lstm": 9,
    "unigram": 7,
    "critic": 8,
    "dcgan": 13,
}
"""Case -> the step after which a worker is killed."""


def case(folder: Path, name: str) -> Path:
    text = CASES[name][0].replace("path: texts.txt", f"path: {folder / 'texts.txt'}")
    return written(folder, text.replace("path: texts,", f"path: {folder / 'texts'},"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_recipe_is_trained_as_by_one_device(name: str, team: Team, folder: Path) -> None:
    recipe, tolerance = case(folder, name), CASES[name][1]
    run(team, folder, f"{name}-two", "train", recipe, watch=Watch(str(folder / f"{name}-watch")))
    check_alike(folder / f"{name}-watch")
    if tolerance is not None:
        run(team, folder, f"{name}-one", "train", recipe, codes=[0])
        check_equal(folder / f"{name}-one", folder / f"{name}-two", tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_training_of_two_goes_on_as_if_it_had_not_been(name: str, team: Team, folder: Path) -> None:
    recipe, whole, cut = case(folder, name), f"{name}-two", f"{name}-cut"
    if not (folder / whole).is_dir():
        run(team, folder, whole, "train", recipe)
    worker = KILLED[name] % 2
    watch = Watch(str(folder / f"{name}-cut-watch"), kill=(worker, KILLED[name], signal.SIGKILL))
    ended = team.run("train", recipe, "--out", folder / cut, "--continue", watch=watch)
    assert ended[worker].code == -9, ended[worker].log
    assert ended[1 - worker].code != 0, "it may have noticed before it was killed too"
    run(team, folder, cut, "train", recipe, watch=watch)
    check_alike(folder / f"{name}-cut-watch")
    check_same(folder / cut, folder / whole)


@pytest.fixture(scope="module")
def source(team: Team, folder: Path) -> Path:
    run(team, folder, "source", "train", written(folder, DIGITS, "source"), codes=[0])
    return folder / "source"


@pytest.mark.slow
def test_fine_tuning_and_frozen_features(team: Team, source: Path, tmp_path: Path) -> None:
    stages = "[{freeze: all, epochs: 1, learning_rate: 1e-2}, {freeze: none, epochs: 1, learning_rate: 1e-3}]"
    tuned = written(tmp_path, f"{DIGITS}finetune: {{source: {source}, stages: {stages}}}\n", "tuned")
    for name, codes in (("two", [0, 0]), ("one", [0])):
        watch = Watch(str(tmp_path / f"watch-{name}"))
        ended = team.run("finetune", tuned, "--out", tmp_path / name, workers=len(codes), watch=watch)
        assert [each.code for each in ended] == codes, ended
    check_alike(tmp_path / "watch-two")
    check_equal(tmp_path / "one", tmp_path / "two")

    frozen = f"""
task: image_classification
dataset: {{name: digits, validation_split: 0.1}}
architecture: {{name: frozen_features, source: {source}, dense: [8]}}
training: {{epochs: 2, batch_size: 101}}
"""
    recipe = written(tmp_path, frozen, "frozen")
    for name, codes in (("frozen-two", [0, 0]), ("frozen-one", [0])):
        run(team, tmp_path, name, "train", recipe, codes=codes, watch=Watch(str(tmp_path / f"watch-{name}")))
    check_alike(tmp_path / "watch-frozen-two")
    check_equal(tmp_path / "frozen-one", tmp_path / "frozen-two")


@pytest.mark.slow
def test_a_worker_with_other_data_is_refused(team: Team, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "texts", tmp_path / "texts")
    next((tmp_path / "texts" / "train" / "bad").iterdir()).unlink()
    each = [["--set", f"dataset.path={root / 'texts'}"] for root in (folder, tmp_path)]
    ended = team.run("train", case(folder, "lstm"), "--out", tmp_path / "run", "--continue", each=each)
    assert ended[1].code == 2, ended[1].log
    assert "the workers read different data" in ended[1].log
    assert ended[0].code in (2, 4), ended[0].log
