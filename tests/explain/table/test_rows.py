from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject, Unreadable
from dlcli.explain.network import Network
from dlcli.explain.table.rows import (
    background_of_subjects,
    cells_of,
    columns_of,
    inputs_of_tables,
)

NAN = float("nan")


def numbers_model(width: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(2)])


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_rows_are_read_by_name_as_the_model_takes_them(
    model: keras.Model, network: Network, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "rows.csv", "colour,age,answer,weight kg\nred,30,yes,55.5\n?,NA,no,\npink,1,no,2\n"
    )
    rows = list(inputs_of_tables(model, [path]))
    assert [row.name for row in rows] == [f"{path} row {number}" for number in (1, 2, 3)]
    assert columns_of(rows[0]) == ("weight kg", "colour", "age")
    assert cells_of(rows[0]) == [55.5, "red", 30.0]
    assert cells_of(rows[1])[1] == ""
    assert np.isnan([cells_of(rows[1])[0], cells_of(rows[1])[2]]).all()
    assert rows[0].notes == ()
    assert rows[1].notes == ("colour (empty) was never seen in training",)
    assert rows[2].notes == ("colour pink was never seen in training",)
    expected = model.predict_on_batch(network.batch(rows))
    np.testing.assert_allclose(
        network.probabilities(network.outputs(network.batch(rows))), expected, atol=1e-6
    )


def test_a_model_from_elsewhere_gets_the_names_of_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "a;b;c\n1;2;3\n4;;6\n7;8;9\n")
    first, second, third = inputs_of_tables(numbers_model(), [path])
    assert columns_of(first) == ("a", "b", "c")
    assert first.inputs.dtype == np.float32
    assert cells_of(third) == [7, 8, 9]
    assert isinstance(second, Unreadable)
    assert second.name.endswith("row 2")
    assert "b: the cell is empty" in second.error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b,c,target\n1,2,3,4\n", "names 4 columns (a, b, c, target), and the model reads 3"),
        ("a,b,c\n1,2,x\n", "x"),
        ("a,b,c\n", "no data rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_next_is_read(
    tmp_path: Path, text: str, says: str
) -> None:
    bad, good = write(tmp_path / "bad.csv", text), write(tmp_path / "good.csv", "a,b,c\n1,2,3\n")
    first, second = inputs_of_tables(numbers_model(), [bad, good])
    assert isinstance(first, Unreadable)
    assert first.name == bad
    assert says in first.error
    assert isinstance(second, Subject)


def test_a_file_that_is_not_there_or_lacks_a_column_is_said(model: keras.Model, tmp_path: Path) -> None:
    lacks = write(tmp_path / "lacks.csv", "age,weight kg\n1,2\n")
    gone, without = inputs_of_tables(model, [str(tmp_path / "gone.csv"), lacks])
    assert isinstance(gone, Unreadable)
    assert "gone.csv" in gone.error
    assert isinstance(without, Unreadable)
    assert "no column 'colour'" in without.error


def test_rows_that_are_explained_can_be_the_background(columns: dict[str, np.ndarray]) -> None:
    subjects = [
        Subject(str(row), {name: values[row] for name, values in columns.items()}) for row in range(30)
    ]
    background = background_of_subjects(subjects)
    assert all(background[name].tolist() == columns[name].tolist() for name in columns if "colour" in name)
    numbers = background_of_subjects([Subject(str(row), np.full(4, row, np.float32)) for row in range(150)])
    assert numbers.shape == (100, 4)
    with pytest.raises(DlcliError, match="one row alone"):
        background_of_subjects(subjects[:1])
