"""Language models -> the report of metrics.json: loss, perplexity, bits per character, accuracy, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Augment
from dlcli.data.examples import Examples
from dlcli.data.stream import evaluation_stream
from dlcli.data.text.texts import Texts
from dlcli.evaluation.figure import BLUE, GREY, drawing, plain_numbers
from dlcli.evaluation.intervals import Interval, percentiles, resampled_means

LARGEST_BATCH = 64
LARGEST_LOGITS = 2**26
"""Numbers that a batch of logits may hold (256 MB): a language model gives one for each token of the vocabulary."""

_LARGEST_EXPONENT = 700.0  # exp of more is no float


@dataclass(frozen=True)
class TokenScores:
    """What a language model made of N windows, added up over the tokens that count."""

    losses: np.ndarray
    """float64 (N,): nats of each window."""
    hits: np.ndarray
    """float64 (N,): right predictions."""
    counts: np.ndarray
    """float64 (N,): tokens that count."""
    position_losses: np.ndarray
    """float64 (T,): nats at each position of a window."""
    position_counts: np.ndarray
    """float64 (T,): tokens that count there."""

    @property
    def sums(self) -> np.ndarray:
        """(N, 3): losses, hits and counts."""
        return np.stack([self.losses, self.hits, self.counts], axis=1)


def evaluate_language_model(
    predictor: keras.Model, windows: Any, ids: np.ndarray, characters: int, split: str, plots: Path
) -> dict[str, Any]:
    """Scores next-token prediction on every token but the first.

    What the windows leave at the end is scored in one more window that reaches back, so that
    each token counts once. Bits per character are the bits of a token times the tokens per character of the whole
    text, `<end>` of each document included among the tokens and not among the characters.

    Args:
        predictor: ids (B, T) -> logits (B, T, V).
        windows: `TokenWindows` of `ids`, which do not overlap.
        ids: all tokens one after another.
        characters: Unicode code points of the text.
        split: for the report.
        plots: the folder of pictures.
    """
    scores = score_windows(predictor, windows, ids)
    return _report(scores, split, plots, len(ids) / max(characters, 1) / math.log(2), len(ids), characters)


def score_windows(predictor: keras.Model, windows: Any, ids: np.ndarray) -> TokenScores:
    """Every token but the first; arguments as of `evaluate_language_model`."""
    size = _batch_size(windows.length, predictor.output_shape[-1])
    batches = [evaluation_stream(windows, size), _rest(windows, ids)]
    return score_tokens(predictor, (batch for part in batches for batch in part))


def evaluate_masked_model(
    model: keras.Model, examples: Examples, corrupt: Augment, split: str, plots: Path
) -> dict[str, Any]:
    """Scores the prediction of masked tokens; the perplexity is exp of the mean loss at them.

    Args:
        model: marked ids (B, T) -> logits (M, V) of the M negative ones.
        examples: token sequences.
        corrupt: masks them, the same in every call.
        split: for the report.
        plots: the folder of pictures.
    """
    return _report(score_masked(model, examples, corrupt), split, plots)


def score_masked(model: keras.Model, examples: Examples, corrupt: Augment) -> TokenScores:
    """The masked tokens; arguments as of `evaluate_masked_model`."""
    size = _batch_size(int(examples.lengths.max()), model.output_shape[-1])  # type: ignore[attr-defined]
    return score_tokens(model, evaluation_stream(examples, size, augment=corrupt))


def score_tokens(model: keras.Model, batches: Iterable[tuple[Any, Any]]) -> TokenScores:
    """Compares logits with targets; those of 0 do not count.

    Args:
        model: inputs -> logits (B, T, V), or (M, V) for the M targets that count.
        batches: `(inputs, targets)`, targets int32 (B, T).
    """

    @tf.function(reduce_retracing=True)
    def score(inputs: Any, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(inputs, training=False)
        places = tf.where(targets != 0)  # (M, 2)
        known = tf.gather_nd(targets, places)
        if logits.shape.rank == 3:
            logits = tf.gather_nd(logits, places)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(known, logits)
        hits = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32) == known, tf.float32)
        shape = tf.shape(targets, tf.int64)
        return tf.scatter_nd(places, losses, shape), tf.scatter_nd(places, hits, shape)

    windows: list[np.ndarray] = []
    positions = np.zeros((2, 0))
    for inputs, targets in batches:
        losses, hits = (each.numpy().astype(np.float64) for each in score(inputs, tf.cast(targets, tf.int32)))
        counts = (np.asarray(targets) != 0).astype(np.float64)
        windows.append(np.stack([each.sum(axis=1) for each in (losses, hits, counts)]))
        positions = _added(positions, np.stack([losses.sum(axis=0), counts.sum(axis=0)]))
    return TokenScores(*np.concatenate(windows, axis=1), *positions)


def count_characters(texts: Texts) -> int:
    """Unicode code points of all the texts: bytes of UTF-8 that do not go on with a character."""
    count = 0
    for start, end in zip(texts.starts.tolist(), texts.ends.tolist(), strict=True):
        count += int(np.count_nonzero((texts.data[start:end] & 0xC0) != 0x80))
    return count


def plot_loss_by_position(losses: np.ndarray, mean: float, path: Path) -> None:
    """The loss at each position of a window: what more context is worth.

    Args:
        losses: (T,) nats; NaN where no token counted.
        mean: over all tokens.
        path: where the picture goes.
    """
    positions = np.arange(1, len(losses) + 1)
    with drawing(6.5, 3.4, path) as figure:
        axes = figure.add_subplot()
        many = len(losses) > 60
        axes.plot(positions, losses, color=BLUE, linewidth=0.8 if many else 1.6, alpha=0.45 if many else 1.0)
        if many:  # a running mean shows the course through the noise
            width = max(5, len(losses) // 20)
            middles, smooth = _running_mean(positions, losses, width)
            axes.plot(middles, smooth, color=BLUE, label=f"mean of {width} positions")
        axes.axhline(mean, color=GREY, linestyle="--", linewidth=1, label=f"mean of all tokens ({mean:.3f})")
        axes.set(xlabel="position in the window", ylabel="loss (nats per token)", title="loss by position")
        plain_numbers(axes.yaxis)
        axes.legend(fontsize=8)


def _rest(windows: Any, ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """One batch with the tokens behind the last whole window, and as many before them as a window holds."""
    length, scored = windows.length, len(windows) * windows.length
    left = len(ids) - 1 - scored
    if not left:
        return []
    last = np.asarray(ids[-length - 1 :], np.int32)
    targets = np.where(np.arange(length) >= length - left, last[1:], 0)
    return [(last[None, :-1], targets[None].astype(np.int32))]


def _report(
    scores: TokenScores,
    split: str,
    plots: Path,
    bits_per_nat: float | None = None,
    tokens: int | None = None,
    characters: int | None = None,
) -> dict[str, Any]:
    """The form of metrics.json, and the picture."""
    sums = scores.sums
    report: dict[str, Any] = {"split": split, "examples": len(sums)}
    details = {"tokens": tokens or int(scores.counts.sum())} | (
        {"characters": characters} if characters else {}
    )
    if not scores.counts.sum():
        return {
            **report,
            "metrics": {"loss": None},
            "intervals": {},
            **details,
            "undefined": {"loss": "no token"},
        }
    metrics = partial(token_metrics, bits_per_nat=bits_per_nat)
    values = {name: value[0] for name, value in metrics(sums.mean(axis=0)[None]).items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        by_position = scores.position_losses / scores.position_counts
    plot_loss_by_position(by_position, values["loss"], plots / f"{split}_loss_by_position.png")
    return {**report, **with_intervals(values, sums, metrics), **details}


def token_metrics(means: np.ndarray, bits_per_nat: float | None = None) -> dict[str, np.ndarray]:
    """Metrics, each (R,), of means (R, 3) of the losses, hits and counts of windows."""
    loss = means[:, 0] / np.maximum(means[:, 2], 1e-12)
    values = {"loss": loss, "perplexity": np.exp(np.minimum(loss, _LARGEST_EXPONENT))}
    if bits_per_nat is not None:
        values["bits_per_character"] = loss * bits_per_nat
    return values | {"accuracy": means[:, 1] / np.maximum(means[:, 2], 1e-12)}


def with_intervals(values: dict[str, Any], sums: np.ndarray, metrics: Any) -> dict[str, Any]:
    """Metrics as plain numbers, and a bootstrap over the windows, which are drawn as wholes."""
    means = resampled_means(sums, np.random.default_rng(0)) if len(sums) > 1 else None
    intervals: dict[str, Interval] = {}
    if means is not None:
        known = {name: each for name, each in metrics(means).items() if not math.isnan(values[name])}
        intervals = {name: percentiles(each) for name, each in known.items()}
    plain = {name: None if math.isnan(value) else float(value) for name, value in values.items()}
    return {"metrics": plain, "intervals": intervals}


def _batch_size(length: int, vocabulary_size: int) -> int:
    return max(1, min(LARGEST_BATCH, LARGEST_LOGITS // (length * vocabulary_size)))


def _added(sums: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Adds sums by position, of windows that may be of different lengths."""
    wide = max(sums.shape[1], more.shape[1])
    old, new = (np.pad(each, ((0, 0), (0, wide - each.shape[1]))) for each in (sums, more))
    return old + new


def _running_mean(positions: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(values)
    kernel = np.ones(width) / width
    return (np.convolve(each[known], kernel, mode="valid") for each in (positions, values))  # type: ignore[return-value]
