"""From the raw columns of a table to one vector (imputation, standardization, one-hot), inside the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras
import numpy as np

from dlcli.data.examples import ArrayExamples, Examples
from dlcli.layers.imputation import Imputation

_PREFIX = "column_"


def input_name(column: str) -> str:
    """A column's name as the name of a Keras input: `hours per week` -> `column_hours0x20_per0x20_week`.

    The prefix keeps a column called `dense` apart from the layer `dense`. Characters that TensorFlow, ONNX or
    HDF5 refuse in names become their code point, so that `column_name` gets the column back.
    """
    return _PREFIX + re.sub(r"[^A-Za-z0-9_]|0(?=x)", lambda match: f"0x{ord(match[0]):x}_", column)


def column_name(name: str) -> str:
    """The column that `input_name` turned into this name.

    Raises:
        ValueError: this is not the name of a column's input.
    """
    if not name.startswith(_PREFIX):
        raise ValueError(f"Expected an input's name that begins with {_PREFIX!r}. Received: {name!r}")
    return re.sub(r"0x([0-9a-f]+)_", lambda match: chr(int(match[1], 16)), name.removeprefix(_PREFIX))


def takes_columns(model: keras.Model) -> bool:
    """Whether a model reads a dict of columns, as those of tables do."""
    try:
        return isinstance(model.input, dict)
    except AttributeError:  # a Sequential model has `inputs` alone
        return False


def model_columns(model: keras.Model) -> tuple[list[str], list[str]]:
    """The numeric and the categorical columns that a saved table model takes, in the order of its inputs."""
    numeric: list[str] = []
    categorical: list[str] = []
    for tensor in model.inputs:
        name = column_name(tensor.name)
        (categorical if keras.backend.standardize_dtype(tensor.dtype) == "string" else numeric).append(name)
    return numeric, categorical


def table_preprocessing(examples: Examples) -> keras.Model:
    """Learn medians, means, variances and vocabularies from the train split.

    Numeric columns: NaN becomes the median, every column is standardized, and a column with NaN in the train
    split gets an indicator (0 or 1). Categorical columns: one-hot over the values of the train split, among
    them "" if cells are missing there. A value never seen in training is a row of zeros: a slot of its own
    would reach weights that were never trained.

    Args:
        examples: the train split, as an ArrayExamples whose inputs are a dict of columns.

    Returns:
        A model from a dict of columns, each (B, 1), float32 or string, to float32 (B, D).
    """
    if not isinstance(examples, ArrayExamples) or not isinstance(examples.inputs, dict):
        raise ValueError(f"Expected examples with a dict of columns. Received: {type(examples).__name__}")
    columns = examples.inputs
    inputs = {name: _input(name, values) for name, values in columns.items()}
    numeric = [name for name, values in columns.items() if values.dtype.kind == "f"]
    categorical = [name for name in columns if name not in set(numeric)]
    features = []
    if numeric:
        numbers = np.concatenate([columns[name] for name in numeric], axis=1)  # (N, D)
        features.append(_standardize([inputs[name] for name in numeric], numbers))
    features.extend(_one_hot(inputs[name], columns[name]) for name in categorical)
    outputs = _concatenate(features, "table_features")  # (B, D)
    return keras.Model(inputs, outputs, name="preprocessing")


def _input(name: str, values: np.ndarray) -> keras.KerasTensor:
    dtype = "float32" if values.dtype.kind == "f" else "string"
    return keras.Input((1,), dtype=dtype, name=name)


def _concatenate(tensors: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    # float32 throughout: in float16 a raw number above 65,504 would be infinite.
    return keras.layers.Concatenate(name=name, dtype="float32")(tensors) if len(tensors) > 1 else tensors[0]


def _standardize(tensors: Sequence[keras.KerasTensor], numbers: np.ndarray) -> keras.KerasTensor:
    """Columns (B, 1) each -> (B, D + indicators): filled, then mean 0 and variance 1 over the train split."""
    is_missing = np.isnan(numbers)
    medians = _medians(numbers, is_missing)
    indicators = np.flatnonzero(is_missing.any(axis=0)).tolist()
    filled = np.where(is_missing, medians, numbers).astype(np.float64)
    mean, variance = filled.mean(axis=0), filled.var(axis=0)
    # A column that is constant in the train split would be divided by epsilon and explode on any other value.
    variance[variance <= 1e-12 * np.square(mean)] = 1.0
    stacked = _concatenate(tensors, "numeric_columns")  # (B, D)
    imputed = Imputation(medians.tolist(), indicators, dtype="float32", name="imputation")(stacked)
    normalization = keras.layers.Normalization(
        mean=[*mean.tolist(), *[0.0] * len(indicators)],
        variance=[*variance.tolist(), *[1.0] * len(indicators)],
        dtype="float32",
        name="standardization",
    )
    return normalization(imputed)


def _medians(numbers: np.ndarray, is_missing: np.ndarray) -> np.ndarray:
    """(D,): 0 for a column without any number in the train split, on which nanmedian would warn."""
    known = np.where(is_missing.all(axis=0), np.float32(0), numbers)
    return np.nanmedian(known, axis=0)


def _one_hot(tensor: keras.KerasTensor, values: np.ndarray) -> keras.KerasTensor:
    """A text column (B, 1) -> (B, V), V the number of its values in the train split."""
    vocabulary = sorted(set(values[:, 0].tolist()))
    lookup = keras.layers.StringLookup(
        vocabulary=vocabulary, num_oov_indices=1, output_mode="one_hot", name=f"{tensor.name}_one_hot"
    )
    return lookup(tensor)[:, 1:]  # without the slot of unseen values
