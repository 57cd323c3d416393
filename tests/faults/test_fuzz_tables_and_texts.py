"""Damaged tables and texts, through every source that reads them and every tokenizer.

`dlcli data check` reads each as training would: it ends with exit code 0, 2 or 3 and without a traceback. What it
accepts becomes numbers that are finite, and a corpus loses no character.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from fuzzing import EVERY_TIME, flip_bit
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from dlcli.data import TOKENIZERS
from dlcli.data.load import load_data
from dlcli.data.text.reading import encoding_of_mark
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe

ROWS = [
    (index, 20 + index % 7, ["red", "green", "blue"][index % 3], 1.5 * index, ["yes", "no"][index % 2])
    for index in range(24)
]
TABLE = "id,age,colour,income,bought\n" + "".join(f"{a},{b},{c},{d},{e}\n" for a, b, c, d, e in ROWS)
GERMAN = TABLE.replace(".", "§").replace(",", ";").replace("§", ",")
QUOTED = 'name,"the, text",label\n' + "".join(f'"a ""{a}""","line\nand, {c}",{e}\n' for a, _, c, _, e in ROWS)
LABELS = "x,y,a,b\n" + "".join(f"{a},{d},{a % 2},{b % 2}\n" for a, b, _, d, _ in ROWS)
REVIEWS = "text\tlabel\n" + "".join(f"a {c} film, number {a}; 中文 😀\t{e}\n" for a, _, c, _, e in ROWS)
PAIRS = "source\ttarget\n" + "".join(f"ein {c} Hund {a}\ta {c} dog {a}\n" for a, _, c, _, _ in ROWS)
TAGGED = "-DOCSTART- O\n\n" + "".join(
    f"{c} ADJ\nDr. Müller B-PER\ngoes O\n\n".replace("Dr. ", "Dr.") for _, _, c, _, _ in ROWS
)
CORPUS = "".join(
    f"First Citizen {a}:\nBefore we proceed, hear me; ﬁn é e\u0301 中文 😀\r\n" for a, *_ in ROWS
)
QUESTIONS = json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [
    {"context": f"The {c} dog é has {a} legs.", "qas": [
        {"id": str(a), "question": "How many legs?", "answers": [{"text": str(a), "answer_start": 15 + len(c)}]},
        {"id": f"{a}x", "question": "Why?", "is_impossible": True, "answers": []}]} for a, _, c, _, _ in ROWS[:6]]}]})  # fmt: skip

TABLES: list[tuple[str, dict[str, Any]]] = [
    (TABLE, {"target": "bought"}), (GERMAN, {"target": "income"}), (QUOTED, {"target": "label"}),
    (LABELS, {"target": ["a", "b"]}), (TABLE, {"target": "colour", "columns": {"age": "categorical", "id": "numeric"}}),
]  # fmt: skip
TEXTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("text_classification", "text_csv", REVIEWS, {"text": "text", "target": "label"}),
    ("text_classification", "text_csv", QUOTED, {"text": "the, text", "target": "label"}),
    ("text_classification", "text_folder", CORPUS, {}),
    ("translation", "pairs", PAIRS, {}),
    ("token_classification", "conll", TAGGED, {}),
    ("question_answering", "squad", QUESTIONS, {}),
    ("language_modeling", "text_file", CORPUS, {}),
    ("language_modeling", "text_file", CORPUS, {}),
]
ARCHITECTURES = {
    "text_classification": "text_cnn", "translation": "seq2seq_transformer", "language_modeling": "gpt",
    "token_classification": "bert", "question_answering": "bert",
}  # fmt: skip

SNIPPETS = [
    b"\0", b"\0" * 40, b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\x80", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n\r\n",
    b"\n" * 300, b",", b";", b"\t", b"|", b'"', b'""', b"'", b",,,,,", b"\x1a", b"\x0b\x0c\x1c\x1d\x1e", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xc2\xa0", b"\xe3\x80\x80", b"\xe2\x80\x8b" * 50, b"nan", b"inf", b"-inf", b"1e999", b"NA", b"?", b"-", b"1,5", b"1e-320", b"9" * 400,
    b"=cmd()", b"#", b"True", b"0", b"-1", b"3.7", b" ", b"  \t ", b"2020-01-01", b"12:30", b"a" * 140_000, b"a " * 5000, b"e\xcc\x81" * 99,
    "😀".encode() * 30, "\u202eabc".encode(), "中文字".encode(), "ไทย".encode(), "ﷺ".encode() * 20, "\ufffd\ufffe".encode(), b"<pad>", b"<unk><end>",
    b"##", "▁Ġ".encode(), b"\\ud800", b"\\u0000", b"null", b"{}", b"[]", b"[" * 3000, b"true", b"\x89PNG", b"PK\x03\x04", b"\x1f\x8b", b"target", b"O O",
]  # fmt: skip
ENCODINGS = [
    "utf-8", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1", "gb18030", "ascii", "idna", "punycode", "base64", "rot13", "hex", "zip",
    "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "cp037", "iso2022_jp", "utf-8-sig", "", "a\0b", "é", "x" * 300, "big5",
]  # fmt: skip
DELIMITERS = [",", ";", "\t", "|", " ", '"', "\n", "\r", "\\", "a", "é", "\0", "😀"]


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A file after some edits, in some encoding."""
    content = bytearray(
        text, draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"]))
    )
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 5]))):
        start = draw(st.integers(0, draw(st.sampled_from([40, len(content)]))))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 10, 60, 400])))
        edit = draw(
            st.sampled_from(
                ["flip", "insert", "insert", "replace", "delete", "repeat", "truncate", "noise", "everywhere"]
            )
        )
        if edit == "flip":
            flip_bit(draw, content, start)
        elif edit in ("insert", "replace"):
            content[start : end if edit == "replace" else start] = draw(st.sampled_from(SNIPPETS))
        elif edit == "delete":
            del content[start:end]
        elif edit == "repeat":
            content[start:start] = content[start:end] * draw(st.sampled_from([1, 3, 100]))
        elif edit == "truncate":
            del content[start:]
        elif edit == "noise":
            content[start:end] = draw(st.binary(max_size=50))
        elif edit == "everywhere" and end > start and end - start < 3:
            content = content.replace(content[start:end], draw(st.sampled_from(SNIPPETS))[:100])
    return bytes(content)


@st.composite
def arguments(draw: st.DrawFn, *, delimited: bool) -> dict[str, Any]:
    """Mostly none: what decides is the file."""
    found: dict[str, Any] = {}
    if draw(st.integers(0, 9)) == 9:
        found["encoding"] = draw(st.sampled_from(ENCODINGS))
    if delimited and draw(st.integers(0, 11)) == 11:
        found["delimiter"] = draw(st.sampled_from(DELIMITERS))
    return found


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A recipe without its path, and the file."""
    text, given_arguments = draw(st.sampled_from(TABLES))
    dataset = {"name": "csv", "validation_split": draw(st.sampled_from([0, 0.3])), **given_arguments}
    recipe = {"task": draw(st.sampled_from(["tabular_classification", "regression"])), "architecture": "mlp"}
    return recipe | {"dataset": dataset | draw(arguments(delimited=True))}, draw(damaged(text))


@st.composite
def texts(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A recipe without its path, and the file."""
    task, name, text, given_arguments = draw(st.sampled_from(TEXTS))
    tokenizer: dict[str, Any] = {"name": draw(st.sampled_from(sorted(TOKENIZERS)))}
    if tokenizer["name"] != "byte":
        tokenizer["vocabulary_size"] = draw(st.sampled_from([8, 30, 261, 300, 2000]))
    dataset = {
        "name": name,
        "tokenizer": tokenizer,
        "validation_split": draw(st.sampled_from([0, 0.3])),
        **given_arguments,
    }
    if name != "squad":
        dataset |= draw(arguments(delimited=name in ("text_csv", "pairs")))
    return {"task": task, "architecture": ARCHITECTURES[task], "dataset": dataset}, draw(damaged(text))


def check_file(run_dlcli: Any, root: Path, case: tuple[dict[str, Any], bytes]) -> Recipe | None:
    """What becomes of a file: the recipe where the file is accepted, None where it is refused in words."""
    recipe, content = case
    path = root / "recipe.yaml"
    if recipe["dataset"]["name"] == "text_folder":
        data = root / "texts"
        for number, name in enumerate(("yes/0.txt", "yes/1.txt", "no/0.txt", "no/1.txt")):
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(content if number < 2 else b"a text\n")
    else:
        data = root / "data"
        data.write_bytes(content)
    recipe = recipe | {"dataset": recipe["dataset"] | {"path": str(data)}}
    path.write_text(json.dumps(recipe), encoding="utf-8")
    outcome = run_dlcli("data", "check", path, seconds=20)
    outcome.check(0, 2, 3)
    return load_recipe(path) if outcome.code == 0 else None


def check_table(run_dlcli: Any, root: Path, case: tuple[dict[str, Any], bytes]) -> None:
    """An accepted table becomes finite numbers."""
    recipe = check_file(run_dlcli, root, case)
    if recipe is None or recipe.dataset.validation_split:
        return
    data = load_data(recipe)
    assert len(data.train)
    assert np.isfinite(np.asarray(data.train.targets, np.float64)).all()
    inputs = data.train.read(tf.range(len(data.train)))
    assert np.isfinite(np.asarray(data.preprocessing(inputs))).all()


def check_text(run_dlcli: Any, root: Path, case: tuple[dict[str, Any], bytes]) -> None:
    """An accepted corpus is kept as it is, and bytes are read back from their tokens."""
    recipe = check_file(run_dlcli, root, case)
    if recipe is None or recipe.dataset.validation_split:
        return
    data = load_data(recipe)
    found = [text for column in data.train.columns.values() for text in column]
    if recipe.dataset.name == "text_file":
        encoding = recipe.dataset.arguments["encoding"] or encoding_of_mark(case[1]) or "utf-8"
        assert "".join(found) == case[1].decode(encoding).removeprefix("\ufeff")
    if recipe.dataset.tokenizer.name == "byte":
        ids = data.info.tokenizer.encode(found)
        assert data.info.tokenizer.decode_batch(ids) == found


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("data")


@seed(7)
@settings(max_examples=25, phases=[Phase.generate, Phase.shrink], **EVERY_TIME)
@given(case=tables())
def test_damaged_tables(run_dlcli, new_folder, case):
    check_table(run_dlcli, new_folder(), case)


@seed(7)
@settings(max_examples=40, phases=[Phase.generate, Phase.shrink], **EVERY_TIME)
@given(case=texts())
def test_damaged_texts(run_dlcli, new_folder, case):
    check_text(run_dlcli, new_folder(), case)


@pytest.mark.slow
@seed(8)
@settings(max_examples=1000, phases=[Phase.generate, Phase.shrink], **EVERY_TIME)
@given(case=tables())
def test_a_thousand_damaged_tables(run_dlcli, new_folder, case):
    check_table(run_dlcli, new_folder(), case)


@pytest.mark.slow
@seed(8)
@settings(max_examples=1000, phases=[Phase.generate, Phase.shrink], **EVERY_TIME)
@given(case=texts())
def test_a_thousand_damaged_texts(run_dlcli, new_folder, case):
    check_text(run_dlcli, new_folder(), case)
