"""Tagged words in columns: what is read and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlcli.data.text.conll import conll
from dlcli.errors import DataError

TRAIN = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n"


def write(folder: Path, text: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_sentences_words_and_tags(tmp_path: Path) -> None:
    path = write(tmp_path, TRAIN)
    source = conll(path=path, test_path=path, validation_path=path)
    assert (source.info.kind, source.info.target) == ("tagged", "tags")
    assert source.info.class_names == ("O", "B-ORG", "B-PER", "I-PER")
    assert source.train.read([0, 1]) == {
        "words": ["EU rejects", "Peter Blackburn"],
        "tags": ["B-ORG O", "B-PER I-PER"],
    }
    assert source.train.targets.tolist() == [0, 0]
    assert source.test is not None
    assert source.validation is not None
    assert any("2 sentences, 4 words, 4 tags" in note for note in source.info.notes)


def test_another_column_can_hold_the_tags(tmp_path: Path) -> None:
    for column in (1, -2):
        source = conll(path=write(tmp_path, TRAIN), tag_column=column)
        assert source.info.class_names == ("NNP", "VBZ")


@pytest.mark.parametrize(
    "text",
    [
        "a\tX\nb\tO\n\nc\tX",  # tabs, no line end at the end
        "a  X\r\nb \t O\r\n\r\n\r\n \t\r\nc X\r\n\r\n",  # Windows line ends, several blank ones, blanks in them
        "\ufeffa X\nb O\n\nc X\n",  # byte order mark
    ],
)
def test_forms_of_the_same_file(text: str, tmp_path: Path) -> None:
    source = conll(path=write(tmp_path, text))
    assert source.train.read([0, 1]) == {"words": ["a b", "c"], "tags": ["X O", "X"]}


def test_only_tabs_spaces_and_line_ends_separate(tmp_path: Path) -> None:
    source = conll(path=write(tmp_path, "10\u00a0000 X\nx\u2028y O\n北\u3000京 O\n"))
    assert source.train.read([0])["words"] == ["10\u00a0000 x\u2028y 北\u3000京"]


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "北京 LOC\n去 O\n".encode("gb18030"))
    assert conll(path=path, encoding="gb18030").train.read([0])["words"] == ["北京 去"]
    with pytest.raises(DataError, match="encoding: gb18030"):
        conll(path=path)
    with pytest.raises(DataError, match="encoding 'utf8-8' is unknown"):
        conll(path=path, encoding="utf8-8")


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a X\nb O\nc\nd O Z\n", -1, r"train.txt:3: 1 columns, where line 1 has 2\n.*train.txt:4: 3 columns"),
        ("a X\nb X\n", -1, "every word has the tag 'X'"),
        ("a\nb\n", -1, "train.txt:1: one column only"),
        ("a X\nb O\n", 2, "tag_column 2 is none of the 2 columns; allowed: 1 to 1, or -1 to -1"),
        ("a X\nb O\n", 0, "tag_column 0 is none of the 2 columns"),
        ("a X\nb O\n", -2, "tag_column -2 is none of the 2 columns"),
        ("a\tX\nb c\tO\n", -1, "train.txt:2: a word or a tag is empty or holds a space"),
        ("a\tX\n\tO\n", -1, "train.txt:2: a word or a tag is empty or holds a space"),
        ("-DOCSTART- O\n\n", -1, "no words"),
        ("", -1, "no words"),
    ],
)
def test_faults_are_named_by_line(text: str, column: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        conll(path=write(tmp_path, text), tag_column=column)


def test_many_ragged_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="30 lines in all"):
        conll(path=write(tmp_path, "a X\n" + "b\n" * 30))


def test_a_tag_that_the_train_file_lacks_is_refused(tmp_path: Path) -> None:
    train, test = write(tmp_path, TRAIN), write(tmp_path, "a N O\nb N B-MISC\n", "test.txt")
    with pytest.raises(
        DataError, match=r"test.txt:2: tag 'B-MISC' is not in the train file; it has: O, B-ORG"
    ):
        conll(path=train, test_path=test)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is a folder"):
        conll(path=tmp_path)
