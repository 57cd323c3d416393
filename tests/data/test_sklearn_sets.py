"""scikit-learn's tables: the right columns and targets, and a test split that is always the same."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from dlcli.data import sklearn_sets
from dlcli.data.table_preprocessing import column_name

LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": lambda: load_diabetes(scaled=False),
}


def rows(examples):
    return np.concatenate([*examples.inputs.values(), examples.targets.reshape(len(examples), 1)], axis=1)


@pytest.mark.parametrize("name", LOADERS)
def test_splits_hold_every_row_once(name):
    source, bunch = getattr(sklearn_sets, name)(), LOADERS[name]()
    assert [column_name(column) for column in source.train.inputs] == list(bunch.feature_names)
    found = np.concatenate([rows(source.train), rows(source.test)])
    original = np.concatenate([bunch.data, bunch.target[:, None]], axis=1).astype(np.float32)
    assert len(source.test) == np.ceil(0.2 * len(original))
    np.testing.assert_array_equal(found[np.lexsort(found.T)], original[np.lexsort(original.T)])
    np.testing.assert_array_equal(rows(getattr(sklearn_sets, name)().test), rows(source.test))


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("iris", ("setosa", "versicolor", "virginica")),
        ("wine", ("class_0", "class_1", "class_2")),
        ("breast_cancer", ("malignant", "benign")),
    ],
)
def test_classes_are_stratified(name, classes):
    source = getattr(sklearn_sets, name)()
    assert source.info.target == "classes"
    assert source.info.class_names == classes
    share = np.bincount(source.train.targets) / len(source.train)
    np.testing.assert_allclose(np.bincount(source.test.targets) / len(source.test), share, atol=0.03)


def test_diabetes_is_regression_on_values_as_measured():
    source = sklearn_sets.diabetes()
    assert source.info.target == "values"
    assert source.train.targets.shape == (353, 1)
    assert 25 <= source.train.targets.min() < source.train.targets.max() <= 346
    ages = next(iter(source.train.inputs.values()))
    assert 18 < ages.min() < ages.max() < 80


def test_preprocessing_standardizes_the_train_split():
    source = sklearn_sets.wine()
    model = source.preprocess(source.train)
    features = np.array(model(source.train.inputs))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-4)
