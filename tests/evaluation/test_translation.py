"""BLEU, and a whole training: pairs of texts -> a run that translates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from sacrebleu.metrics.bleu import BLEU

from dlcli.evaluation.translation import bleu_of, corpus_bleu, predict_translations
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run
from dlcli.training.train import train

REFERENCES = ["The cat sat on the mat .", "A dog runs after the ball in the park .", "Two men are talking ."]
TRANSLATIONS = ["The cat sat on a mat .", "A dog runs after a ball in the park .", "two men talk ."]


def test_bleu_is_that_of_sacrebleu():
    bleu = corpus_bleu(TRANSLATIONS, REFERENCES)
    assert bleu.score == BLEU(force=True).corpus_score(TRANSLATIONS, [REFERENCES]).score
    assert bleu_of(bleu.statistics.sum(axis=0)) == pytest.approx(bleu.score)
    assert bleu.interval[0] < bleu.score < bleu.interval[1]
    assert "tok:13a" in bleu.signature
    assert "case:mixed" in bleu.signature


def test_bleu_by_hand():
    """3 of 4 words, 2 of 3 pairs, 1 of 2 triples and 0 of 1 quadruple, which the smoothing takes for a half."""
    bleu = corpus_bleu(["a b c d"], ["a b c e"])
    assert bleu.score == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


def test_case_counts_unless_it_is_left_out():
    assert corpus_bleu(["a big red dog"], ["A Big Red Dog"]).score == 0
    lower = corpus_bleu(["a big red dog"], ["A Big Red Dog"], lowercase=True)
    assert lower.score == pytest.approx(100)
    assert "case:lc" in lower.signature


def test_chinese_is_counted_by_characters():
    assert corpus_bleu(["我喜欢红色的狗"], ["我喜欢绿色的狗"], "zh").score > 30
    assert corpus_bleu(["我喜欢红色的狗"], ["我喜欢绿色的狗"]).score == 0


WHO = {"hund": "dog", "katze": "cat", "vogel": "bird"}
DOES = {"schläft": "sleeps", "läuft": "runs", "singt": "sings"}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """German sentences, and English ones that turn them around."""
    rng = np.random.default_rng(seed)
    rows = [(rng.choice(list(WHO)), rng.choice(list(DOES))) for _ in range(count)]
    return [(f"Ein {who} {does} .", f"There {DOES[does]} a {WHO[who]} .") for who, does in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("translation")
    for split, count in (("train", 500), ("val", 20), ("test", 20)):
        rows = ["de\ten", *("\t".join(pair) for pair in sentences(count, seed=count + len(split)))]
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    paths = {"path": "train.tsv", "validation_path": "val.tsv", "test_path": "test.tsv"}
    recipe: dict[str, Any] = {
        "task": {"name": "translation", "beam_size": 2},
        "dataset": {
            "name": "pairs",
            **{name: str(folder / file) for name, file in paths.items()},
            "source": "de",
            "target": "en",
            "tokenizer": {"name": "word", "lowercase": True},
            "max_length": 12,
        },
        "architecture": {
            "name": "seq2seq_transformer",
            "num_layers": 1,
            "num_heads": 2,
            "width": 16,
            "feedforward_width": 32,
        },
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "regularization": {"dropout": 0.0, "label_smoothing": 0.01},
        "training": {"epochs": 3, "batch_size": 16},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return train(load_recipe(folder / "recipe.yaml"), "small", folder / "run")


def test_a_recipe_learns_to_translate(run):
    report = run.metrics
    assert report["metrics"]["bleu"] > 90
    assert report["metrics"]["loss"] < 0.2
    assert report["metrics"]["perplexity"] == pytest.approx(np.exp(report["metrics"]["loss"]))
    low, high = report["intervals"]["bleu"]
    assert low <= report["metrics"]["bleu"] <= high
    assert "case:lc" in report["bleu_signature"]
    assert len(report["samples"]) == 10
    assert set(report["samples"][0]) == {"source", "reference", "translation"}
    assert (run.plots / "test_bleu_by_length.png").stat().st_size > 5_000


def test_a_run_translates_what_it_is_given(run):
    texts = ["Ein Vogel schläft .", "", "Ein Hund läuft .", "ein hund singt ."]
    found = predict_translations(run.model, run.recipe.task.arguments, texts)
    assert [found[0], *found[2:]] == ["there sleeps a bird .", "there runs a dog .", "there sings a dog ."]
