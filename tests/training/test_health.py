"""Failures of a training that are seen: a discriminator that has won, samples that are all alike, NaN."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples
from dlcli.errors import TrainingFailedError
from dlcli.training import health
from dlcli.training.health import Health, warnings_of

REAL = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)


class Drawing:
    """Stands for a task; its samples differ by `spread` grey levels."""

    def __init__(self, objective: str = "standard", spread: int = 250, name: str = "gan") -> None:
        self.objective, self.spread, self.name = objective, spread, name

    def draw(self, model: Any, count: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, self.spread, (count, 4, 4, 1)).astype(np.uint8)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(health, "warn", messages.append)
    return messages


@pytest.fixture
def model() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def callback(
    task: Drawing,
    model: keras.Model,
    folder: Path,
    *,
    steps: int = 1000,
    epochs: int = 50,
    smoothing: float = 0.0,
) -> Health:
    found = Health(task, model, ArrayExamples(REAL, np.zeros(40, np.int32)), folder, seed=1)
    found.set_model(SimpleNamespace(label_smoothing=smoothing))
    found.set_params({"steps": steps, "epochs": epochs})
    return found


def run(found: Health, epoch: int, **logs: float) -> dict[str, float]:
    found.on_epoch_begin(epoch)
    found.on_epoch_end(epoch, logs)
    return logs


@pytest.mark.parametrize(
    ("objective", "smoothing", "well", "won"),
    [
        ("standard", 0.0, 0.1, 0.02),
        ("standard", 0.1, 0.36, 0.33),  # the entropy of 0.1 is 0.325: less cannot be reached
        ("least_squares", 0.0, 0.02, 0.003),
        ("hinge", 0.0, 0.1, 0.03),
    ],
)
def test_a_discriminator_that_has_won_is_told_of_once(
    objective: str,
    smoothing: float,
    well: float,
    won: float,
    said: list[str],
    model: keras.Model,
    tmp_path: Path,
) -> None:
    found = callback(Drawing(objective), model, tmp_path, smoothing=smoothing)
    run(found, 0, discriminator_loss=well)
    assert said == [] == warnings_of(tmp_path)
    run(found, 1, discriminator_loss=won)
    run(found, 2, discriminator_loss=won)
    assert len(said) == 1
    assert said[0].startswith("epoch 2: the discriminator's loss is near zero")
    (warning,) = warnings_of(tmp_path)
    assert (warning["name"], warning["epoch"]) == ("discriminator_won", 2)
    assert warning["message"] in said[0]


def test_a_translation_is_told_of_keys_that_it_has_and_its_halved_loss_counts_as_half(
    said: list[str], model: keras.Model, tmp_path: Path
) -> None:
    found = callback(Drawing("standard", name="image_translation"), model, tmp_path)
    run(found, 0, discriminator_loss=0.02)  # 2 % of log 2 is 0.014
    assert said == []
    run(found, 1, discriminator_loss=0.01)
    assert len(said) == 1 and "task.r1" not in said[0]


def test_the_loss_of_a_critic_may_be_anything(said: list[str], model: keras.Model, tmp_path: Path) -> None:
    run(callback(Drawing("wasserstein_gp"), model, tmp_path), 5, discriminator_loss=-100.0)
    assert said == []


def test_samples_that_are_all_alike_are_told_of(said: list[str], model: keras.Model, tmp_path: Path) -> None:
    task = Drawing(spread=20)
    found = callback(task, model, tmp_path)
    logs = run(found, 4)
    assert logs["diversity"] == pytest.approx(20 / 256, rel=0.1)
    assert said == []  # one epoch may be an accident
    task.spread = 256
    assert run(found, 5)["diversity"] == pytest.approx(1, rel=0.1)
    task.spread = 20
    run(found, 6)
    assert said == []
    run(found, 7)
    run(found, 8)
    assert len(said) == 1 and "differ by 8%" in said[0] and said[0].startswith("epoch 8")
    assert [each["name"] for each in warnings_of(tmp_path)] == ["mode_collapse"]


def test_the_first_steps_do_not_count_but_a_short_training_is_told_at_its_end(
    said: list[str], model: keras.Model, tmp_path: Path
) -> None:
    found = callback(Drawing(spread=20), model, tmp_path, steps=100, epochs=4)
    for epoch in range(3):
        run(found, epoch)
    assert said == []
    run(found, 3)
    assert len(said) == 1


def test_only_a_gan_draws_for_its_diversity(said: list[str], model: keras.Model, tmp_path: Path) -> None:
    assert run(callback(Drawing(spread=1, name="diffusion"), model, tmp_path), 9) == {}


def test_a_resumed_training_remembers_what_was_said(
    said: list[str], model: keras.Model, tmp_path: Path
) -> None:
    task = Drawing(spread=20)
    for epoch in (2, 3):
        run(callback(task, model, tmp_path), epoch, discriminator_loss=0.0)
    assert len(said) == 2
    before = warnings_of(tmp_path)
    # Epoch 4 was not kept: it is done again, and says what it said.
    run(callback(task, model, tmp_path), 3, discriminator_loss=0.0)
    assert len(said) == 3 and "mode collapse" in said[2]
    assert warnings_of(tmp_path) == before
    run(callback(task, model, tmp_path), 4, discriminator_loss=0.0)
    assert len(said) == 3


def test_a_damaged_file_of_warnings_does_not_stop_a_training(
    said: list[str], model: keras.Model, tmp_path: Path
) -> None:
    (tmp_path / health.FILE).write_text("{")
    run(callback(Drawing(), model, tmp_path), 0, discriminator_loss=0.0)
    assert len(warnings_of(tmp_path)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_end_the_training(
    value: float, model: keras.Model, tmp_path: Path
) -> None:
    model.layers[0].bias.assign([value])
    with pytest.raises(TrainingFailedError, match="generator became NaN or infinite in epoch 1") as error:
        run(callback(Drawing(), model, tmp_path), 0)
    assert error.value.exit_code == 4


def test_losses_that_run_away_are_told_once(model: keras.Model, tmp_path: Path, said: list[str]) -> None:
    found = callback(Drawing("hinge"), model, tmp_path)
    run(found, 0, discriminator_loss=90.0, generator_loss=-40.0)
    assert not said
    run(found, 1, discriminator_loss=1.0, generator_loss=-3e8)
    run(found, 2, discriminator_loss=1.0, generator_loss=-4e8)
    assert len(said) == 1 and "3e+08" in said[0]
    assert [each["name"] for each in warnings_of(tmp_path)] == ["diverged"]
