"""What a model scored on each single example, for tests that compare two models on the same ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcli.evaluation import metrics as scores
from dlcli.evaluation.evaluate import BATCH_SIZE, TEXT_BATCH_SIZE, predict_examples
from dlcli.evaluation.paired_tests import Metrics

if TYPE_CHECKING:
    import keras

    from dlcli.data.examples import DataInfo, Examples


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """Scores of one model on N examples."""

    quantities: np.ndarray
    """(N, Q), from whose means over the examples `metrics` are made."""
    metrics: Metrics
    """The first one is what is tested."""
    answers: str
    """Digest of the examples' right answers: scores pair with those of the same digest alone."""
    right: np.ndarray | None = None
    """Bool (N,) of a model that picks one class: whether it was the right one. None for all others."""
    units: str = "examples"
    """What the N are."""


def digest_of(*parts: Any) -> str:
    """One digest of arrays, texts and plain values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def score_examples(predictor: keras.Model, examples: Examples, info: DataInfo) -> ExampleScores:
    """Scores a model that gives classes, labels or values; arguments as of `evaluate_model`."""
    outputs = predict_examples(predictor, examples, BATCH_SIZE if info.tokenizer is None else TEXT_BATCH_SIZE)
    if info.target == "classes":
        return class_scores(outputs, examples.targets, info.class_names)
    if info.target == "labels":
        return label_scores(outputs, examples.targets, info.class_names)
    return value_scores(outputs, examples.targets, info.class_names)


def class_scores(outputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> ExampleScores:
    """Of probabilities (N, K) and class indices (N,)."""
    outputs, targets = scores.check_classes(outputs, targets, names)
    right = outputs.argmax(axis=1) == targets
    losses = scores.example_losses(outputs, targets)

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": means[:, 0], "log_loss": means[:, 1]}

    return ExampleScores(np.column_stack([right, losses]), metrics, digest_of(names, targets), right)


def label_scores(outputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> ExampleScores:
    """Of probabilities (N, K) and zeros and ones (N, K)."""
    outputs, positive = scores.check_labels(outputs, targets, names)
    predicted = outputs >= 0.5
    counts = [(part).sum(axis=1) for part in (predicted & positive, positive, predicted)]

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        hits, support, chosen, exact = means.T
        return {
            "micro_f1": 2 * hits / np.maximum(support + chosen, 1e-12),
            "subset_accuracy": exact,
        }

    quantities = np.column_stack([*counts, (predicted == positive).all(axis=1)])
    return ExampleScores(quantities, metrics, digest_of(names, positive))


def value_scores(outputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> ExampleScores:
    """Of predicted and true values, each (N, K)."""
    outputs, targets = scores.check_values(outputs, targets, names)
    errors = outputs - targets

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        absolute, squared = np.split(means, 2, axis=1)
        return {"rmse": np.sqrt(squared).mean(axis=1), "mae": absolute.mean(axis=1)}

    return ExampleScores(np.hstack([np.abs(errors), errors**2]), metrics, digest_of(names, targets))
