"""What workers agree on before they train: else their weights would go apart, and nobody would see it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dlcli.errors import DlcliError
from dlcli.recipe.flat import flattened
from dlcli.recipe.load import load_recipe
from dlcli.training import job
from dlcli.training.agreement import Agreement
from dlcli.training.job import check_same_recipe


class Second(Agreement):
    """A worker whose chief trains another recipe."""

    def __init__(self, chief: str, *changes: str) -> None:
        super().__init__()
        self.text = json.dumps(flattened(load_recipe(chief, changes).model_dump(mode="json")))

    def from_chief(self, text: str) -> str:
        return self.text


def test_all_that_differs_is_named() -> None:
    here = load_recipe("digits_cnn", ["optimizer.learning_rate=0.1"])
    with pytest.raises(DlcliError) as caught:
        check_same_recipe(here, Second("digits_cnn", "training.seed=1"))
    said = "learning_rate: 0.1 here, 0.002 at the first worker; training.seed: 0 here, 1 at the first worker"
    assert said in str(caught.value)


def test_one_recipe_with_data_in_other_places() -> None:
    here = load_recipe("cifar10_cnn", ["dataset.path=/here"])
    check_same_recipe(here, Second("cifar10_cnn", "dataset.path=/there"))
    check_same_recipe(here, Agreement())


class Chief(Agreement):
    """The first of two workers, which hears of nobody else."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = 2

    def from_chief(self, text: str) -> str:
        return text

    def count(self, holds: bool) -> int:
        return int(holds)


def test_what_the_chief_loads_first_for_all_draws_no_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits_cnn")
    data = job.load_data_for(recipe)

    def load(*_: Any) -> Any:
        random.random()
        return data

    monkeypatch.setattr(job, "load_data_for", load)
    drawn = []
    for agreement in (Agreement(), Chief()):
        random.seed(0)
        job._load(recipe, None, agreement)
        drawn.append(random.random())
    assert drawn[0] == drawn[1]
