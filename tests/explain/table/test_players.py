from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.data.table_preprocessing import input_name
from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.network import Network
from dlcli.explain.table.players import Bins, Columns, same_bin

NAN = float("nan")


def numbers_model(width: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(2)])


def test_a_hidden_column_takes_the_values_of_the_background(
    network: Network, columns: dict[str, np.ndarray]
) -> None:
    row = {name: values[7] for name, values in columns.items()}
    background = {name: values[:5] for name, values in reversed(columns.items())}  # any order of the dict
    players = Columns(network, Subject("row", row), 2, background)
    present = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]], bool)
    expected = []
    for each in present:
        mixed = {
            name: np.tile(row[name], (5, 1)) if shown else columns[name][:5]
            for name, shown in zip(columns, each, strict=True)
        }
        expected.append(network.outputs(mixed)[:, 2].mean())
    np.testing.assert_allclose(players.value(present), expected, atol=1e-5)


def test_a_column_that_is_alike_everywhere_is_no_player(
    network: Network, columns: dict[str, np.ndarray]
) -> None:
    weight, colour, age = columns
    background = {
        weight: np.full((4, 1), NAN, np.float32),
        colour: np.full((4, 1), "red", object),
        age: columns[age][:4],
    }
    row = {
        weight: np.array([NAN], np.float32),
        colour: np.array(["red"], object),
        age: np.array([1], np.float32),
    }
    for players in (
        Columns(network, Subject("row", row), 0, background),
        Bins(network, Subject("row", row), 0, background, np.random.default_rng(0)),
    ):
        assert players.count == 1
        assert players.spread(np.array([5.0])).tolist() == [0, 0, 5]


def test_bins_are_quarters_of_the_background_and_words() -> None:
    numbers = np.array(
        [1, 2, 3, 4, 5, 6, 7, 8, NAN, 2.5], np.float32
    )  # the last is the row: the quarter 1..2.75
    assert np.flatnonzero(same_bin(numbers)).tolist() == [0, 1, 9]
    assert np.flatnonzero(same_bin(np.array([1, NAN, 2, NAN], np.float32))).tolist() == [1, 3]
    assert np.flatnonzero(same_bin(np.array(["a", "", "a", "b", "a"], object))).tolist() == [0, 2, 4]


def test_bins_draw_from_the_rows_alike_or_from_the_others() -> None:
    model = numbers_model(2)
    model.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    network = Network(model, "table", np.zeros((1, 2), np.float32))
    background = np.stack([np.arange(8), np.arange(8)], axis=1).astype(np.float32)
    players = Bins(
        network, Subject("row", np.array([0.5, 7], np.float32)), 0, background, np.random.default_rng(0)
    )
    assert players.value(np.ones((3, 2), bool)).tolist() == [0.5] * 3
    alike = players.value(np.tile([[True, False]], (200, 1)))
    others = players.value(np.tile([[False, True]], (200, 1)))
    # Means of draws from 0, 0.5 and 1, and from 2 to 7.
    assert 0 <= alike.min() < 0.35 < 0.65 < alike.max() <= 1
    assert alike.mean() == pytest.approx(0.5, abs=0.04)
    assert 2 <= others.min() < 4 < 5 < others.max() <= 7
    assert others.mean() == pytest.approx(4.5, abs=0.15)


def test_without_background_nothing_is_compared(network: Network, columns: dict[str, np.ndarray]) -> None:
    subject = Subject("row", {name: values[0] for name, values in columns.items()})
    with pytest.raises(DlcliError, match="rows to compare"):
        Columns(network, subject, 0, None)
    with pytest.raises(ValueError, match="Received: others"):
        Columns(network, subject, 0, {"column_age": columns[input_name("age")]})
