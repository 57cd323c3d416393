"""`dlcli data check`, `preview`, `samples` and `dlcli plan` for recipes of texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.cli.data import app
from dlcli.data.check import check_data
from dlcli.data.load import load_data
from dlcli.data.preview import write_preview
from dlcli.data.samples import write_samples
from dlcli.data.text import preview
from dlcli.data.text.tokenizer import UNKNOWN
from dlcli.recipe.load import load_recipe
from dlcli.training import plan as plans
from dlcli.training.plan import make_plan, print_plan

TRAIN = [
    ("good film", "pos"), ("good film", "pos"), ("a film so good it is long and long and long", "pos"),
    ("bad film", "neg"), ("bad film", "pos"), ("a bad film", "neg"), ("film", "neg"), ("good", "pos"),
]  # fmt: skip
TEST = [("good film", "pos"), ("awful plot", "neg"), ("bad", "neg"), ("good", "neg")]


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    train, test = table(tmp_path / "train.tsv", TRAIN), table(tmp_path / "test.tsv", TEST)
    content = {
        "task": "text_classification",
        "dataset": {
            "name": "text_csv", "path": str(train), "test_path": str(test), "text": "text", "target": "label",
            "tokenizer": "word", "max_length": 5, "validation_split": 0,
        },
        "architecture": {"name": "fasttext", "buckets": 10, "embedding_width": 4, "ngrams": 1},
        "training": {"batch_size": 4, "epochs": 2},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    return tmp_path / "recipe.yaml"


@pytest.fixture
def recipe(recipe_path):
    return load_recipe(recipe_path)


def test_lengths_unknown_words_and_copies_are_counted(recipe):
    report = check_data(recipe)
    assert report.splits == {"train": 8, "test": 4}
    assert report.classes == {"train": {"neg": 3, "pos": 5}, "test": {"neg": 3, "pos": 1}}
    train, test = report.texts
    assert (train.split, train.column, train.documents, train.tokens) == ("train", "text", 8, 24)
    assert (train.median, train.longest, train.cut, train.empty) == (2, 11, 1 / 8, 0)
    assert (train.unknown, test.unknown) == (0, 2 / 6)
    found = report.duplicates
    assert (found.within, found.across, found.contradictory) == ({"train": 2}, 2, 2)
    assert set(found.examples[0]) == {"train: row 0", "train: row 1", "test: row 0"}
    assert (report.vocabulary_size, report.max_length) == (5 + 9, 5)
    json.dumps(report.as_dict())


def test_a_task_that_reads_in_pieces_cuts_nothing(recipe):
    changed = recipe.model_copy(update={"task": recipe.task.model_validate("language_modeling")})
    assert {each.cut for each in check_data(changed).texts} == {None}


def test_check_is_readable(recipe_path, capsys):
    app(["check", str(recipe_path)], standalone_mode=False)
    printed = capsys.readouterr().out
    for text in ("over 5", "12.5 %", "33.33 %", "a vocabulary of 14", "in more than one split: 2"):
        assert text in printed


def test_other_kinds_of_text(tmp_path):
    (tmp_path / "x.tags").write_text("John B-PER\nsleeps O\n\nJohn B-PER\nsleeps O\n\nHe O\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"task: token_classification\ndataset: {{name: conll, path: {tmp_path / 'x.tags'}, tokenizer: word, "
        "max_length: 4, validation_split: 0}\narchitecture: {name: rnn, pooling: none}\n"
    )
    report = check_data(load_recipe(path))
    assert report.classes == {"train": {"O": 3, "B-PER": 2}}
    assert (report.duplicates.within, report.duplicates.contradictory) == ({"train": 1}, 0)
    assert [path.read_text() for path in write_samples(load_recipe(path), tmp_path / "out", 1)] == [
        "John sleeps\n"
    ]


# The picture


def test_a_picture_of_tokens(recipe, recipe_path, tmp_path):
    out = write_preview(recipe, tmp_path / "p.png", count=2)
    with Image.open(out) as picture:
        two = picture.size
    augmented = load_recipe(recipe_path, ["dataset.augmentation=[{name: random_swap, rate: 0.5}]"])
    write_preview(augmented, out, count=2)
    with Image.open(out) as picture:
        assert picture.width == two[0] and picture.height > two[1] + 60  # two epochs below each text
        assert np.asarray(picture.convert("L")).std() > 20


def test_what_is_shown_is_what_the_network_reads(recipe, recipe_path):
    augmented = load_recipe(recipe_path, ["dataset.augmentation=[{name: random_deletion, rate: 1.0}]"])
    data = load_data(augmented)
    indices, blocks = preview._blocks(augmented, data, 8)
    for index, block in zip(indices, blocks, strict=True):
        assert [shown.label for shown in block] == ["as stored", "epoch 1", "epoch 2"]
        assert data.info.tokenizer.decode(block[0].ids) == " ".join(TRAIN[index][0].split()[:5])
        assert {len(shown.ids) for shown in block[1:]} == {1}
    _, plain = preview._blocks(recipe, load_data(recipe), 3)
    assert [[shown.label for shown in block] for block in plain] == [[""]] * 3


def test_tokens_are_laid_out_in_lines_and_the_rest_is_left_out(recipe):
    tokenizer = load_data(recipe).info.tokenizer
    lines = preview._lines(preview.Shown("", np.full(500, UNKNOWN)), tokenizer)
    assert len(lines) == preview.LINES
    assert {token.text for token in lines[0]} == {"<unk>"}
    assert lines[-1][-1].text == "…"
    assert (
        max(token.column + len(token.text) for line in lines for token in line) <= preview.COLUMNS_OF_TEXT + 2
    )
    starts = [token.column for token in lines[0]]
    assert starts[:3] == [0, 6, 12]
    assert (preview._color(UNKNOWN), preview._color(-7), preview._color(7)) == (
        preview.RED,
        preview.ORANGE,
        "black",
    )


# Samples


def test_samples_are_documents_of_the_test_split(recipe, tmp_path):
    paths = write_samples(recipe, tmp_path / "samples", 10)
    assert [path.name for path in paths] == ["pos_0.txt", "neg_1.txt", "neg_2.txt", "neg_3.txt"]
    assert [path.read_text() for path in paths] == [f"{text}\n" for text, _ in TEST]


def test_samples_of_questions_are_a_table_that_predict_reads(tmp_path):
    qas = [
        {"id": str(n), "question": f"{n}?", "answers": [{"text": "It", "answer_start": 0}]} for n in range(3)
    ]
    squad = {"data": [{"paragraphs": [{"context": "It rains.", "qas": qas}]}]}
    (tmp_path / "x.json").write_text(json.dumps(squad))
    (tmp_path / "recipe.yaml").write_text(
        f"task: question_answering\ndataset: {{name: squad, path: {tmp_path / 'x.json'}, max_length: 100}}\n"
        "architecture: {name: rnn, pooling: none}\n"
    )
    (path,) = write_samples(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "out", 2)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["question", "context"], ["0?", "It rains."], ["2?", "It rains."]]


# The plan


def test_a_plan_counts_texts_of_the_greatest_length(recipe_path, tmp_path, capsys, monkeypatch):
    found, longer = (
        make_plan(load_recipe(recipe_path, [f"dataset.max_length={length}"]), tmp_path / "plan.png")
        for length in (5, 10)
    )
    assert (found["input_shape"], found["output_shape"], found["vocabulary_size"]) == ([5], [1], 14)
    assert found["flops_per_example"] < longer["flops_per_example"] < 2.1 * found["flops_per_example"]
    assert found["memory_bytes"] < longer["memory_bytes"]
    assert (found["steps_per_epoch"], found["parameters"]["total"]) == (2, 14 * 4 + 4 + 1)
    json.dumps(found, allow_nan=False)
    monkeypatch.setattr(plans.out, "width", 160)
    print_plan(found, as_json=False)
    printed = capsys.readouterr().out
    for text in ("5 tokens at most", "14 tokens", "1: 2 names"):
        assert text in printed
