"""CSV files: what is read, what is decided about columns and target, and what is refused where."""

import os

import numpy as np
import pytest

from dlcli.data.csv_table import csv, read_inputs
from dlcli.data.table_preprocessing import input_name
from dlcli.errors import DataError

PEOPLE = "age,city,income\n39,Rome,low\n50,Oslo,high\n28,Rome,low\n41,Oslo,high\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="train.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write_file


def column(examples, name):
    return examples.inputs[input_name(name)][:, 0].tolist()


def refusal(path, target="income", **arguments):
    with pytest.raises(DataError) as raised:
        csv(path=path, target=target, **arguments)
    return str(raised.value)


def test_reads_columns_and_classes(write):
    source = csv(path=write(PEOPLE), target="income")
    assert column(source.train, "age") == [39, 50, 28, 41]
    assert column(source.train, "city") == ["Rome", "Oslo", "Rome", "Oslo"]
    assert source.train.inputs[input_name("age")].dtype == np.float32
    assert source.info.target == "classes"
    assert source.info.class_names == ("high", "low")  # sorted
    assert source.train.targets.tolist() == [1, 0, 1, 0]
    assert source.train.targets.dtype == np.int32
    assert source.test is None
    assert source.info.input_shape == (2,)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_sniffed(write, delimiter):
    text = 'a,"b, ; | and \t more",y\n1,x,p\n2,z,q\n3,x,p\n4,z,q\n'.replace(",", delimiter)
    text = text.replace(f"b{delimiter} ; | and", "b, ; | and")
    source = csv(path=write(text), target="y")
    assert column(source.train, "a") == [1, 2, 3, 4]
    assert len(source.train.inputs) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "windows-1252"])
def test_encoding_is_sniffed(write, encoding):
    text = PEOPLE.replace("Rome", "Málaga").replace("age", "âge")
    source = csv(path=write(text, encoding=encoding), target="income")
    assert column(source.train, "city")[0] == "Málaga"
    assert column(source.train, "âge")[0] == 39
    noted = any("windows-1252" in note for note in source.info.notes)
    assert noted == (encoding == "windows-1252")


def test_given_encoding_wins_and_its_faults_are_named(write):
    path = write(PEOPLE.replace("Rome", "東京"), encoding="shift_jis")
    assert column(csv(path=path, target="income", encoding="shift_jis").train, "city")[0] == "東京"
    assert "train.csv:2" in refusal(path, encoding="utf-8")
    assert "not 'punycode'" in refusal(write("a,b\n-,2\n"), encoding="punycode")  # Python does not say where
    assert "did you mean 'utf-8'" in refusal(path, encoding="utf-88")


def test_a_byte_order_mark_is_no_part_of_the_first_name(write):
    path = write(PEOPLE, encoding="utf-8-sig")
    source = csv(path=path, target="income", encoding="utf-8")
    assert next(iter(source.train.inputs)) == input_name("age")


def test_quotes_hold_delimiters_and_line_breaks(write):
    text = 'name,age,income\n"Braund, ""Owen""\nHarris",22,low\nB,x1,high\n'
    source = csv(path=write(text.replace("x1", "23")), target="income", columns={"name": "categorical"})
    assert column(source.train, "name")[0] == 'Braund, "Owen"\nHarris'
    # The second row begins on line 4, because the first one holds a line break.
    assert "train.csv:4 age: 'x1'" in refusal(write(text), columns={"age": "numeric"})


def test_missing_cells(write):
    text = "n,c,y\n1,a,p\n?,?,q\nNA,,p\nnan,null,q\n5,b,p\n,N/A,q\nNone,a,p\n6,b,q\n"
    source = csv(path=write(text), target="y")
    assert np.isnan(column(source.train, "n")).tolist() == [False, True, True, True, False, True, True, False]
    assert column(source.train, "c") == ["a", "", "", "", "b", "", "a", "b"]
    assert "n 5, c 4" in source.info.notes[0]


def test_decimal_commas(write):
    source = csv(path=write("a;b;y\n1,5;x;p\n-2,25;z;q\n3;x;p\n4;z;q\n"), target="y")
    assert column(source.train, "a") == [1.5, -2.25, 3, 4]
    assert any("decimal commas" in note and "a" in note for note in source.info.notes)


def test_formula_cells_are_text(write):
    source = csv(path=write("a,b,y\n=1+1,1,p\n=A1,2,q\n=1+1,3,p\n=A1,4,q\n"), target="y")
    assert column(source.train, "a") == ["=1+1", "=A1", "=1+1", "=A1"]


def test_columns_without_use_are_left_out_with_a_reason(write):
    header = "row,constant,empty,day,free,code,x,y\n"
    rows = [f"{i},same,,2024-01-{i:02d},text {i},{i % 3}_0,{i * i},{'pq'[i % 2]}" for i in range(1, 31)]
    source = csv(path=write(header + "\n".join(rows)), target="y")
    # 1_0 is a number for Python, but not in a table.
    assert column(source.train, "code")[:3] == ["1_0", "2_0", "0_0"]
    assert list(source.train.inputs) == [input_name("code"), input_name("x")]
    notes = "\n".join(source.info.notes)
    for name in ("row", "constant", "empty", "day", "free"):
        assert f": {name};" in notes


def test_columns_argument_has_the_last_word(write):
    rows = "\n".join(f"{i},{10000 + i % 3},text {i},{'pq'[i % 2]}" for i in range(1, 31))
    asked = {"row": "numeric", "zip": "categorical", "free": "categorical"}
    source = csv(path=write("row,zip,free,y\n" + rows), target="y", columns=asked)
    assert column(source.train, "row")[:2] == [1, 2]
    assert column(source.train, "zip")[:2] == ["10001", "10002"]
    assert column(source.train, "free")[0] == "text 1"
    ignoring = csv(
        path=write("row,zip,free,y\n" + rows), target="y", columns={"zip": "ignore", "row": "numeric"}
    )
    assert list(ignoring.train.inputs) == [input_name("row")]


@pytest.mark.parametrize(
    ("cells", "asked", "kind", "names"),
    [
        (["no", "yes"] * 10, None, "classes", ("no", "yes")),
        (["2", "10"] * 10, None, "classes", ("2", "10")),  # sorted as numbers
        (["1.0", "2.0"] * 10, None, "classes", ("1", "2")),
        (["1", "2"] * 10, "numeric", "values", ("y",)),
        (["1.5", "2"] * 10, None, "values", ("y",)),
        (["1.5", "2"] * 10, "categorical", "classes", ("1.5", "2")),
        ([str(i) for i in range(21)] * 3, None, "values", ("y",)),
        ([str(i) for i in range(20)] * 3, None, "classes", tuple(str(i) for i in range(20))),
        ([str(i) for i in range(12)], None, "values", ("y",)),  # no value twice: not classes
    ],
)
def test_what_the_target_means(write, cells, asked, kind, names):
    text = "x,y\n" + "\n".join(f"{i % 7},{cell}" for i, cell in enumerate(cells))
    source = csv(path=write(text), target="y", columns={"y": asked} if asked else None)
    assert (source.info.target, source.info.class_names) == (kind, names)
    if kind == "values":
        assert source.train.targets.shape == (len(cells), 1)
        assert source.train.targets.dtype == np.float32
        assert source.train.targets[1, 0] == float(cells[1])


def test_several_targets_are_labels_or_values(write):
    path = write("x,a,b\n1,0,1\n2,1,1\n3,1,0\n")
    labels = csv(path=path, target=["a", "b"])
    assert labels.info.target == "labels"
    assert labels.train.targets.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert csv(path=path, target=["a", "b"], columns={"a": "numeric"}).info.target == "values"
    assert csv(path=write("x,a,b\n1,0,1\n2,1,2\n3,1,0\n"), target=["a", "b"]).info.target == "values"
    assert "train.csv:3 b: 'yes'" in refusal(write("x,a,b\n1,0,1\n2,1,yes\n3,1,0\n"), target=["a", "b"])


def test_rows_without_target_are_left_out_and_counted(write):
    source = csv(path=write(PEOPLE + "30,Rome,\n31,Oslo,?\n"), target="income")
    assert len(source.train) == 4
    assert any("left out 2 rows without income (lines 6, 7)" in note for note in source.info.notes)


def test_test_file(write):
    test = write("income,extra,city,age\nhigh,1,Bern,60\nlow,1,,?\n", "test.csv")
    source = csv(path=write(PEOPLE), target="income", test_path=test)
    assert list(source.test.inputs) == list(source.train.inputs)
    assert column(source.test, "city") == ["Bern", ""]
    assert source.test.targets.tolist() == [0, 1]
    assert source.info.fingerprint != csv(path=write(PEOPLE), target="income").info.fingerprint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("city,income\nRome,low\n", ["test.csv:1: no column 'age'"]),
        (PEOPLE.replace("Oslo,high", "Oslo,hihg"), ["test.csv:3, 5 income: hihg is no class", "high, low"]),
        (PEOPLE.replace("28", "old"), ["test.csv:4 age: 'old'"]),
        (PEOPLE, ["copy"]),
    ],
)
def test_test_file_that_does_not_fit(write, text, parts):
    message = refusal(write(PEOPLE), test_path=write(text, "test.csv"))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("age,income\n", ["no data rows"]),
        ("age,city,income\n1,a,low\n2,b\n3,c,high,x\n", ["train.csv:3: 2 cells", "train.csv:4: 4 cells"]),
        (
            "age,age,income\n1,2,low\n3\n",
            ["2 columns are named 'age'", "train.csv:3: 1 cells"],
        ),  # both at once
        (PEOPLE.replace("income", "Income"), ["did you mean 'Income'"]),
        (PEOPLE.split("\n", 1)[1], ["no column 'income'", "looks like data (39)", "header row"]),
        (PEOPLE.replace("28", "inf"), ["train.csv:4 age: inf is infinite"]),
        (PEOPLE.replace("28", "1e39"), ["train.csv:4 age: 1e39"]),
        (PEOPLE.replace("high", "low"), ["income: every row has the target 'low'"]),
        ("age,income\n1,\n2,?\n", ["every row lacks income"]),
        ("income\nlow\nhigh\n", ["only one column", "delimiter"]),
        ("a,income\nx,low\nx,high\n", ["no input column", "constant"]),
        ('age,income\n1,low\n2,"high\n', ["train.csv:3: the row that begins here is broken"]),
        (b"PK\x03\x04 and more", ["Excel"]),
        (b"age,income\n1,\x00low\n", ["train.csv:2: zero bytes"]),
        (b"age,income\n1,\x00low\n" * 2, ["train.csv:2: zero bytes"]),
    ],
)
def test_refused_files(write, text, parts):
    message = refusal(write(text))
    for part in parts:
        assert part in message


def test_several_faults_are_reported_at_once(write):
    message = refusal(write("a,b,income\ninf,1,low\n2,x,low\n"), columns={"b": "numeric"})
    assert "train.csv:2 a: inf" in message
    assert "train.csv:3 b: 'x'" in message
    assert "every row has the target" in message


def test_few_words_among_numbers_are_faults_not_categories(write):
    rows = [f"{i * 1.5},{'pq'[i % 2]}" for i in range(60)]
    rows[7] = "unknown,p"
    message = refusal(write("x,income\n" + "\n".join(rows)))
    assert "train.csv:9 x: 'unknown' is no number" in message
    assert "columns: {x: categorical}" in message


def test_unknown_names_in_columns(write):
    assert "no column 'Age' in the header; did you mean 'age'" in refusal(
        write(PEOPLE), columns={"Age": "ignore"}
    )


def test_identifiers_are_no_classes(write):
    text = "x,income\n" + "\n".join(f"{i % 5},person {i}" for i in range(40))
    assert "too many classes" in refusal(write(text))


def test_paths_that_are_no_files(write, tmp_path):
    write(PEOPLE)
    assert "did you mean 'train.csv'" in refusal(tmp_path / "trian.csv")
    assert "a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in refusal(tmp_path / "pipe.csv")


def test_wide_tables(write):
    header = ",".join([*(f"pixel {i}" for i in range(10_000)), "y"])
    rows = "\n".join(
        ",".join([*(str(i % 7 + row) for i in range(10_000)), "ab"[row % 2]]) for row in range(4)
    )
    source = csv(path=write(f"{header}\n{rows}\n"), target="y")
    assert source.info.input_shape == (10_000,)
    assert max(len(note) for note in source.info.notes) < 500


def test_read_inputs_needs_no_labels(write):
    path = write("city;other;age\nRome;x;3,5\n;y;?\n", "new.csv")
    inputs = read_inputs(path, ["age"], ["city"])
    np.testing.assert_array_equal(inputs[input_name("age")], np.array([[3.5], [np.nan]], np.float32))
    assert inputs[input_name("city")].tolist() == [["Rome"], [""]]
    assert set(inputs) == {input_name("age"), input_name("city")}


def test_read_inputs_names_what_does_not_fit(write):
    path = write("age,city\nold,Rome\n", "new.csv")
    with pytest.raises(DataError, match=r"new.csv:1: no column 'Age' .*did you mean 'age'"):
        read_inputs(path, ["Age"], ["city"])
    with pytest.raises(DataError, match=r"new.csv:2 age: 'old'"):
        read_inputs(path, ["age"], ["city"])
