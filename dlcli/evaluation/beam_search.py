"""Beam search: sources -> the most probable translations that a model finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.text.sequences import padded
from dlcli.data.text.tokenizer import END, MASK, PAD, START, Tokenizer
from dlcli.layers.output_projection import projection_of

NEVER_WRITTEN = (PAD, START, MASK)
"""Tokens that no translation holds; the loss never saw them as targets, so their logits say nothing."""

ROWS = 256
"""Translations that are carried on at once: sentences times beams."""

LARGEST_LOGITS = 2**24
"""Fewer of them for large vocabularies: numbers that a batch of logits may hold (64 MB)."""

EXTRA_TOKENS = 50
"""A translation ends at the latest when it is this much longer than its source (Vaswani et al. 2017, section 6.1)."""

Advance = Callable[[int], None]
"""Told how many sentences are done."""


@dataclass
class Hypotheses:
    """One sentence: the translations that are carried on, and those that are complete."""

    limit: int
    """Tokens of the longest translation, `<end>` included."""
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    """Length-normalized log-probability and tokens, without `<start>` and `<end>`."""

    @property
    def best(self) -> tuple[float, list[int]]:
        """The best complete one."""
        return max(self.finished, key=lambda each: each[0], default=(-np.inf, []))


def translate(
    model: keras.Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    max_length: int,
    advance: Advance | None = None,
) -> list[str]:
    """Translates texts with the beam search of Wu et al. 2016 (section 7), without its coverage penalty.

    At each step every translation is continued by every token, and the `beam_size` most probable ones go on. One of
    these that ends is set aside, and the next best goes on in its place. A sentence is done when `beam_size`
    translations were set aside and none that goes on is better than the best of them, or at its longest length,
    where only `<end>` is allowed.

    Args:
        model: of task `translation`: `source` and `target` -> logits (B, T, V).
        tokenizer: the model's.
        texts: to translate; one that is too long is cut.
        beam_size: 1 is greedy search.
        length_penalty: alpha; see `length_normalizer`.
        max_length: tokens of source and target that the model reads.
        advance: told of sentences that are done.

    Returns:
        A translation for each text, in their order.
    """
    sources = tokenizer.encode(texts)
    order = np.argsort([-len(source) for source in sources], kind="stable")
    steps = Steps(model, beam_size)
    size = max(1, min(ROWS, LARGEST_LOGITS // steps.vocabulary_size) // beam_size)
    translations: list[list[int]] = [[] for _ in texts]
    for start in range(0, len(order), size):
        places = order[start : start + size].tolist()
        tokens = padded([sources[place] for place in places], max_length, suffix=(END,))
        for place, found in zip(
            places, search(steps, tokens, beam_size, length_penalty, max_length), strict=True
        ):
            translations[place] = found
        if advance is not None:
            advance(len(places))
    return tokenizer.decode_batch(translations)


def length_normalizer(length: int, length_penalty: float) -> float:
    """What the log-probability of a translation is divided by: ((5 + n) / 6) ** alpha, Wu et al. 2016, equation 14.

    Args:
        length: tokens n, `<end>` included.
        length_penalty: alpha; 0 leaves the log-probability as it is, more favours long translations.
    """
    return ((5 + length) / 6) ** length_penalty


class Steps:
    """A model of task `translation` cut in two, so that the encoder runs once for each sentence.

    The cut is where the architecture's layers `memory*` end and its layer `target_tokens` begins.

    Args:
        model: `source` and `target` -> logits (B, T, V).
        beam_size: K.
    """

    def __init__(self, model: keras.Model, beam_size: int) -> None:
        layers = {layer.name: layer for layer in model.layers}
        inputs = {tensor.name: tensor for tensor in model.inputs}
        memory = [layer.output for name, layer in layers.items() if name.startswith("memory")]
        target = layers["target_tokens"].output
        encoder = keras.Model(inputs["source"], memory)
        decoder = keras.Model([target, *memory], layers["features"].output)
        project = projection_of(model)
        self.vocabulary_size = int(model.output.shape[-1])
        self.beam_size = beam_size
        banned = np.zeros((2, self.vocabulary_size), np.float32)
        banned[0, list(NEVER_WRITTEN)] = -np.inf
        banned[1, :] = -np.inf  # where a translation must end
        banned[1, END] = 0
        tokens = tf.TensorSpec((None, None), tf.int32)
        of_memory = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in memory]
        count = min(2 * beam_size, beam_size * self.vocabulary_size)

        @tf.function(input_signature=[tokens])
        def encode(source: tf.Tensor) -> list[tf.Tensor]:
            return [
                tf.repeat(part, beam_size, axis=0)
                for part in tf.nest.flatten(encoder(source, training=False))
            ]

        @tf.function(
            input_signature=[
                tokens,
                of_memory,
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None,), tf.bool),
            ]
        )
        def extend(
            target: tf.Tensor, memory: list[tf.Tensor], scores: tf.Tensor, ends: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            features = decoder([target, *memory], training=False)
            logits = project(features[:, -1:])[:, 0]  # (N * K, V)
            total = scores[:, None] + tf.nn.log_softmax(logits) + tf.gather(banned, tf.cast(ends, tf.int32))
            return tf.math.top_k(tf.reshape(total, (-1, beam_size * self.vocabulary_size)), count)

        self.encode = encode
        """Sources (N, S) -> what the decoder sees of them, each sentence K times: (N * K, ...)."""
        self.extend = extend
        """Targets so far (N * K, T), memory, their log-probabilities (N * K,) and whether they must end ->
        log-probabilities and places beam * V + token of the best 2 K continuations of each sentence, (N, 2 K)."""


def search(
    steps: Steps, sources: np.ndarray, beam_size: int, length_penalty: float, max_length: int
) -> list[list[int]]:
    """The best translation of each source.

    Args:
        steps: the model.
        sources: int32 (N, S), each with its `<end>`.
        beam_size: K.
        length_penalty: alpha.
        max_length: tokens of the longest translation.

    Returns:
        N lists of tokens, without `<start>` and `<end>`.
    """
    lengths = (sources != PAD).sum(axis=1)
    sentences = [Hypotheses(min(max_length, int(length) + EXTRA_TOKENS)) for length in lengths]
    active = list(sentences)
    memory = steps.encode(tf.constant(sources))
    targets = np.full((len(sources) * beam_size, 1), START, np.int32)
    # At first all beams of a sentence are the same one: only one of them counts.
    scores = np.where(np.arange(len(targets)) % beam_size == 0, 0, -np.inf).astype(np.float32)
    while active:
        length = targets.shape[1]
        ends = np.repeat([length >= sentence.limit for sentence in active], beam_size)
        found = steps.extend(tf.constant(targets), memory, tf.constant(scores), tf.constant(ends))
        values, places = (each.numpy() for each in found)
        beams, tokens = np.divmod(places, steps.vocabulary_size)
        rows = beams + beam_size * np.arange(len(active))[:, None]
        _set_aside(active, targets, (values, rows, tokens), beam_size, length_penalty)
        # The best that do not end, in their order.
        kept = np.argsort(tokens == END, axis=1, kind="stable")[:, :beam_size]
        values, rows, tokens = (np.take_along_axis(each, kept, axis=1) for each in (values, rows, tokens))
        normalized = values[:, 0] / length_normalizer(length, length_penalty)
        going = [
            length < each.limit and (len(each.finished) < beam_size or score > each.best[0])
            for each, score in zip(active, normalized, strict=True)
        ]
        targets = np.concatenate([targets[rows[going].ravel()], tokens[going].reshape(-1, 1)], axis=1)
        scores = values[going].ravel()
        if not all(going):
            active = [sentence for sentence, goes_on in zip(active, going, strict=True) if goes_on]
            left = np.flatnonzero(np.repeat(going, beam_size))
            memory = [tf.gather(part, left) for part in memory]
    return [sentence.best[1] for sentence in sentences]


def _set_aside(
    active: list[Hypotheses],
    targets: np.ndarray,
    candidates: tuple[np.ndarray, np.ndarray, np.ndarray],
    beam_size: int,
    length_penalty: float,
) -> None:
    """Keeps the translations that end, if they are among the best `beam_size` candidates of their sentence.

    Args:
        active: N sentences.
        targets: int32 (N * K, T), what is written so far.
        candidates: log-probabilities, rows of `targets` and tokens, each (N, 2 K), best first.
        beam_size: K.
        length_penalty: alpha.
    """
    values, rows, tokens = (each[:, :beam_size] for each in candidates)
    normalizer = length_normalizer(targets.shape[1], length_penalty)
    for sentence, rank in zip(*np.nonzero((tokens == END) & np.isfinite(values)), strict=True):
        written = targets[rows[sentence, rank], 1:].tolist()
        active[sentence].finished.append((float(values[sentence, rank]) / normalizer, written))
