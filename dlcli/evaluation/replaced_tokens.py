"""A discriminator of replaced tokens -> the report of metrics.json."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import Examples
from dlcli.data.stream import evaluation_stream
from dlcli.data.text.masking import swap_tokens
from dlcli.evaluation.figure import BLUE, RED, drawing
from dlcli.evaluation.language import LARGEST_BATCH, with_intervals

BINS = 4096
"""Of probabilities, from which the area under the ROC curve is read."""

_BARS = 32


def evaluate_detection(
    predictor: keras.Model, examples: Examples, rate: float, split: str, plots: Path
) -> dict[str, Any]:
    """Scores which tokens were replaced; tokens of the same batch take the place of others.

    Args:
        predictor: ids (B, T) -> probability (B, T) that a token was replaced.
        examples: token sequences.
        rate: share of the tokens to replace.
        split: for the report.
        plots: the folder of pictures.
    """
    every, histograms = score_detection(predictor, examples, rate)
    values = {name: value[0] for name, value in detection_metrics(every.mean(axis=0)[None]).items()}
    report = with_intervals(values, every, detection_metrics)
    report["metrics"]["roc_auc"] = area_under_roc(histograms[0], histograms[1])
    plot_probabilities(histograms[0], histograms[1], plots / f"{split}_probabilities.png")
    return {"split": split, "examples": len(every), **report, "tokens": int(every[:, 4].sum())}


def score_detection(predictor: keras.Model, examples: Examples, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums (N, 5) of each window, as `detection_metrics` has them, and counts (2, BINS) of probabilities."""

    @tf.function(reduce_retracing=True)
    def count(ids: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = predictor(ids, training=False)
        replaced, real = states == 2, states != 0
        losses = keras.ops.binary_crossentropy(tf.cast(replaced, tf.float32), probabilities)
        said = (probabilities > 0.5) & real
        sums = [tf.reduce_sum(tf.where(real, losses, 0.0), axis=1)]
        for part in (replaced & said, said, replaced, real):
            sums.append(tf.reduce_sum(tf.cast(part, tf.float32), axis=1))
        kinds = [tf.boolean_mask(probabilities, kind) for kind in (real & ~replaced, replaced)]
        histograms = [tf.histogram_fixed_width(kind, [0.0, 1.0], BINS) for kind in kinds]
        return tf.stack(sums, axis=1), tf.stack(histograms)

    windows, histograms = [], np.zeros((2, BINS))
    for ids, states in evaluation_stream(examples, LARGEST_BATCH, augment=partial(swap_tokens, rate=rate)):
        sums, counts = (each.numpy().astype(np.float64) for each in count(ids, states))
        windows.append(sums)
        histograms += counts
    return np.concatenate(windows), histograms


def area_under_roc(negatives: np.ndarray, positives: np.ndarray) -> float | None:
    """From how many of each kind have a probability in each bin, lowest first; None without both kinds."""
    pairs = negatives.sum() * positives.sum()
    won = positives @ (np.cumsum(negatives) - negatives / 2)  # a tie is half a victory
    return float(won / pairs) if pairs else None


def plot_probabilities(original: np.ndarray, replaced: np.ndarray, path: Path) -> None:
    """How probable a replacement seemed for tokens of both kinds.

    Args:
        original: counts in bins from 0 to 1.
        replaced: of the other kind, in the same bins.
        path: where the picture goes.
    """
    edges = np.linspace(0, 1, _BARS + 1)
    with drawing(6.5, 3.4, path) as figure:
        axes = figure.add_subplot()
        for counts, color, label in ((original, BLUE, "original tokens"), (replaced, RED, "replaced tokens")):
            shares = counts.reshape(_BARS, -1).sum(axis=1) / max(counts.sum(), 1)
            axes.stairs(shares, edges, color=color, fill=True, alpha=0.35)
            axes.stairs(shares, edges, color=color, label=f"{label} ({int(counts.sum()):,})")
        axes.set(xlabel="predicted probability of a replacement", ylabel="share of the tokens", xlim=(0, 1))
        axes.legend(fontsize=8)


def detection_metrics(means: np.ndarray) -> dict[str, np.ndarray]:
    """From means (R, 5) of loss, found, called replaced, replaced, and all tokens of a window."""
    loss, found, said, replaced, real = means.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "loss": loss / real,
            "accuracy": 1 - (said + replaced - 2 * found) / real,
            "precision": found / said,
            "recall": found / replaced,
            "f1": 2 * found / (said + replaced),
        }
