"""The columns of a row as parts that can be hidden, for SHAP and LIME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.table.rows import MAX_BACKGROUND, Rows

DRAWS = 10
"""Rows that LIME draws for each coalition of columns."""

ROWS_AT_ONCE = 16_384
"""Rows in one call of the model: few columns each, so that the call's own cost would count."""


class Mixed:
    """The model's outputs for rows whose columns come from different rows.

    The rows are brought to the model once, and mixed where it runs: words are slow to bring there.

    Args:
        network: of a table.
        columns: as `columns_as_rows` and `background_like` give them, each (R, 1).
        stack: whether the model reads them as one array (B, D).
    """

    def __init__(self, network: Network, columns: Mapping[str, np.ndarray], *, stack: bool) -> None:
        names = tuple(columns)
        self._columns = [tf.convert_to_tensor(columns[name][:, 0]) for name in names]
        self._call = network.compiled(
            ("mixed", names, stack), lambda network: _forward(network, names, stack)
        )

    def outputs(self, sources: np.ndarray) -> np.ndarray:
        """Float64 (N, K), of int (D, N): the row that each column's value is taken from."""
        parts = [
            self._call(
                self._columns, tf.convert_to_tensor(sources[:, start : start + ROWS_AT_ONCE], tf.int32)
            )
            for start in range(0, sources.shape[1], ROWS_AT_ONCE)
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _forward(network: Network, names: Sequence[str], stack: bool) -> Any:
    def call(columns: Sequence[tf.Tensor], sources: tf.Tensor) -> tf.Tensor:
        """Columns, each (R,), and int32 (D, N) -> (N, K)."""
        mixed = [tf.gather(column, sources[place])[:, None] for place, column in enumerate(columns)]  # (N, 1)
        return network.forward(tf.concat(mixed, 1) if stack else dict(zip(names, mixed, strict=True)))

    return call


class Columns:
    """The columns of one row as Players: a hidden column takes the values of the background's rows.

    The value of a coalition is the mean output over these rows, so that SHAP's base is the mean output over them:
    Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions", section 4, equation 11.
    Columns in which the whole background has this row's own value cannot be hidden; they are no players and get 0.

    Args:
        network: of a table.
        subject: the row.
        output: index of the explained output.
        background: its first MAX_BACKGROUND rows are used.
    """

    def __init__(self, network: Network, subject: Subject, output: int, background: Any) -> None:
        self._output = output
        row = columns_as_rows(subject.inputs)
        rows = {
            name: values[:MAX_BACKGROUND]
            for name, values in background_like(subject.inputs, background).items()
        }
        self._width, self.rows = len(row), len(rows[next(iter(row))])
        self.columns = np.flatnonzero([not same(rows[name], row[name]).all() for name in row])
        """Places of the M columns that are players."""
        self.count = len(self.columns)
        """M."""
        self._mixed = Mixed(network, with_row(rows, row), stack=not isinstance(subject.inputs, Mapping))

    def value(self, present: np.ndarray) -> np.ndarray:
        """The mean output, float64 (N,), over the background: bool (N, M)."""
        return self.outputs(present)[:, :, self._output].mean(axis=1)

    def outputs(self, present: np.ndarray) -> np.ndarray:
        """All outputs with each row of the background, float64 (N, R, K)."""
        shown = np.ones((len(present), self._width), bool)
        shown[:, self.columns] = present
        step = max(1, ROWS_AT_ONCE // self.rows)
        background = np.arange(self.rows, dtype=np.int32)
        parts = []
        for start in range(0, len(shown), step):
            part = shown[start : start + step].T[:, :, None]  # (D, n, 1)
            # The row itself stands behind the background's R rows.
            sources = np.where(part, np.int32(self.rows), background).reshape(self._width, -1)
            outputs = self._mixed.outputs(sources)
            parts.append(outputs.reshape(-1, self.rows, outputs.shape[-1]))
        return np.concatenate(parts)

    def spread(self, each: np.ndarray) -> np.ndarray:
        """(M,) -> float32 (D,), 0 for columns that are no players."""
        values = np.zeros(self._width, np.float32)
        values[self.columns] = each
        return values


class Bins:
    """The columns of one row as Players for LIME: a column is there when its value is about that of the row.

    As in Ribeiro et al. 2016, "Why Should I Trust You?", and its package's tables: numbers are about the same in the
    same quarter of the background, words when they are the same. Values are drawn from the background's rows that have
    about the same value, or from the others: DRAWS times, since the place of one row in its quarter is noise to the
    line (of a linear model R2 was 0.37 with one row, and is 0.8 with 10).

    Args:
        network: of a table.
        subject: the row.
        output: index of the explained output.
        background: rows whose quartiles bound the quarters.
        generator: draws the values.
    """

    def __init__(
        self, network: Network, subject: Subject, output: int, background: Any, generator: np.random.Generator
    ) -> None:
        self._output, self._generator = output, generator
        row = columns_as_rows(subject.inputs)
        rows = with_row(background_like(subject.inputs, background), row)
        self._last = self.rows = len(rows[next(iter(row))]) - 1
        alike = [
            same_bin(values[:, 0]) for values in rows.values()
        ]  # (R + 1,) each, the row itself among them
        self._pools = [(np.flatnonzero(~each), np.flatnonzero(each)) for each in alike]
        self._players = np.flatnonzero([len(others) > 0 for others, _ in self._pools])
        self.count = len(self._players)
        """M."""
        self._mixed = Mixed(network, rows, stack=not isinstance(subject.inputs, Mapping))

    def value(self, present: np.ndarray) -> np.ndarray:
        """The mean output, float64 (N,), of the rows drawn for each coalition: bool (N, M)."""
        shown = np.repeat(present, DRAWS, axis=0)
        sources = np.full((len(self._pools), len(shown)), self._last, np.int32)
        for player, column in enumerate(self._players.tolist()):
            others, alike = self._pools[column]
            sources[column] = np.where(
                shown[:, player],
                self._generator.choice(alike, len(shown)),
                self._generator.choice(others, len(shown)),
            )
        sources[:, shown.all(axis=1)] = self._last  # with everything there it is the row itself
        return self._mixed.outputs(sources)[:, self._output].reshape(-1, DRAWS).mean(axis=1)

    def spread(self, each: np.ndarray) -> np.ndarray:
        """(M,) -> float32 (D,), 0 for columns that are no players."""
        values = np.zeros(len(self._pools), np.float32)
        values[self._players] = each
        return values


def same_bin(values: np.ndarray) -> np.ndarray:
    """Which values (R,) are in the same quarter as the last, or the same word; the last is not counted in quartiles."""
    if values.dtype.kind in "OUS":
        return np.asarray(values == values[-1], bool)
    missing = np.isnan(values)
    known = values[:-1][~missing[:-1]]
    bounds = np.unique(np.percentile(known, (25, 50, 75))) if len(known) else np.zeros(0)
    bins = np.where(missing, -1, np.searchsorted(bounds, values))
    return bins == bins[-1]


def with_row(rows: Mapping[str, np.ndarray], row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns, each (R + 1, 1): the row stands behind the others."""
    return {name: np.concatenate([rows[name], row[name].astype(rows[name].dtype)]) for name in row}


def columns_as_rows(row: Any) -> dict[str, np.ndarray]:
    """A row as columns, each (1, 1), in its order."""
    if isinstance(row, Mapping):
        return {name: np.asarray(cell).reshape(1, 1) for name, cell in row.items()}
    return {f"{place:06d}": np.asarray(number).reshape(1, 1) for place, number in enumerate(row)}


def background_like(row: Any, background: Rows | None) -> dict[str, np.ndarray]:
    """Background rows as columns, each (R, 1), in the order of a row's columns.

    Raises:
        DlcliError: there are none.
        ValueError: they have other columns than the row.
    """
    if background is None or not len(tree.flatten(background)[0]):
        raise DlcliError(
            "explaining a row of a table needs rows to compare it with: of a run they come from its train split, of "
            "a .keras file from the rows that are explained, two at least"
        )
    if isinstance(row, Mapping) and isinstance(background, Mapping) and set(row) == set(background):
        return {name: np.asarray(background[name]) for name in row}
    if not isinstance(row, Mapping) and not isinstance(background, Mapping):
        numbers = np.asarray(background)
        if numbers.ndim == 2 and numbers.shape[1] == len(row):
            return {f"{place:06d}": numbers[:, [place]] for place in range(numbers.shape[1])}
    raise ValueError("Expected background rows with the columns of the row. Received: others")


def same(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Whether values (R, 1) are the cell (1, 1); missing numbers are all the same."""
    same = np.asarray(values == cell)
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(cell.astype(values.dtype))
    return same
