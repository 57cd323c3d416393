"""A recipe's `dataset` section -> Data: source, validation split, preprocessing."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dlcli.data import DATASETS
from dlcli.data.examples import Data, DataInfo, Source
from dlcli.errors import DataError
from dlcli.recipe.schema import Dataset, Recipe

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


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


def load_data(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Data:
    """The splits, and what is learnt from the train examples alone: the preprocessing, or the vocabulary of texts.

    Args:
        recipe: resolved.
        tokenizer: of a run that goes on; left out, it is learnt.
    """
    source = load_splits(recipe)
    if source.preprocess is not None:
        return Data(
            source.train,
            source.validation,
            source.test,
            source.info,
            source.preprocess(source.train),
            precomputed=source.info.kind == "table",
        )
    from dlcli.data.text.texts import TextExamples
    from dlcli.data.text.vocabulary import learn_vocabulary

    if not isinstance(source.train, TextExamples):
        raise ValueError(
            f"Expected texts of a source without preprocessing. Received: {type(source.train).__name__}"
        )
    if recipe.dataset.tokenizer is None or recipe.dataset.max_length is None:
        raise ValueError("Expected a resolved recipe. Received: dataset without tokenizer or max_length")
    learnt = tokenizer or learn_vocabulary(recipe.dataset.tokenizer, source.train)
    info = replace(source.info, tokenizer=learnt, max_length=recipe.dataset.max_length)
    return Data(source.train, source.validation, source.test, info, None)


def split_indices(
    targets: np.ndarray, validation_split: float, seed: int, info: DataInfo
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, validation), each sorted; stratified by class where the target is a class.

    Examples that go on from one another are not drawn: the last ones are the validation split.
    Every class keeps at least one train example; a class of two or more gives at least one to validation
    as soon as its share rounds to one.
    """
    if info.continuous and len(targets) > 1:
        count = min(max(round(len(targets) * validation_split), 1), len(targets) - 1)
        return np.arange(len(targets) - count), np.arange(len(targets) - count, len(targets))
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
