"""What is wrong or remarkable in a recipe's data, found before training: `dlcli data check`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.data import TEXT_KINDS
from dlcli.data.decode import BadImageError, decode_file
from dlcli.data.examples import DataInfo, Examples, Source
from dlcli.data.image_files import Survey, check_bad, survey
from dlcli.data.image_listing import SPLITS, Listing, list_class_folders, list_labelled_files
from dlcli.data.keras_sets import holds_class_folders
from dlcli.data.listed_images import height_and_width, image_shape
from dlcli.data.load import load_data, load_source
from dlcli.data.text.survey import TextSurvey, survey_texts, tag_counts, text_contents
from dlcli.data.text.texts import TextExamples
from dlcli.errors import DataError
from dlcli.recipe.conflicts import kind_of_data
from dlcli.recipe.schema import Dataset, Recipe

_CHUNK = 512
_SHOWN = 20


@dataclass(frozen=True)
class Duplicates:
    """Examples whose content is equal, bit for bit, after decoding."""

    within: dict[str, int] = field(default_factory=dict)
    """Superfluous copies in each split."""
    across: int = 0
    """Contents that stand in more than one split: a test score on them says nothing."""
    contradictory: int = 0
    """Contents that carry more than one label."""
    examples: tuple[tuple[str, ...], ...] = ()
    """The first groups, those across splits first."""


@dataclass(frozen=True)
class Report:
    """What `check_data` found."""

    dataset: str
    splits: dict[str, int]
    """Examples in each split."""
    classes: dict[str, dict[str, int]]
    """Examples of each class in each split; empty for regression."""
    duplicates: Duplicates
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by file."""
    refusals: tuple[str, ...] = ()
    """What training would say and stop at."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Files passed over, by reason."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Images of each `height x width`."""
    modes: dict[str, int] = field(default_factory=dict)
    """Images of each mode (RGB, L, CMYK ...)."""
    notes: tuple[str, ...] = ()
    texts: tuple[TextSurvey, ...] = ()
    """Of texts: lengths and unknown words of each split."""
    vocabulary_size: int = 0
    max_length: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def imbalance(self) -> float | None:
        """Examples of the largest class over those of the smallest, in the train split."""
        counts = list(self.classes.get("train", {}).values())
        return max(counts) / max(min(counts), 1) if counts else None


def check_data(recipe: Recipe) -> Report:
    """Looks at every example of a recipe's data set, decoding every image file.

    Image files that cannot be read are reported, not raised. Equal content is found by the sha256 of the
    decoded pixels (of a table: of the row without its target).

    Texts are split and tokenized as training would do it.

    Raises:
        DataError: the data set as such cannot be used (missing folder, one class).
    """
    if kind_of_data(recipe.dataset.name) in TEXT_KINDS:
        return _check_texts(recipe)
    listing = _listing(recipe.dataset)
    if listing is not None:
        return _check_files(recipe.dataset, listing)
    return _check_source(recipe.dataset.name, load_source(recipe.dataset))


def _listing(dataset: Dataset) -> Listing | None:
    """The image files of a data set that lies in files."""
    arguments = dataset.arguments
    if not arguments.get("path"):
        return None
    path = Path(arguments["path"]).expanduser()
    if dataset.name == "image_folder":
        labels = arguments.get("labels")
        return list_labelled_files(path, Path(labels).expanduser()) if labels else list_class_folders(path)
    known = dataset.name in {"mnist", "fashion_mnist", "cifar10", "cifar100"}
    return list_class_folders(path) if known and holds_class_folders(path) else None


def _refusals(dataset: Dataset, listing: Listing, found: Survey, bad: dict[int, str]) -> tuple[str, ...]:
    """What the builder of the data set would raise of these files."""
    arguments = dataset.arguments
    refusals = []
    try:
        check_bad(listing, bad, skip=arguments.get("on_bad_file") == "skip")
    except DataError as error:
        refusals.append(str(error))
    try:
        if len(found.bad) < len(listing):
            image_shape(found, height_and_width(arguments.get("image_size")), "auto")
    except DataError as error:
        refusals.append(str(error))
    return tuple(refusals)


def _check_files(dataset: Dataset, listing: Listing) -> Report:
    found = survey(listing)
    sizes = {f"{height} x {width}": count for (height, width), count in found.sizes().most_common()}

    def digest(index: int) -> bytes | str:
        header = found.headers[index]
        if header is None:
            return found.bad[index]
        try:
            pixels = decode_file(listing.path(index), 1 if header.grey else 3)
        except BadImageError as error:
            return str(error)
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(digest, range(len(listing)), chunksize=_CHUNK))
    good = [index for index, result in enumerate(results) if isinstance(result, bytes)]
    bad = {index: result for index, result in enumerate(results) if isinstance(result, str)}
    classes: dict[str, dict[str, int]] = {}
    for split in np.unique(listing.splits):
        chosen = listing.targets[[index for index in good if listing.splits[index] == split]]
        counts = np.bincount(chosen, minlength=len(listing.class_names))
        classes[SPLITS[split]] = dict(zip(listing.class_names, counts.tolist(), strict=True))
    contents = (
        (
            results[index],
            SPLITS[listing.splits[index]],
            listing.paths[index],
            int(listing.targets[index]),
        )
        for index in good
    )
    return Report(
        dataset=dataset.name,
        splits={split: sum(counts.values()) for split, counts in classes.items()},
        classes=classes,
        duplicates=_duplicates(contents),
        unreadable={listing.path(index): reason for index, reason in bad.items()},
        refusals=_refusals(dataset, listing, found, bad),
        ignored=listing.ignored,
        sizes=sizes,
        modes=dict(found.modes().most_common()),
        notes=listing.notes,
    )


def _check_source(name: str, source: Source) -> Report:
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    present = {split: examples for split, examples in splits.items() if examples is not None}
    sizes, modes = {}, {}
    if source.info.kind == "image":
        height, width, channels = source.info.input_shape
        total = sum(len(examples) for examples in present.values())
        sizes = {f"{height} x {width}": total}
        modes = {"L" if channels == 1 else "RGB": total}
    return Report(
        dataset=name,
        splits={split: len(examples) for split, examples in present.items()},
        classes={
            split: counts
            for split, examples in present.items()
            if (counts := _class_counts(examples.targets, source.info))
        },
        duplicates=_duplicates(_contents(present)),
        sizes=sizes,
        modes=modes,
        notes=source.info.notes,
    )


def _check_texts(recipe: Recipe) -> Report:
    data = load_data(recipe)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    present = {split: examples for split, examples in splits.items() if isinstance(examples, TextExamples)}
    classes = {
        split: tag_counts(examples, data.info.class_names)
        if data.info.target == "tags"
        else _class_counts(examples.targets, data.info)
        for split, examples in present.items()
    }
    return Report(
        dataset=recipe.dataset.name,
        splits={split: len(examples) for split, examples in present.items()},
        classes={split: counts for split, counts in classes.items() if counts},
        duplicates=_duplicates(text_contents(present)),
        notes=data.info.notes,
        texts=tuple(survey_texts(data, recipe.task.name)),
        vocabulary_size=data.info.vocabulary_size,
        max_length=data.info.max_length,
    )


def _class_counts(targets: np.ndarray, info: DataInfo) -> dict[str, int]:
    if info.target not in ("classes", "labels"):
        return {}
    if info.target == "labels":
        counts = targets.sum(axis=0).astype(int)
    else:
        counts = np.bincount(targets, minlength=len(info.class_names))
    return dict(zip(info.class_names, counts.tolist(), strict=True))


def _contents(splits: dict[str, Examples]) -> Iterator[tuple[bytes, str, str, Any]]:
    """(digest, split, name, label) of every example."""
    for split, examples in splits.items():
        for start in range(0, len(examples), _CHUNK):
            indices = np.arange(start, min(start + _CHUNK, len(examples)))
            columns = [np.asarray(part) for part in tree.flatten(examples.read(tf.constant(indices)))]
            for row, index in enumerate(indices):
                digest = hashlib.sha256()
                for column in columns:
                    value = column[row]
                    digest.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
                yield digest.digest(), split, f"row {index}", np.asarray(examples.targets[index]).tobytes()


def _duplicates(contents: Iterable[tuple[Any, str, str, Any]]) -> Duplicates:
    groups: dict[bytes, list[tuple[str, str, Any]]] = defaultdict(list)
    for digest, split, name, label in contents:
        groups[digest].append((split, name, label))
    repeated = [members for members in groups.values() if len(members) > 1]
    within: Counter[str] = Counter()
    across = []
    for members in repeated:
        counts = Counter(split for split, _, _ in members)
        within.update({split: count - 1 for split, count in counts.items() if count > 1})
        if len(counts) > 1:
            across.append(members)
    shown = sorted(repeated, key=lambda members: len({split for split, _, _ in members}) == 1)[:_SHOWN]
    return Duplicates(
        within=dict(within),
        across=len(across),
        contradictory=sum(len({label for _, _, label in members}) > 1 for members in repeated),
        examples=tuple(tuple(f"{split}: {name}" for split, name, _ in members) for members in shown),
    )
