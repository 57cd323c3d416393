"""Runs of each kind of task are compared: the difference that is tested is that of the two reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dlcli.evaluation import compare_runs as comparing
from dlcli.evaluation import paired_tests
from dlcli.evaluation.compare_runs import compare_runs
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run
from dlcli.training.train import train

WORDS = ["cat", "dog", "owl", "red", "blue", "runs", "sleeps", "sees"]
RNN = {"name": "rnn", "cell": "simple_rnn", "units": [4], "embedding_width": 4, "pooling": "none"}
BERT = {"name": "bert", "num_layers": 1, "width": 8, "num_heads": 2}


def sentences(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(3, 7))) for _ in range(count)]


def write_tags(path: Path, seed: int) -> None:
    rows = [
        "\n".join(f"{w} {'B-X' if w in WORDS[:3] else 'O'}" for w in s.split()) for s in sentences(40, seed)
    ]
    path.write_text("\n\n".join(rows) + "\n")


def write_questions(path: Path, seed: int) -> None:
    paragraphs = []
    for number, text in enumerate(sentences(30, seed)):
        answers = [{"text": text.split()[0], "answer_start": 0}]
        paragraphs.append(
            {"context": text, "qas": [{"id": str(number), "question": "what", "answers": answers}]}
        )
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "x", "paragraphs": paragraphs}]}))


def write_table(path: Path, seed: int, columns: tuple[str, str]) -> None:
    texts = sentences(40, seed)
    second = [text[::-1] for text in texts] if columns[1] == "en" else [str("cat" in text) for text in texts]
    rows = ["\t".join(row) for row in zip(texts, second, strict=True)]
    path.write_text("\n".join(["\t".join(columns), *rows]) + "\n")


def recipe_of(task: str, folder: Path) -> dict[str, Any]:
    paths = {"path": str(folder / "train"), "test_path": str(folder / "test")}
    for split, seed in (("train", 0), ("test", 1)):
        path = folder / split
        if task == "token_classification":
            write_tags(path, seed)
        elif task == "question_answering":
            write_questions(path, seed)
        elif task in ("translation", "text_classification"):
            write_table(path, seed, ("de", "en") if task == "translation" else ("text", "label"))
        else:
            path.write_text("\n".join(sentences(150, seed)))
    read = {"max_length": 8, "tokenizer": "character"}
    dataset: dict[str, Any] = {
        "regression": {"name": "diabetes"},
        "token_classification": {"name": "conll", **paths, "max_length": 40, "tokenizer": "character"},
        "question_answering": {"name": "squad", **paths, "max_length": 72, "tokenizer": "word"},
        "translation": {
            "name": "pairs",
            **paths,
            "source": "de",
            "target": "en",
            **read,
            "tokenizer": "word",
        },
        "text_classification": {"name": "text_csv", **paths, "text": "text", "target": "label", **read},
    }.get(task, {"name": "text_file", **paths, **read})
    architecture: dict[str, Any] = {
        "regression": {"name": "mlp", "hidden": [4]},
        "token_classification": RNN,
        "question_answering": RNN,
        "translation": {"name": "seq2seq_rnn", "units": 8, "embedding_width": 4},
        "text_classification": {"name": "fasttext", "embedding_width": 4, "buckets": 100},
        "language_modeling": {"name": "gpt", "num_layers": 1, "width": 8, "num_heads": 2},
    }.get(task, BERT)
    training = {"epochs": 1, "batch_size": 32}
    chosen = {"name": task, "beam_size": 1} if task == "translation" else task
    return {"task": chosen, "dataset": dataset, "architecture": architecture, "training": training}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("regression", "rmse"),
        ("text_classification", "accuracy"),
        ("token_classification", "entity_f1"),
        ("question_answering", "f1"),
        ("translation", "bleu"),
        ("language_modeling", "loss"),
        ("masked_language_modeling", "loss"),
        ("replaced_token_detection", "loss"),
    ],
)
def test_runs_of_a_task(task: str, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(task, tmp_path)))
    one = train(load_recipe(tmp_path / "recipe.yaml"), "one", tmp_path / "one")
    shutil.copytree(one.path, tmp_path / "two")
    two = Run(tmp_path / "two")
    model = two.model
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + random.normal(0, 0.5, weight.shape))
    model.save(two.model_path)
    monkeypatch.setattr(paired_tests, "RESAMPLES", 200)
    monkeypatch.setattr(comparing, "plot_comparison", lambda *_: None)
    two = Run(tmp_path / "two")
    (test,) = compare_runs([Run(one.path), two], tmp_path / "curves.png", "test").tests
    assert test.get("metric") == metric, test
    assert 0 < test["p"] <= 1
    reports = [evaluate_run(run, run.recipe, "test")["metrics"] for run in (one, two)]
    for name, each in test["differences"].items():
        if None not in (reports[0][name], reports[1][name]):
            assert each["difference"] == pytest.approx(reports[0][name] - reports[1][name], abs=1e-6)
    assert test["differences"][metric]["interval"][0] <= test["differences"][metric]["interval"][1]
