"""What a user may name for a model of texts."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from dlcli.errors import DataError
from dlcli.evaluation.text_inputs import NAME_LENGTH, TextForm, find_texts, form_of, with_context

TEXT = TextForm({"text": "text"})
QUESTIONS = TextForm({"question": "question", "context": "context"})


def found(*inputs, form=TEXT):
    return [(each.name, each.error or dict(each.texts)) for each in find_texts(map(str, inputs), form)]


def texts(*inputs, form=TEXT):
    return [each.texts.get("text") for each in find_texts(map(str, inputs), form)]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "reviews"
    (root / "b").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / "2.txt").write_text(" two\nlines \n", encoding="utf-8")
    (root / "1.TXT").write_bytes("\ufeffGrüße".encode("utf-16"))
    (root / "b" / "3.txt").write_text("three")
    (root / "b" / "notes.md").write_text("no text")
    (root / ".hidden" / "4.txt").write_text("four")
    (root / "b" / ".5.txt").write_text("five")
    return root


def test_a_file_is_one_document_and_a_folder_all_of_its_txt_files(folder):
    assert found(folder / "2.txt") == [(str(folder / "2.txt"), {"text": "two\nlines"})]
    assert texts(folder) == ["Grüße", "two\nlines", "three"]
    assert texts(folder / "b" / "notes.md") == ["no text"]  # named by the user, whatever its suffix
    assert texts(f"{folder}/*.txt", f"{folder}/**/3.txt") == ["two\nlines", "three"]


def test_anything_else_is_the_text_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert texts(" A wonderful film ", "Superb", "and / or", "see reviews.txt now", "好看", "x" * 5000) == [
        "A wonderful film", "Superb", "and / or", "see reviews.txt now", "好看", "x" * 5000,
    ]  # fmt: skip
    ((name, _),) = found("word " * 100)
    assert len(name) <= NAME_LENGTH and name.endswith("…")
    assert found("zero\0byte")[0][1] == {"text": "zero\0byte"}


def test_what_looks_like_a_path_is_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("no/where", "review.txt", "rows.TSV", "rows.csv", "/nowhere", "*.txt"):
        assert "no such file or folder" in found(name)[0][1]
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text(" \n")
    errors = dict(found("empty", "pipe.txt", "bad.txt", "blank.txt", "", "  "))
    assert errors["empty"] == "holds no .txt files"
    assert errors["pipe.txt"] == "is not a regular file"
    assert "is not UTF-8" in errors["bad.txt"]
    assert errors["blank.txt"] == errors["(empty)"] == "the text is empty"


def test_the_encoding_of_the_recipe_counts(tmp_path):
    (tmp_path / "x.txt").write_bytes("很好".encode("gb18030"))
    assert texts(tmp_path / "x.txt", form=TextForm({"text": "text"}, encoding="gb18030")) == ["很好"]


def test_rows_of_a_table(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('label,review\n1,"good, ""very""\ngood"\n0,\n')
    form = TextForm({"text": "review"})
    assert found(path, form=form) == [
        (f"{path} row 1", {"text": 'good, "very"\ngood'}),
        (f"{path} row 2", "the text is empty"),
    ]
    ((name, error),) = found(path)
    assert name == str(path) and "no column 'text'" in error and "label, review" in error
    (tmp_path / "x.tsv").write_text('text\tlabel\na "b\t1\n')
    assert texts(tmp_path / "x.tsv") == ['a "b']


def test_lines_of_stdin(monkeypatch):
    raw = "\ufeffgood\r\n\nno/where.txt\n".encode() + b"caf\xe9\n" + "好\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert found("-", "last") == [
        ("good", {"text": "good"}),
        ("line 2", "the text is empty"),
        ("no/where.txt", {"text": "no/where.txt"}),  # of stdin every line is a text
        ("line 4", "is not UTF-8"),
        ("好", {"text": "好"}),
        ("last", {"text": "last"}),
    ]


def test_questions_in_squads_form_in_tables_and_typed(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "It rains.", "qas": [{"id": "q1", "question": "What?"}]}]}]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(squad))
    both = {"question": "What?", "context": "It rains."}
    assert found(path, form=QUESTIONS) == [("q1", both)]
    (tmp_path / "x.csv").write_text("context,question\nIt rains.,What?\nIt rains.,\n")
    assert [each for _, each in found(tmp_path / "x.csv", form=QUESTIONS)] == [both, "the question is empty"]
    for wrong in ("[1]", '{"data": [{}]}', '{"data"'):
        path.write_text(wrong)
        assert "this is no" in found(path, form=QUESTIONS)[0][1]
    assert "--context" in found("What?", form=QUESTIONS)[0][1]
    (tmp_path / "x.txt").write_text("It rains.\n")
    for context in ("It rains.", str(tmp_path / "x.txt")):
        ((one, two)) = list(with_context(["What?", ""], context))
        assert (dict(one.texts), two.error) == (both, "the question is empty")
    with pytest.raises(DataError, match="no such file"):
        list(with_context(["What?"], "no/where.txt"))


def test_the_form_is_the_recipes():
    table = {"text": "review", "delimiter": "|", "encoding": "gb18030"}
    assert form_of("text_classification", "text_csv", table) == TextForm({"text": "review"}, "|", "gb18030")
    assert form_of("translation", "pairs", {"source": "de", "target": "en"}).columns == {"text": "de"}
    assert form_of("text_classification", "text_folder", {"path": "x"}).columns == {"text": "text"}
    assert form_of("question_answering", "squad", {}).columns == QUESTIONS.columns


def test_a_review_is_cleaned_as_the_data_set_does_it(tmp_path):
    (tmp_path / "x.txt").write_text("Good.<br /><br />Very. \n")
    form = form_of("text_classification", "imdb", {"path": None})
    assert [text.split() for text in texts(tmp_path / "x.txt", "Fine<br />too", form=form)] == [
        ["Good.", "Very."], ["Fine", "too"],
    ]  # fmt: skip
