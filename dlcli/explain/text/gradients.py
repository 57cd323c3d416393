"""Integrated gradients of a text's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlcli.data.text.tokenizer import UNKNOWN
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.integral import missed, way
from dlcli.explain.network import Network
from dlcli.explain.text.words import numbers_fit, words_of

TOKENS_AT_ONCE = 2**14
"""Of all texts in one call with gradients; bounds the memory."""

COMPLETE = 0.05
"""How far the sum may be off, as a share of f(text) - f(baseline)."""


def integrated_gradients(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, steps: int = 64
) -> list[Attribution]:
    """Gradients along the straight way from a baseline to the embeddings (Sundararajan et al. 2017, section 3).

    A baseline should say nothing (section 2.1). Two are tried, the same text with `<unk>` in the place of every word
    and with embeddings of zeros, and the one of which the model is less sure is taken: some models take texts of
    unknown words for one class, others zeros. Where the sum is not complete (a normalization of zeros has slopes
    without end), it is the other one. Special tokens stay. Attributions sum to f(text) - f(baseline), up to what the
    steps leave out.

    Args:
        network: the model, with an embedding.
        subjects: texts.
        outputs: the index of what is explained, of each.
        steps: nodes of a Gauss-Legendre quadrature.

    Raises:
        DlcliError: the model has no embedding.
    """
    return [
        _of_text(network, subject, int(output), steps)
        for subject, output in zip(subjects, outputs, strict=True)
    ]


def _of_text(network: Network, subject: Subject, output: int, steps: int) -> Attribution:
    ids, real = np.asarray(subject.inputs), words_of(subject) >= 0
    unknown = np.where(real, UNKNOWN, ids).astype(np.int32)
    enter = network.compiled("text entry", lambda network: network.at_entry)
    end, start = enter(tf.constant(np.stack([ids, unknown])))  # each (T', D): more than T with n-grams
    words = _words_inside(real, len(end))
    zeros = tf.where(words.any(axis=1).reshape(-1, 1), tf.zeros_like(end), end)
    baselines = _by_sureness(network, ids, {"unknown words": start, "zero embeddings": zeros})
    whole = network.outputs(ids[None])[0, output]
    found: list[tuple[np.ndarray, float, str]] = []
    least = np.inf
    for name, begin, outputs in baselines:
        base = float(outputs[output])
        total = _integral(network, ids, output, (begin, end), steps)
        off = missed(total.sum(), whole - base)
        if off < least or not found:
            least, found = off, [(total, base, name)]
        if off <= COMPLETE:
            break
    total, base, name = found[0]
    warnings = (
        (f"the sum is {100 * least:.0f} % off f(text) - f(baseline): give more --steps",)
        if least > COMPLETE
        else ()
    )
    return Attribution(
        _of_tokens(total, words).astype(np.float32),
        signed=True,
        base=base,
        settings={"steps": steps, "baseline": name},
        warnings=warnings,
    )


def _integral(
    network: Network,
    ids: np.ndarray,
    output: int,
    ends: tuple[tf.Tensor, tf.Tensor],
    steps: int,
) -> np.ndarray:
    """Attributions of what enters, float64 (T',)."""
    integrate = network.compiled("text gradients", _gradients)
    begin, end = ends
    size = max(1, min(TOKENS_AT_ONCE // len(end), numbers_fit(network, len(ids))))
    total = np.zeros(len(end))
    for first in range(0, steps, size):
        nodes, weights = (tf.constant(each[first : first + size]) for each in way(steps))
        total += integrate(begin, end, nodes, weights, tf.constant(ids), tf.constant(output)).numpy()
    return total


def _by_sureness(
    network: Network, ids: np.ndarray, baselines: Mapping[str, tf.Tensor]
) -> list[tuple[str, tf.Tensor, np.ndarray]]:
    """The baselines, that with the highest entropy of the model's outputs first: name, itself, outputs (K,)."""
    rows = tf.constant(np.repeat(ids[None], len(baselines), axis=0))
    leave = network.compiled("text exit", lambda network: network.from_entry)
    outputs = np.asarray(leave(tf.stack(list(baselines.values())), rows), np.float64)
    entropy = np.zeros(len(baselines))
    if network.target != "values":
        shares = network.probabilities(outputs)
        if network.target == "labels":
            shares = np.concatenate([shares, 1 - shares], axis=1)
        entropy = -(shares * np.log(np.maximum(shares, 1e-30))).sum(axis=1)
    each = [(name, begin, row) for (name, begin), row in zip(baselines.items(), outputs, strict=True)]
    return [each[place] for place in np.argsort(-entropy, kind="stable")]


def _gradients(network: Network) -> Callable[..., tf.Tensor]:
    def integrate(
        begin: tf.Tensor,
        end: tf.Tensor,
        nodes: tf.Tensor,
        weights: tf.Tensor,
        ids: tf.Tensor,
        output: tf.Tensor,
    ) -> tf.Tensor:
        """A part of the integral: embeddings (T', D) twice, nodes (N,), weights (N,), ids (T,) -> (T',)."""
        change = tf.cast(end - begin, tf.float32)
        points = tf.cast(begin, tf.float32)[None] + nodes[:, None, None] * change[None]
        rows = tf.tile(ids[None], (tf.shape(nodes)[0], 1))
        with tf.GradientTape() as tape:
            tape.watch(points)
            outputs = network.from_entry(tf.cast(points, end.dtype), rows)
            explained = tf.reduce_sum(tf.gather(outputs, output, axis=1))
        slopes = tape.gradient(explained, points)  # (N, T', D)
        return tf.reduce_sum(tf.einsum("n,ntd->td", weights, slopes) * change, axis=-1)

    return integrate


def _words_inside(real: np.ndarray, entries: int) -> np.ndarray:
    """Which of the tokens that each entry is made of belong to words: bool (n, n, T), the n-grams of length 1 to n.

    The order is that of `dlcli.layers.ngrams.HashedNGrams`: all tokens, then for n = 2, 3 ... the n-gram that begins at
    each token. [length - 1, offset, t] stands for the token `offset` places behind t.
    """
    longest, count = entries // len(real), len(real)
    inside = np.zeros((longest, longest, count), bool)
    for length in range(longest):
        for offset in range(min(length + 1, count)):
            inside[length, offset, : count - offset] = real[offset:]
    return inside


def _of_tokens(entered: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Attributions of what enters (T',) -> those of tokens (T,): an n-gram's is shared equally by its words' tokens."""
    share = entered.reshape(len(words), -1) / np.maximum(words.sum(axis=1), 1)  # (n, T)
    values = np.zeros(share.shape[1])
    for offset in range(len(words)):
        parts = (share * words[:, offset]).sum(axis=0)
        values[offset:] += parts[: len(values) - offset]
    return values
