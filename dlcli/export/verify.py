"""Outputs of an artefact against those of Keras, on real examples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.export.exportable import arranged
from dlcli.export.format import Inputs, Quantize, Run

BATCH = 64
TOLERANCE = 0.01
"""By how much a quantized artefact's metric may be worse: in points of accuracy (0.01 is one of 100 examples), or as
a share of an error (a mean absolute error, the loss of a language model)."""

DIFFERENCE = "mean_difference"
"""Of images: no other number says how good one is; as a share of the range of pixels."""

_CALLS, _SECONDS = 20, 1.0
"""A latency is the median of so many calls, fewer where they take longer than this together."""


@dataclass(frozen=True)
class Limits:
    """What an artefact must keep to; None is not asked."""

    difference: float | None
    agreement: float | None
    worse: float | None
    """Of the metric."""


def limits(quantize: Quantize | None, tolerance: float = TOLERANCE) -> Limits:
    """float32 is the same computation in another order; float16 has 11 bits; int8 is judged by the metric alone."""
    if quantize is None:
        return Limits(1e-4, 0.999, None)
    if quantize == "float16":
        return Limits(1e-2, 0.99, tolerance)
    return Limits(None, None, tolerance)


@dataclass(frozen=True)
class Comparison:
    """An artefact beside Keras."""

    difference: float
    """The largest of all outputs; of values and logits, which know no scale, as a share of the largest output."""
    agreement: float | None
    """Share of the examples (of texts the tokens, or words) with the same top class; None for values. Another class
    whose probability Keras itself puts within the limit of its best one is no disagreement."""
    metric: str | None
    """`accuracy`, `mae`, `loss` or `mean_difference` (of images from those of Keras)."""
    keras_metric: float | None
    artefact_metric: float | None

    @property
    def worse(self) -> float | None:
        """How much worse the metric has become: points of accuracy, or a share of an error; negative is better."""
        if self.keras_metric is None or self.artefact_metric is None:
            return None
        if self.metric == "accuracy":
            return self.keras_metric - self.artefact_metric
        if self.metric == DIFFERENCE:
            return self.artefact_metric
        return (self.artefact_metric - self.keras_metric) / max(self.keras_metric, 1e-12)

    def failures(self, allowed: Limits) -> list[str]:
        """What is beyond the limits, in words; empty when all is well."""
        found = []
        if not np.isfinite(self.difference):
            found.append("some outputs are NaN or infinite")
        if allowed.difference is not None and self.difference > allowed.difference:
            found.append(f"outputs differ by up to {self.difference:.2g} (limit {allowed.difference:g})")
        if (
            allowed.agreement is not None
            and self.agreement is not None
            and self.agreement < allowed.agreement
        ):
            found.append(
                f"the top class agrees in {self.agreement:.2%} of the examples (limit {allowed.agreement:.1%})"
            )
        if allowed.worse is None:
            return found
        if self.worse is not None and not self.worse <= allowed.worse:
            found.append(
                f"{self.metric} is {self.artefact_metric:.4f} and of Keras {self.keras_metric:.4f}: worse by "
                f"{self.worse:.4f} (--tolerance {allowed.worse:g})"
            )
        if self.worse is None and self.agreement is not None and self.agreement < 1 - allowed.worse:
            found.append(
                f"the top class agrees in {self.agreement:.2%} of the examples (--tolerance {allowed.worse:g})"
            )
        return found


def compare(
    expected: np.ndarray,
    found: np.ndarray,
    target: str,
    inputs: Inputs,
    targets: np.ndarray | None,
    tie: float = 1e-4,
) -> Comparison:
    """Compares outputs of the same examples.

    Args:
        expected: Keras's, (N, ...).
        found: the artefact's.
        target: as in `Exportable`.
        inputs: of the examples; padding tells which tokens count.
        targets: as in `dlcli.export.samples.Samples`.
        tie: how near two probabilities are to count as equal.

    Raises:
        ValueError: the shapes differ.
    """
    found = np.asarray(found, np.float64)
    expected = np.asarray(expected, np.float64)
    if target in ("text", "tags", "spans") and found.ndim == expected.ndim:
        found = found[
            :, : expected.shape[1]
        ]  # an artefact of a fixed length says something of its padding too
    if expected.shape != found.shape:
        raise ValueError(f"Expected outputs of shape {expected.shape}. Received: {found.shape}")
    if target in ("text", "tags"):
        real = inputs.get("target", next(iter(inputs.values()))) != 0  # (N, T), false for padding
        if targets is not None:
            targets = targets[real]
        expected, found = expected[real], found[real]  # (M, K)
        if expected.ndim == 2 and expected.shape[-1] == 1 and target == "text":
            expected, found = expected[:, 0], found[:, 0]
    scale = float(np.abs(expected).max()) or 1.0 if target in ("values", "text", "noise") else 1.0
    finite = np.isfinite(found).all()
    difference = float(np.abs(expected - found).max()) / scale if finite else float("inf")
    if target in ("images", "noise"):
        apart = float(np.abs(expected - found).mean()) / scale if finite else None
        return Comparison(difference, None, DIFFERENCE, 0.0, apart)
    agreement = _agreement(expected, found, target, 2 * tie * scale)
    name, score = _metric(target, targets)
    return Comparison(
        difference,
        agreement,
        name,
        None if name is None else score(expected, targets),
        None if name is None or not finite else score(found, targets),
    )


def _agreement(expected: np.ndarray, found: np.ndarray, target: str, tie: float) -> float | None:
    if target == "values":
        return None
    if target == "labels" or expected.ndim == 1:
        same = ((expected >= 0.5) == (found >= 0.5)) | (np.abs(expected - 0.5) <= tie)
        return float(same.mean())
    axis = 1 if target == "spans" else -1  # of an answer the best start and the best end
    chosen = np.expand_dims(np.nan_to_num(found, nan=-np.inf).argmax(axis), axis)
    same = expected.max(axis) - np.take_along_axis(expected, chosen, axis).squeeze(axis) <= tie
    return float(same.mean())


def _metric(target: str, targets: np.ndarray | None) -> tuple[str | None, Any]:
    """The name of the metric and how it is computed from outputs and targets."""
    if targets is None:
        return None, None
    if target == "values":
        return "mae", lambda outputs, right: float(np.abs(outputs - right.reshape(outputs.shape)).mean())
    if target == "text":
        return "loss", _token_loss
    return "accuracy", {
        "classes": lambda outputs, right: float((outputs.argmax(-1) == right).mean()),
        "labels": lambda outputs, right: float(((outputs >= 0.5) == (right >= 0.5)).mean()),
        "tags": lambda outputs, right: float((outputs.argmax(-1) == right - 1)[right > 0].mean()),
        "spans": lambda outputs, right: float((outputs.argmax(1) == right).all(axis=-1).mean()),
    }[target]


def _token_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """Nats per token; targets of 0 do not count."""
    counts = targets != 0
    logits, targets = logits[counts], targets[counts]
    highest = logits.max(axis=-1)
    sums = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    return float((sums - logits[np.arange(len(targets)), targets]).mean())


def keras_run(model: keras.Model) -> Run:
    """A model as a compiled function, which is how it is fast: `model.predict` takes 50 ms for one example."""
    compiled = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def run(inputs: Inputs) -> np.ndarray:
        count = len(next(iter(inputs.values())))
        parts = [
            compiled(
                arranged(
                    model,
                    {name: tf.constant(array[start : start + BATCH]) for name, array in inputs.items()},
                )
            ).numpy()
            for start in range(0, count, BATCH)
        ]
        return np.concatenate(parts).astype("float32")

    return run


def latencies(run: Run, inputs: Inputs) -> dict[str, float]:
    """Milliseconds for one example and for a batch of 64, `one` and `batch`: the median of several calls, warm."""
    count = len(next(iter(inputs.values())))
    batch = {name: array[np.arange(BATCH) % count] for name, array in inputs.items()}
    return {
        "one": _milliseconds(run, {name: array[:1] for name, array in inputs.items()}),
        "batch": _milliseconds(run, batch),
    }


def _milliseconds(run: Run, inputs: Inputs) -> float:
    run(inputs)
    run(inputs)
    taken: list[float] = []
    while len(taken) < _CALLS and (len(taken) < 3 or sum(taken) < _SECONDS):
        start = time.perf_counter()
        run(inputs)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def report(
    comparison: Comparison,
    allowed: Limits,
    sizes: Mapping[str, int],
    latency: Mapping[str, Mapping[str, float]],
    **more: Any,
) -> dict[str, Any]:
    """What verification.json holds.

    Args:
        comparison: of the outputs.
        allowed: what was asked.
        sizes: bytes of `keras` and of `artefact`.
        latency: of both, as `latencies` gives them.
        more: what else is to stand in front.
    """
    worse = comparison.worse
    finite = np.isfinite(comparison.difference)
    return {
        **more,
        "passed": not comparison.failures(allowed),
        "max_difference": comparison.difference if finite else None,
        "max_difference_limit": allowed.difference,
        "agreement": comparison.agreement,
        "agreement_limit": allowed.agreement,
        "metric": comparison.metric,
        "metric_keras": comparison.keras_metric,
        "metric_artefact": comparison.artefact_metric,
        "metric_worse_by": worse,
        "metric_tolerance": allowed.worse,
        "bytes": dict(sizes),
        "latency_ms": {name: dict(each) for name, each in latency.items()},
    }
