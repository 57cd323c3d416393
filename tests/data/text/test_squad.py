"""SQuAD files: what is read, what is repaired, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlcli.data.text.squad import nearest_occurrence, squad
from dlcli.errors import DataError

CONTEXT = "Rome is old. Oslo is cold, and Rome is warm."


def write(path: Path, *qas: dict[str, Any], context: Any = CONTEXT) -> Path:
    content = {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(qas)}]}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def question(text: str, *answers: tuple[str, Any], **more: Any) -> dict[str, Any]:
    found = [{"text": answer, "answer_start": start} for answer, start in answers]
    return {"id": f"id-{text[:4]}", "question": text, "answers": found, **more}


def test_questions_contexts_all_answers_and_the_first_ones_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        question("What is cold?", ("Oslo", 13), ("Oslo is", 13)),
        question("Old?", ("Rome", 0)),
    )
    source = squad(path=path, test_path=path)
    assert (source.info.kind, source.info.target, source.info.input_shape) == ("questions", "spans", ())
    assert source.preprocess is None
    assert source.train.targets.dtype == np.int32
    assert source.train.targets.tolist() == [[13, 17], [0, 4]]
    rows = source.train.read([0, 1])
    assert rows["question"] == ["What is cold?", "Old?"]
    assert rows["context"] == [CONTEXT, CONTEXT]
    assert [json.loads(answers) for answers in rows["answers"]] == [["Oslo", "Oslo is"], ["Rome"]]
    assert source.train.columns["context"].data.nbytes == len(CONTEXT), "a shared context is stored once"
    assert source.test is not None
    assert source.validation is None


def test_places_count_characters_not_bytes(tmp_path: Path) -> None:
    context = "Zoë 北京 saw Bonn."
    path = write(tmp_path / "a.json", question("Where?", ("Bonn", 11)), context=context)
    start, end = squad(path=path).train.targets[0]
    assert context[start:end] == "Bonn"


def test_an_answer_elsewhere_is_found_at_its_nearest_place_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", question("Where?", ("Rome", 28)), question("Cold?", ("Oslo", -1)))
    source = squad(path=path)
    assert source.train.targets.tolist() == [[31, 35], [13, 17]]
    assert any("2 answers did not stand at their answer_start" in note for note in source.info.notes)


@pytest.mark.parametrize(("wanted", "expected"), [(0, 0), (3, 0), (6, 9), (8, 9), (99, 9), (-5, 0)])
def test_nearest_occurrence(wanted: int, expected: int) -> None:
    assert nearest_occurrence("ab", "ab.......ab", wanted) == expected


def test_questions_without_an_answer(tmp_path: Path) -> None:
    impossible = {
        "id": "9",
        "question": "Why?",
        "is_impossible": True,
        "plausible_answers": [],
        "answers": [],
    }
    source = squad(
        path=write(tmp_path / "a.json", impossible, question("Empty?"), question("Old?", ("Rome", 0)))
    )
    assert source.train.targets.tolist() == [[-1, -1], [-1, -1], [0, 4]]
    assert source.train.read([0])["answers"] == ["[]"]
    assert any("2 of them have no answer" in note for note in source.info.notes)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            question("Nowhere?", ("Lima", 3)),
            r"qas\[0\] \(id id-Nowh\).answers\[0\]: the answer 'Lima' stands nowhere",
        ),
        (question("Where?", ("Rome", "0")), "answer_start must be a whole number. Received: '0'"),
        (question("Where?", ("Rome", True)), "answer_start must be a whole number. Received: True"),
        (question("Where?", ("", 3)), r"answers\[0\]: text is empty"),
        (question("  ", ("Rome", 0)), "question is empty"),
        ({"id": "7", "question": "Where?"}, r"\(id 7\).answers: missing"),
        ({"id": "7", "answers": []}, r"\(id 7\): question is missing"),
        ({"id": "7", "question": "Where?", "answers": ["Rome"]}, r"answers\[0\]: text is missing"),
        ({"id": "7", "question": "Where?", "answers": {"text": ["Rome"]}}, "answers: no list but"),
    ],
)
def test_a_broken_question_is_named(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", broken)
    with pytest.raises(DataError, match=message) as refused:
        squad(path=path)
    assert f"{path}: data[0].paragraphs[0]" in str(refused.value)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        squad(path=write(tmp_path / "a.json", question("A?", ("x", 0)), question("B?", ("y", 0))))
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [\n  {"title" "t"}]}', r"a.json:2:12: this is no JSON"),
        ("[1, 2]", "expected a JSON object with the key data"),
        ('{"data": []}', "no questions"),
        ('{"data": [{"title": "t"}]}', r"data\[0\].paragraphs: missing"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\].paragraphs\[0\]: context is missing"),
        ('{"data": [{"paragraphs": [3]}]}', r"paragraphs\[0\]: expected an object"),
        ("", "the file is empty"),
        ("[" * 100_000, "no SQuAD file"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        squad(path=tmp_path / "a.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.json", question("Old?", ("Rome", 0)))
    with pytest.raises(DataError, match=r"no such file; did you mean 'train.json'"):
        squad(path=tmp_path / "trian.json")
    with pytest.raises(DataError, match="this is a folder"):
        squad(path=tmp_path)


def test_the_fingerprint_is_of_every_file(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", question("Old?", ("Rome", 0)))
    b = write(tmp_path / "b.json", question("Cold?", ("Oslo", 13)))
    prints = {
        squad(path=a).info.fingerprint,
        squad(path=b).info.fingerprint,
        squad(path=a, test_path=b).info.fingerprint,
    }
    assert len(prints) == 3
