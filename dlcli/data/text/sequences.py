"""Sequences of tokens that a network reads: gathered from memory-mapped ids and padded in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import tensorflow as tf

from dlcli.data.examples import shared_tensor
from dlcli.data.text.tokenizer import PAD, UNKNOWN
from dlcli.data.text.vocabulary import TokenTexts


class TokenSequences:
    """N sequences of tokens; a batch is padded to its own longest one.

    Args:
        tokens: the ids, of which only the first `max_length` (special tokens included) of each text are read.
        max_length: the longest sequence.
        targets: whatever the loss compares with, (N, ...); see `TokenPairs` for sequences.
        prefix: special tokens before each text.
        suffix: special tokens after each text; a text that is cut keeps them.
    """

    def __init__(
        self,
        tokens: TokenTexts,
        max_length: int,
        targets: np.ndarray,
        prefix: tuple[int, ...] = (),
        suffix: tuple[int, ...] = (),
    ) -> None:
        if len(tokens) != len(targets):
            raise ValueError(f"Expected as many targets as texts. Received: {len(tokens)} and {len(targets)}")
        room = max_length - len(prefix) - len(suffix)
        if room < 1:
            raise ValueError(f"Expected max_length above {len(prefix) + len(suffix)}. Received: {max_length}")
        self.targets = targets
        self.num_cut = int(np.sum(tokens.lengths > room))
        """Texts of which something is cut."""
        self._source = _Flat(tokens.ids)
        self._starts = _Flat(tokens.starts)
        self._inner = _Flat(np.minimum(tokens.lengths, room).astype(np.int64))
        self._prefix, self._suffix = prefix, suffix

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): tokens of each sequence; at least 1, since an empty text reads as `<unk>`."""
        return np.maximum(self._inner.array + len(self._prefix) + len(self._suffix), 1)

    def subset(self, indices: np.ndarray) -> TokenSequences:
        """The sequences at `indices`: a view."""
        part = copy(self)
        part.targets = self.targets[indices]
        part._starts, part._inner = _Flat(self._starts.array[indices]), _Flat(self._inner.array[indices])
        return part

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T), T the longest of the batch; 0 after the end of each sequence."""
        starts, inner = self._starts.gather(indices), self._inner.gather(indices)
        before, after = len(self._prefix), len(self._suffix)
        width = tf.maximum(tf.reduce_max(inner) + before + after, 1)
        places = tf.range(width)[None, :] - before  # (1, T), 0 at a text's first token
        ends = inner[:, None]
        inside = (places >= 0) & (places < ends)
        ids = tf.cast(self._source.gather(tf.where(inside, starts[:, None] + places, 0)), tf.int32)
        tokens = tf.where(inside, ids, PAD)
        if not before + after:  # an empty text would be all padding, of which no layer makes anything
            tokens = tf.where((places == 0) & (ends == 0), UNKNOWN, tokens)
        for position, token in enumerate(self._prefix):
            tokens = tf.where(places == position - before, token, tokens)
        for position, token in enumerate(self._suffix):
            tokens = tf.where(places == ends + position, token, tokens)
        return tokens


class TokenWindows:
    """Windows of a stream of tokens, each with the tokens that follow: input i predicts target i.

    Args:
        ids: all tokens one after another.
        length: tokens of a window.
        stride: tokens between the starts of two windows; `length` shows each token once an epoch.
    """

    def __init__(self, ids: np.ndarray, length: int, stride: int) -> None:
        if len(ids) < 2:
            raise ValueError(f"Expected at least 2 tokens. Received: {len(ids)}")
        self.length = min(length, len(ids) - 1)
        self.stride = stride
        self._source = _Flat(ids)
        self.targets: np.ndarray = np.zeros((len(ids) - self.length - 1) // stride + 1, np.int8)
        """Zeros (N,): the targets are sequences, which `read_targets` reads."""
        self._rows: _Flat | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: np.ndarray) -> TokenWindows:
        """The windows at `indices`: a view."""
        part = copy(self)
        part.targets = self.targets[indices]
        part._rows = _Flat(indices if self._rows is None else self._rows.array[indices])
        return part

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T)."""
        return self._window(indices, 0)

    def read_targets(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T): the inputs, one token further on."""
        return self._window(indices, 1)

    def _window(self, indices: tf.Tensor, shift: int) -> tf.Tensor:
        rows = indices if self._rows is None else self._rows.gather(indices)
        starts = tf.cast(rows, tf.int64) * self.stride + shift
        places = starts[:, None] + tf.range(self.length, dtype=tf.int64)[None, :]
        return tf.cast(self._source.gather(places), tf.int32)


class TokenPairs:
    """Several sequences for each example: the inputs by name, and a sequence as target.

    Args:
        inputs: name -> sequences, all of the same number.
        target_sequences: what the loss compares with.
    """

    def __init__(self, inputs: Mapping[str, TokenSequences], target_sequences: TokenSequences) -> None:
        self.inputs = dict(inputs)
        self.target_sequences = target_sequences

    def __len__(self) -> int:
        return len(self.target_sequences)

    @property
    def targets(self) -> np.ndarray:
        """Zeros (N,): the targets are sequences, which `read_targets` reads."""
        return self.target_sequences.targets

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): tokens of all the sequences of an example together."""
        return np.sum([sequences.lengths for sequences in self.inputs.values()], axis=0)

    def subset(self, indices: np.ndarray) -> TokenPairs:
        """The examples at `indices`: a view."""
        parts = {name: sequences.subset(indices) for name, sequences in self.inputs.items()}
        return TokenPairs(parts, self.target_sequences.subset(indices))

    def read(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Name -> int32 (B, T), each padded to its own longest."""
        return {name: sequences.read(indices) for name, sequences in self.inputs.items()}

    def read_targets(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T)."""
        return self.target_sequences.read(indices)


def padded(
    rows: Sequence[np.ndarray], max_length: int, prefix: tuple[int, ...] = (), suffix: tuple[int, ...] = ()
) -> np.ndarray:
    """int32 (B, T): ids outside a graph, as `TokenSequences.read` gives them inside one.

    Args:
        rows: the ids of each text.
        max_length: the longest sequence.
        prefix: special tokens before each text.
        suffix: special tokens after each text; a text that is cut keeps them.
    """
    room = max_length - len(prefix) - len(suffix)
    width = max([1, *(min(len(row), room) + len(prefix) + len(suffix) for row in rows)])
    tokens = np.full((len(rows), width), PAD, np.int32)
    for line, row in zip(tokens, rows, strict=True):
        whole = [*prefix, *row[:room], *suffix] or [UNKNOWN]
        line[: len(whole)] = whole
    return tokens


class _Flat:
    """One array, and its tensor once a graph reads it: shared by an object and its copies."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._tensor: Any = None

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        """The elements at `places`, in their shape and the array's dtype."""
        if self._tensor is None:
            # Outside the graph a tensor is captured by reference, not copied into it; and a corpus has no place
            # in a GPU's memory.
            with tf.init_scope(), tf.device("/CPU:0"):
                self._tensor = shared_tensor(self.array if len(self.array) else np.zeros(1, self.array.dtype))
        return tf.gather(self._tensor, places)
