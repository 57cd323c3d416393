"""The small data sets that scikit-learn brings along: no download, no files."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import keras
import numpy as np

from dlcli.data.examples import ArrayExamples, DataInfo, Examples, Source
from dlcli.data.images import image_preprocessing
from dlcli.data.table_preprocessing import input_name, table_preprocessing

_TEST_SHARE = 0.2
_SPLIT_SEED = 0  # the test split is part of the data set, so it does not follow `training.seed`


def digits(*, normalization: Literal["rescale", "standardize", "none"] = "rescale") -> Source:
    """1,797 handwritten digits, 8x8 grey (scikit-learn's bundled copy of the UCI test set).

    The values 0..16 become 0..255. The test split is a fixed, stratified 20 % (360 images).

    Args:
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation, or `none`.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)  # (1797, 8, 8, 1)
    targets = bunch.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(targets)), test_size=_TEST_SHARE, stratify=targets, random_state=_SPLIT_SEED
    )
    info = DataInfo(
        kind="image",
        input_shape=(8, 8, 1),
        target="classes",
        class_names=tuple(str(digit) for digit in range(10)),
        notes=("digits: values 0..16 scaled to 0..255; a fixed stratified 20 % is the test split",),
        fingerprint=hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, info.input_shape, normalization)

    examples = ArrayExamples(images, targets)
    return Source(examples.subset(np.sort(train)), info, preprocess, test=examples.subset(np.sort(test)))


def iris() -> Source:
    """150 irises of 3 species by 4 lengths in cm (Fisher 1936); a fixed, stratified 30 are the test split."""
    from sklearn.datasets import load_iris

    return _table(load_iris(), "iris")


def wine() -> Source:
    """178 wines of 3 cultivars by 13 chemical measurements; a fixed, stratified 36 are the test split."""
    from sklearn.datasets import load_wine

    return _table(load_wine(), "wine")


def breast_cancer() -> Source:
    """569 tumours, malignant or benign, by 30 measurements; a fixed, stratified 114 are the test split."""
    from sklearn.datasets import load_breast_cancer

    return _table(load_breast_cancer(), "breast_cancer")


def diabetes() -> Source:
    """442 patients, 10 measurements, disease progression after a year (Efron 2004, section 1): regression.

    The measurements are as taken, not as scikit-learn scales them: its means include the test rows.
    89 rows, fixed, are the test split.
    """
    from sklearn.datasets import load_diabetes

    return _table(load_diabetes(scaled=False), "diabetes")


def _table(bunch: Any, name: str) -> Source:
    """A scikit-learn table, numeric columns only, with a fixed 20 % as test split."""
    from sklearn.model_selection import train_test_split

    values = bunch.data.astype(np.float32)  # (N, D)
    inputs = {input_name(str(column)): values[:, [index]] for index, column in enumerate(bunch.feature_names)}
    is_classes = "target_names" in bunch
    split = "a fixed, stratified" if is_classes else "a fixed"
    targets = bunch.target.astype(np.int32) if is_classes else bunch.target.astype(np.float32)[:, None]
    train, test = train_test_split(
        np.arange(len(targets)),
        test_size=_TEST_SHARE,
        stratify=targets if is_classes else None,
        random_state=_SPLIT_SEED,
    )
    info = DataInfo(
        kind="table",
        input_shape=(values.shape[1],),
        target="classes" if is_classes else "values",
        class_names=tuple(map(str, bunch.target_names)) if is_classes else ("progression",),
        notes=(f"{name}: {split} 20 % ({len(test)} rows) is the test split",),
        fingerprint=hashlib.sha256(values.tobytes() + targets.tobytes()).hexdigest(),
    )
    examples = ArrayExamples(inputs, targets)
    test_examples = examples.subset(np.sort(test))
    return Source(examples.subset(np.sort(train)), info, table_preprocessing, test=test_examples)
