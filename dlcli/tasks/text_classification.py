"""Text classification: one of several classes, or any of several labels, of a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.data.examples import DataInfo, Examples
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.tokenizer import END, START
from dlcli.data.text.vocabulary import encode_texts
from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.recipe.arguments import Loss, Metric
from dlcli.tasks.classification import Classification

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

Pooling = Literal["mean", "max", "first", "attention"]


def text_ends(pooling: Pooling, ends: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens before and after each text, as the task's arguments have it."""
    return ((START,), (END,)) if ends or pooling == "first" else ((), ())


class TextClassification(Classification):
    """Which class does a text belong to? Features are a vector (B, D), or a sequence (B, T, D), which is pooled.

    Args:
        pooling: how a sequence becomes a vector: the mean or the maximum over its tokens, its first token (a
            `<start>` that is put before every text, as BERT's CLS), or a learnt attention. Architectures that give
            a vector, such as fasttext, have no use for it.
        ends: whether `<start>` and `<end>` stand around every text, as BERT and its kin were trained; with
            `pooling: first` they always do.
        loss: any of keras.losses. Default: cross-entropy; binary cross-entropy for two classes and for labels.
        metrics: more of keras.metrics to show in each epoch, beside accuracy.
    """

    name: ClassVar[str] = "text_classification"

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        pooling: Pooling = "mean",
        ends: bool = False,
        loss: Loss | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        super().__init__(info, loss, metrics)
        self.pooling = pooling
        self.ends = text_ends(pooling, ends)
        """Special tokens before and after each text."""

    def sequences(self, examples: Any, *, training: bool = False) -> Examples:
        """The documents, each up to `max_length`; with `ends` or `pooling: first` between `<start>` and `<end>`."""
        tokens = encode_texts(examples.columns["text"], self.tokenizer)
        return TokenSequences(tokens, self.info.max_length, self.encode(examples.targets), *self.ends)

    def outputs(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Logits (B, K); (B, 1) for two classes."""
        return super().outputs(self._pooled(features) if len(features.shape) == 3 else features)

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Scores documents."""
        return super().evaluate(predictor, self._documents(examples), split, plots)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each document."""
        return super().score_examples(predictor, self._documents(examples))

    def _documents(self, examples: Any) -> Examples:
        sequences = self.sequences(examples)
        sequences.targets = examples.targets  # class indices, as the report counts them
        return sequences

    def _pooled(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """(B, T, D) -> (B, D); padding counts for nothing."""
        if self.pooling == "first":
            return features[:, 0]
        if self.pooling == "attention":
            return AttentionPooling(name="pooling")(features)
        return MaskedPooling(self.pooling, name="pooling")(features)
