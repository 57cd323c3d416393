"""The validation split: stratified, seeded, disjoint, complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.data.load import load_data, load_splits, split_indices
from dlcli.errors import DataError
from dlcli.recipe.load import load_recipe


def info(classes: int = 0) -> DataInfo:
    names = tuple(f"class {index}" for index in range(classes))
    return DataInfo("table", (1,), "classes" if classes else "values", names)


UNEVEN = np.repeat([0, 1, 2, 3], [1, 2, 30, 67]).astype("int32")


def shuffled(targets: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(targets)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_each_example_stands_in_one_part(share: float) -> None:
    train, validation = split_indices(shuffled(UNEVEN), share, 0, info(4))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(100))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()


def test_each_class_gives_its_share() -> None:
    targets = shuffled(UNEVEN)
    _, validation = split_indices(targets, 0.2, 0, info(4))
    np.testing.assert_array_equal(np.bincount(targets[validation], minlength=4), [0, 0, 6, 13])


@pytest.mark.parametrize("share", [0.5, 0.75, 0.99])
def test_each_class_keeps_a_train_example(share: float) -> None:
    targets = shuffled(UNEVEN)
    train, _ = split_indices(targets, share, 0, info(4))
    assert set(targets[train]) == {0, 1, 2, 3}


def test_the_split_follows_the_seed() -> None:
    targets = shuffled(UNEVEN)
    first, same, other = (split_indices(targets, 0.2, seed, info(4))[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_values_are_split_without_regard_to_them() -> None:
    values = np.linspace(0, 1, 40, dtype="float32")[:, None]
    train, validation = split_indices(values, 0.25, 3, info())
    assert (len(train), len(validation)) == (30, 10)
    assert not np.array_equal(validation, np.arange(30, 40)), "a sorted file must be mixed"


def test_a_split_that_leaves_none_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"validation_split 0\.01 of 9 examples leaves none.*raise it, or set it to 0"
    ):
        split_indices(np.arange(9, dtype="int32") % 3, 0.01, 0, info(3))


def test_validation_split_0_keeps_all_for_training() -> None:
    splits = load_splits(load_recipe("iris_mlp", ["dataset.validation_split=0"]))
    assert splits.validation is None
    assert (len(splits.train), len(splits.test)) == (120, 30)


def test_preprocessing_learns_from_what_is_left_for_training(tmp_path: Path) -> None:
    rows = "\n".join(f"{index * 0.7:.2f},{index * 1.5}" for index in range(40))
    (tmp_path / "line.csv").write_text(f"x,y\n{rows}\n")
    recipe = load_recipe(
        "diabetes_mlp",
        [f"dataset={{name: csv, path: {tmp_path / 'line.csv'}, target: y, validation_split: 0.5}}"],
    )
    data = load_data(recipe)
    assert data.validation is not None
    (column,) = data.train.inputs
    values = data.train.inputs[column]
    scaled = np.asarray(data.preprocessing(data.train.inputs))
    np.testing.assert_allclose(scaled.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(
        scaled[:, 0], (values[:, 0] - values.mean()) / values.std(), rtol=1e-3, atol=1e-3
    )
    assert len(np.intersect1d(values, data.validation.inputs[column])) == 0


def test_a_source_with_validation_of_its_own_is_not_split(class_folders: Callable[..., Path]) -> None:
    root = class_folders(splits=("train", "val", "test"), per_class=3, size=4)
    recipe = load_recipe(
        "digits_cnn", [f"dataset={{name: image_folder, path: {root}, validation_split: 0.5}}"]
    )
    splits = load_splits(recipe)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [9, 9, 9]
