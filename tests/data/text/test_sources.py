"""Folders, tables, pairs and corpora of text: what is read, what is left out, and what is refused where."""

import csv
import tracemalloc

import numpy as np
import pytest

from dlcli.data.load import split_indices
from dlcli.data.text.file import LONGEST_PIECE, PIECE, text_file
from dlcli.data.text.folder import text_folder
from dlcli.data.text.pairs import pairs
from dlcli.data.text.rows import is_quoted
from dlcli.data.text.table import text_csv
from dlcli.errors import DataError
from dlcli.recipe.load import PATHS

REVIEWS = {"neg": ["dull", "a bore"], "pos": ["fine", "  great\nfun \n"]}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_classes(folder, classes=REVIEWS, mark=""):
    for name, texts in classes.items():
        for number, text in enumerate(texts):
            write(folder / name / f"{number}.txt", text + mark)
    return folder


def texts_of(examples, column="text"):
    return list(examples.columns[column])


def refusal(build, **arguments):
    with pytest.raises(DataError) as raised:
        build(**arguments)
    return str(raised.value)


def noted(source, part):
    return any(part in note for note in source.info.notes)


# Folders


def test_flat_class_folders(tmp_path):
    source = text_folder(path=write_classes(tmp_path))
    assert texts_of(source.train) == [
        "dull",
        "a bore",
        "fine",
        "great\nfun",
    ]  # only surrounding space is dropped
    assert source.train.targets.tolist() == [0, 0, 1, 1]
    assert source.train.targets.dtype == np.int32
    info = source.info
    assert (info.kind, info.input_shape, info.target) == ("text", (), "classes")
    assert info.class_names == ("neg", "pos")
    assert source.preprocess is source.test is source.validation is None
    assert noted(source, "no test split")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_splits_in_folders(tmp_path, name):
    for split in ("train", name, "test"):
        write_classes(tmp_path / split, mark=f" {split}")
    write_classes(tmp_path / "drafts")
    source = text_folder(path=tmp_path)
    assert texts_of(source.train)[0] == "dull train"
    assert texts_of(source.validation)[0] == f"dull {name}"
    assert texts_of(source.test)[3].endswith("test")
    assert source.test.targets.tolist() == [0, 0, 1, 1]
    assert noted(source, "not read: drafts")


def test_test_path_of_folders(tmp_path):
    train, test = write_classes(tmp_path / "a"), write_classes(tmp_path / "b", mark=" indeed")
    source = text_folder(path=train, test_path=test)
    assert texts_of(source.test)[0] == "dull indeed"
    assert "path itself" in refusal(text_folder, path=train, test_path=train)
    write_classes(tmp_path / "splits" / "train")
    write_classes(tmp_path / "splits" / "test", mark="!")
    assert "keep one" in refusal(text_folder, path=tmp_path / "splits", test_path=test)
    assert "no such folder" in refusal(text_folder, path=train, test_path=tmp_path / "nowhere")
    write(test / "new" / "0.txt", "unheard of")
    assert "'new' is not under" in refusal(text_folder, path=train, test_path=test)


def test_copied_test_documents_are_refused_or_counted(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test")
    assert "every test document is a copy" in refusal(text_folder, path=tmp_path)
    write(tmp_path / "test" / "neg" / "0.txt", "another one")
    assert noted(text_folder(path=tmp_path), "3 of 4 test documents are copies")


def test_other_files_are_ignored_and_counted(tmp_path):
    write_classes(tmp_path)
    write(tmp_path / "pos" / ".hidden.txt", "no")
    write(tmp_path / "pos" / "notes.md", "no")
    write(tmp_path / "pos" / "deeper" / "LAST.TXT", "yes")
    write(tmp_path / ".git" / "0.txt", "no")
    source = text_folder(path=tmp_path)
    assert texts_of(source.train)[-1] == "yes"
    assert source.info.class_names == ("neg", "pos")
    assert noted(source, "2 files ignored (1 hidden or system file, 1 not named .txt)")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "no class folders"),
        ({"pos": ["fine"]}, "only one class"),
        ({"pos": ["fine"], "neg": []}, "no .txt files for the class neg"),
        ({"pos": ["fine"], "neg": [" \n\t "]}, "class 'neg' has no text left"),
    ],
)
def test_folders_that_teach_nothing_are_refused(tmp_path, classes, message):
    write_classes(tmp_path, classes)
    for name in classes:
        (tmp_path / name).mkdir(exist_ok=True)
    assert message in refusal(text_folder, path=tmp_path)


def test_folder_fingerprint_follows_names_and_contents(tmp_path):
    first = text_folder(path=write_classes(tmp_path / "a")).info.fingerprint
    assert text_folder(path=write_classes(tmp_path / "b")).info.fingerprint == first
    path = write(tmp_path / "b" / "neg" / "0.txt", "dumb")
    assert text_folder(path=tmp_path / "b").info.fingerprint != first
    path.write_text("dull")
    path.rename(path.with_name("00.txt"))
    assert text_folder(path=tmp_path / "b").info.fingerprint != first


# Tables


def test_quoted_csv_with_line_breaks(tmp_path):
    rows = [
        ("pos", 'He said: "yes",\nthen left'),
        ("neg", "  No, never; not\tme "),
        ("pos", "Ja\r\nund\u2028nein"),
    ]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "review"), *rows])
    source = text_csv(path=tmp_path / "t.csv", text="review", target="label")
    assert texts_of(source.train) == [text.strip() for _, text in rows]
    assert source.info.class_names == ("neg", "pos")
    assert source.train.targets.tolist() == [1, 0, 1]
    assert source.info.target == "classes"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_the_one_with_which_the_header_fits(tmp_path, delimiter):
    other = ";" if delimiter == "," else ","
    lines = [("y", "text"), ("a", f"one{other} two{other} three"), ("b", f"four{other} five{other} six")]
    path = write(tmp_path / "t.txt", "\n".join(delimiter.join(line) for line in lines))
    source = text_csv(path=path, text="text", target="y")
    assert texts_of(source.train) == [line[1] for line in lines[1:]]
    assert text_csv(path=path, text="text", target="y", delimiter=delimiter).train.targets.tolist() == [0, 1]


def test_several_targets_are_labels(tmp_path):
    path = write(tmp_path / "t.csv", "text,rude,long\na,0,1\nb,1,1\nc,0,0\n")
    source = text_csv(path=path, text="text", target=["rude", "long"])
    assert (source.info.target, source.info.class_names) == ("labels", ("rude", "long"))
    np.testing.assert_array_equal(source.train.targets, np.array([[0, 1], [1, 1], [0, 0]], np.float32))
    kept, held_out = split_indices(source.train.targets, 0.34, 0, source.info)
    assert sorted([*kept, *held_out]) == [0, 1, 2]
    write(path, "text,rude,long\na,0,1\nb,3,1\nc,0,0\n")
    assert "0 and 1 only" in refusal(text_csv, path=path, text="text", target=["rude", "long"])


def test_rows_without_text_or_label_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "t.csv", 'y,text\na,one\nb,"  "\n,three\nb,four\nNA,five\n')
    source = text_csv(path=path, text="text", target="y")
    assert texts_of(source.train) == ["one", "four"]
    assert noted(source, "left out 1 rows with an empty text (lines 3)")
    assert noted(source, "left out 2 rows without y (lines 4, 6)")
    assert "every row has an empty text" in refusal(
        text_csv, path=write(path, "y,text\na,\nb,\n"), text="text", target="y"
    )
    assert "every row lacks y" in refusal(
        text_csv, path=write(path, "y,text\n,one\n,two\n"), text="text", target="y"
    )


def test_test_tables_hold_the_same_classes(tmp_path):
    train = write(tmp_path / "train.csv", "y,text\na,one\nb,two\nc,three\n")
    test = write(tmp_path / "test.csv", "text,y\nfour,b\n,a\nfive,c\n")
    source = text_csv(path=train, test_path=test, text="text", target="y")
    assert source.test.targets.tolist() == [1, 2]
    assert noted(source, "no row of 1 classes (a)")
    write(test, "y,text\nB,four\n")
    message = refusal(text_csv, path=train, test_path=test, text="text", target="y")
    assert "test.csv:2" in message
    assert "no class that was trained on" in message
    write(test, train.read_bytes())
    assert "test_path is a copy of path" in refusal(
        text_csv, path=train, test_path=test, text="text", target="y"
    )


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        ("y,txt\na,one\nb,two\n", "y", "no column 'text' in the header; did you mean 'txt'?"),
        ("words\na\n", "y", "only one column was found"),
        ("y,text,text\na,b,c\n", "y", "2 columns are named 'text'"),
        ("y,text\na,one\na,two\n", "y", "nothing to learn"),
        ("y,text\n", "y", "no data rows"),
        ("y,text\na,one\nb,two, three\n", "y", "t.csv:3: 3 cells where the header has 2 columns"),
        ('y,text\na,one\nb,"two\nc,three\n', "y", "t.csv:3: the row that begins here is broken"),
        ('y,text\na,"one" and\n', "y", "is a quote not closed, or not doubled?"),
        ("y,text\na,one\n", "text", "expected columns that differ"),
        ("y,text\na,one\n", [], "expected columns that differ"),
    ],
)
def test_faults_of_tables_are_named(tmp_path, content, target, message):
    assert message in refusal(text_csv, path=write(tmp_path / "t.csv", content), text="text", target=target)


def test_plain_tsv_keeps_its_quote_marks(tmp_path):
    """Each of these would be swallowed, or refused, by a reader that honours quotes."""
    texts = ['"half a quote', 'a "word" here', '"all of it"', 'the end"', "it's, 5\" wide"]
    lines = "".join(f"{'ab'[index % 2]}\t{text}\n" for index, text in enumerate(texts))
    source = text_csv(path=write(tmp_path / "t.tsv", "y\ttext\n" + lines), text="text", target="y")
    assert texts_of(source.train) == texts
    assert noted(source, "quote marks are read as text")


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("text", ["over\ntwo lines", "with\ttab", 'said "so"', "plain, really"])
def test_quoted_tsv_is_read_as_its_writer_meant(tmp_path, quoting, text):
    with (tmp_path / "t.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=quoting).writerows([("y", "text"), ("a", text), ("b", "x")])
    source = text_csv(path=tmp_path / "t.tsv", text="text", target="y")
    assert texts_of(source.train) == [text, "x"]
    assert not noted(source, "quote marks")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("y\tt\na\tb\n", False),
        ('y\tt\na\t"b"\n', False),  # every line fits, no mark is doubled: somebody's words
        ('"y"\t"t"\n"a"\t"b"\n', True),
        ('y\tt\na\t"b ""c"""\n', True),
        ('y\tt\na\t"b\nc"\n', True),
        ('y\tt\na\t"b\nc" d\n', False),
        ('y\tt\na\t"b\n', False),
        ('"y"\t"t"\na\tsays "b"\n', False),
        ('y\tt\na\t"one\nb\ttwo"\n', False),  # two lines that fit, not one cell over both
    ],
)
def test_which_tabs_come_with_quotes(text, quoted):
    assert is_quoted(text) is quoted


def test_ten_megabytes_in_a_cell(tmp_path):
    path = write(tmp_path / "t.csv", 'y,text\na,"' + "word \n" * 1_700_000 + '"\nb,short\n')
    limit = csv.field_size_limit(1234)
    try:
        source = text_csv(path=path, text="text", target="y")
        assert csv.field_size_limit() == 1234
    finally:
        csv.field_size_limit(limit)
    assert len(source.train.columns["text"][0]) == 1_700_000 * 6 - 2


def test_lines_end_at_line_ends_only_and_are_counted(tmp_path):
    path = write(tmp_path / "t.csv", 'y,text\na,"one\ntwo"\nb,\nb,form\ffeed\u2028and\x85more\n')
    source = text_csv(path=path, text="text", target="y")
    assert texts_of(source.train) == ["one\ntwo", "form\ffeed\u2028and\x85more"]
    assert noted(source, "an empty text (lines 4)")


def test_names_of_columns_may_hold_other_delimiters(tmp_path):
    path = write(tmp_path / "t.txt", "yes, or no\ttext; or so\na\tone\nb\ttwo\n")
    source = text_csv(path=path, text="text; or so", target="yes, or no")
    assert texts_of(source.train) == ["one", "two"]


# Pairs


def test_pairs(tmp_path):
    train = write(tmp_path / "train.tsv", "en\tde\tfr\nA man.\tEin Mann.\tx\nTwo.\t \ty\nThree.\tDrei.\tz\n")
    validation = write(tmp_path / "val.tsv", "en\tde\nOne.\tEins.\n")
    test = write(tmp_path / "test.csv", 'de,en\n"Ja, so.","Yes, so."\n')
    arguments = {"path": train, "source": "de", "target": "en", "validation_path": validation}
    source = pairs(**arguments, test_path=test)
    assert texts_of(source.train, "source") == ["Ein Mann.", "Drei."]
    assert texts_of(source.train, "target") == ["A man.", "Three."]
    assert texts_of(source.validation, "target") == ["One."]
    assert texts_of(source.test, "source") == ["Ja, so."]
    assert (source.info.kind, source.info.target) == ("pairs", "text")
    assert source.train.targets.tolist() == [0, 0]
    assert noted(source, "left out 1 rows with an empty de, en (lines 3)")
    copy = write(tmp_path / "copy.tsv", validation.read_bytes())
    assert "test_path is a copy of validation_path" in refusal(pairs, **arguments, test_path=copy)
    assert pairs(**arguments, test_path=test).info.fingerprint == source.info.fingerprint
    assert pairs(**arguments).info.fingerprint != source.info.fingerprint


def test_faults_of_pairs_are_named_together(tmp_path):
    train = write(tmp_path / "train.csv", "source,targets\na,b\n")
    message = refusal(pairs, path=train, validation_path=tmp_path / "trian.csv")
    assert "no column 'target' in the header; did you mean 'targets'?" in message
    assert "trian.csv: no such file; did you mean 'train.csv'?" in message
    assert "another column" in refusal(pairs, path=train, source="a", target="a")


def test_every_path_of_a_source_is_made_absolute():
    assert {"path", "test_path", "validation_path"} <= {*PATHS}


# Corpora


def joined(examples):
    texts = examples.columns["text"]
    assert (texts.starts[1:] == texts.ends[:-1]).all()  # nothing is lost between pieces
    return "".join(texts)


def test_corpus_is_cut_at_line_ends(tmp_path):
    text = "".join(f"line {number}, ärgerlich lang {'x' * (number % 90)}\n" for number in range(20_000))
    source = text_file(path=write(tmp_path / "c.txt", text))
    assert joined(source.train) == text
    texts = texts_of(source.train)
    assert all(piece.endswith("\n") for piece in texts)
    lengths = [len(piece.encode()) for piece in texts[:-1]]
    assert min(lengths) > 0.3 * PIECE
    assert max(lengths) < PIECE + 200
    assert isinstance(source.train.columns["text"].data, np.memmap)
    info = source.info
    assert (info.kind, info.target, info.continuous) == ("text", "text", True)
    assert source.train.targets.dtype == np.int32
    kept, held_out = split_indices(source.train.targets, 0.1, 0, info)
    assert held_out[0] == kept[-1] + 1
    assert held_out[-1] == len(texts) - 1


@pytest.mark.parametrize("lines", [50, 75, 300, 1000])
def test_small_corpus_has_pieces_to_hold_out(tmp_path, lines):
    text = "\n".join(f"line {number}" for number in range(lines))
    source = text_file(path=write(tmp_path / "c.txt", text))
    assert len(source.train) >= 50
    assert joined(source.train) == text


@pytest.mark.parametrize(
    ("unit", "at_spaces"), [("wörter ", True), ("没有空格的字", False), ("\U0001f600", False), ("x", False)]
)
def test_one_long_line_is_cut_between_words_or_characters(tmp_path, unit, at_spaces):
    text = unit * (10_000_000 // len(unit.encode()))
    source = text_file(path=write(tmp_path / "c.txt", text))
    texts = source.train.columns["text"]
    assert (texts.ends - texts.starts).max() <= LONGEST_PIECE
    assert len(texts) > 300
    assert "\ufffd" not in (whole := joined(source.train))
    assert whole == text
    assert all(piece.endswith(" ") for piece in texts) == at_spaces


def test_short_line_without_an_end(tmp_path):
    source = text_file(path=write(tmp_path / "c.txt", "all in one line " * 20))
    assert len(source.train) >= 8
    assert joined(source.train) == "all in one line " * 20


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    with (tmp_path / "c.txt").open("w") as file:
        for number in range(500):
            file.write(f"line {number} of a hundred thousand characters\n" * 2500)
    size = (tmp_path / "c.txt").stat().st_size
    assert size > 50e6
    tracemalloc.start()
    try:
        source = text_file(path=tmp_path / "c.txt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert source.train.columns["text"].ends[-1] == size


def test_folder_of_text_files_is_one_corpus(tmp_path):
    write(tmp_path / "b.txt", "second\n")
    write(tmp_path / "a.txt", b"\xef\xbb\xbffirst")
    write(tmp_path / "c" / "d.txt", "third")
    write(tmp_path / "z.txt", "\n \n" * 100)
    write(tmp_path / "readme.md", "no")
    source = text_file(path=tmp_path)
    assert joined(source.train) == "first\nsecond\nthird\n"
    assert noted(source, "left out 1 files")
    assert noted(source, "1 not named .txt")
    assert isinstance(source.train.columns["text"].data, np.memmap)


def test_corpus_test_path(tmp_path):
    train, test = write(tmp_path / "a.txt", "one\ntwo\n"), write(tmp_path / "b.txt", "three\n")
    source = text_file(path=train, test_path=test)
    assert joined(source.test) == "three\n"
    assert source.info.fingerprint != text_file(path=train).info.fingerprint
    # The same text in another encoding is a copy as well.
    write(test, "one\ntwo\n".encode("utf-16"))
    assert "test_path is a copy of path" in refusal(text_file, path=train, test_path=test)
