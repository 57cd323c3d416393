"""Dotted keys of nested sections."""

from __future__ import annotations

from dlcli.recipe.flat import flattened


def test_keys_are_those_of_set() -> None:
    recipe = {
        "seed": 1,
        "dataset": {"name": "csv", "augmentation": [{"name": "flip", "mode": "vertical"}, {"name": "noise"}]},
        "architecture": {"hidden": [8, 4], "options": {}, "none": None, "empty": []},
    }
    assert flattened(recipe) == {
        "seed": 1,
        "dataset.name": "csv",
        "dataset.augmentation.0.name": "flip",
        "dataset.augmentation.0.mode": "vertical",
        "dataset.augmentation.1.name": "noise",
        "architecture.hidden": [8, 4],
        "architecture.options": {},  # an empty section is not the same as none
        "architecture.none": None,
        "architecture.empty": [],
    }
