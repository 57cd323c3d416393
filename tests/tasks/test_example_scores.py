"""Scores of single windows of language tasks: together they give the report's metrics. Nothing is trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.data.text.texts import TextExamples
from dlcli.tasks.language_modeling import LanguageModeling
from dlcli.tasks.masked_language_modeling import MaskedLanguageModeling
from dlcli.tasks.replaced_token_detection import ReplacedTokenDetection

TARGETS = np.zeros(1, np.int32)


@pytest.mark.parametrize("task_class", [LanguageModeling, MaskedLanguageModeling, ReplacedTokenDetection])
def test_windows(
    task_class: Any, documents: TextExamples, info: DataInfo, language: SimpleNamespace, tmp_path: Path
) -> None:
    task = task_class(info, TARGETS)
    if task_class is LanguageModeling:

        def network(inputs: Any, vocabulary_size: int, max_length: int, **_: Any) -> Any:
            return keras.layers.GRU(8, return_sequences=True)(
                keras.layers.Embedding(vocabulary_size, 8)(inputs)
            )
    else:
        network = language.both_ways
    _, predictor = language.connected(task, network, width=24, num_heads=3)
    few = documents.subset(np.arange(30))
    report = task.evaluate(predictor, few, "test", tmp_path)
    scores = task.score_examples(predictor, few)
    assert len(scores.quantities) == report["examples"] > 20
    found = {
        name: float(values[0])
        for name, values in scores.metrics(scores.quantities.mean(axis=0)[None]).items()
    }
    assert next(iter(found)) == "loss"
    assert found == pytest.approx({name: report["metrics"][name] for name in found})
    if task_class is LanguageModeling:
        fewer = task.score_examples(predictor, documents.subset(np.arange(29)))
        assert fewer.answers != scores.answers
