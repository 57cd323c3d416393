"""A recipe's `dataset` section -> Data: source, validation split, preprocessing."""

from __future__ import annotations

import pkgutil
from dataclasses import replace

import numpy as np

from dlcli.data import DATASETS
from dlcli.data.examples import Data, DataInfo, Source
from dlcli.errors import DataError
from dlcli.recipe.schema import Dataset, Recipe


def load_source(dataset: Dataset) -> Source:
    """The splits as the source gives them."""
    source: Source = pkgutil.resolve_name(DATASETS[dataset.name])(**dataset.arguments)
    return source


def load_splits(recipe: Recipe) -> Source:
    """Train, validation and test examples; validation is split off the train examples unless the source has its own.

    Raises:
        DataError: the data cannot be used; the message names the file, row or class.
    """
    source = load_source(recipe.dataset)
    if source.validation is not None or recipe.dataset.validation_split == 0:
        return source
    kept, held_out = split_indices(
        source.train.targets, recipe.dataset.validation_split, recipe.training.seed, source.info
    )
    return replace(source, train=source.train.subset(kept), validation=source.train.subset(held_out))


def load_data(recipe: Recipe) -> Data:
    """The splits, and the preprocessing that is learnt from the train examples alone."""
    source = load_splits(recipe)
    return Data(source.train, source.validation, source.test, source.info, source.preprocess(source.train))


def split_indices(
    targets: np.ndarray, validation_split: float, seed: int, info: DataInfo
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, validation), each sorted; stratified by class where the target is a class.

    Every class keeps at least one train example; a class of two or more gives at least one to validation
    as soon as its share rounds to one.
    """
    random = np.random.default_rng([seed, len(targets)])
    groups = (
        [np.flatnonzero(targets == index) for index in range(len(info.class_names))]
        if info.target == "classes"
        else [np.arange(len(targets))]
    )
    held_out = []
    for group in groups:
        count = min(round(len(group) * validation_split), len(group) - 1)
        held_out.append(random.permutation(group)[: max(count, 0)])
    validation = np.sort(np.concatenate(held_out))
    if not len(validation):
        raise DataError(
            f"dataset.validation_split {validation_split:g} of {len(targets)} examples leaves none for validation: "
            "raise it, or set it to 0 to train without validation"
        )
    return np.setdiff1d(np.arange(len(targets)), validation), validation
