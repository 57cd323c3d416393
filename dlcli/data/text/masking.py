"""Corruption of tokens for pretraining: stateless, so that a batch is a function of the seed and its examples alone.

Chosen tokens leave with a negative id: the network learns from the sign where to predict, and reads the absolute
value.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Augment, Position
from dlcli.data.text.tokenizer import MASK, SPECIAL_TOKENS

FIRST_WORD = len(SPECIAL_TOKENS)
"""The first id that is no special token."""

# One draw of 62 bits serves a token: whether it is chosen, what is done to it, and which token replaces it.
_BITS = 62
_ACTIONS, _TOKENS = 2**12, 2**30
_PLACES = 2**20  # longer than any sequence: max_length is at most 1,000,000


def build_masking(
    rate: float,
    vocabulary_size: int,
    *,
    begins_words: np.ndarray | None = None,
    dynamic: bool = True,
) -> Augment:
    """`mask_tokens` with its settings: what `Task.corrupt` returns.

    Args:
        rate: share of tokens (or of words) that are chosen, 0 to 1.
        vocabulary_size: V.
        begins_words: bool (V,): choose whole words, whose first tokens these are; None chooses token by token.
        dynamic: another choice in each epoch (Liu et al. 2019, "RoBERTa", section 4.1), or always the same.
    """
    return partial(
        mask_tokens,
        rate=rate,
        vocabulary_size=vocabulary_size,
        begins_words=begins_words,
        dynamic=dynamic,
    )


def build_marking(rate: float) -> Augment:
    """`mark_tokens` with its share: what `Task.corrupt` returns."""
    return partial(mark_tokens, rate=rate)


def mask_tokens(
    ids: tf.Tensor,
    targets: tf.Tensor,
    position: Position,
    *,
    rate: float,
    vocabulary_size: int,
    begins_words: np.ndarray | None = None,
    dynamic: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses tokens to predict: 80 % become `<mask>`, 10 % a token drawn uniformly, 10 % stay as they are.

    Devlin et al. 2019, "BERT", section 3.1.

    Args:
        ids: int32 (B, T), 0 for padding.
        targets: not read.
        position: of the batch; each example draws from (key, epoch, its index).
        rate: as in `build_masking`, like the rest.
        vocabulary_size: V.
        begins_words: bool (V,) or None.
        dynamic: whether the epoch counts.

    Returns:
        ids (B, T), negative where a token was chosen; and targets (B, T): the original ids there, else 0. Special
        tokens are never chosen.
    """
    chosen, action, drawn = _draws(ids, position.keyed("masking"), dynamic)
    if begins_words is not None:
        chosen = _of_words(chosen, ids, begins_words)
    choose = (chosen < rate) & (ids >= FIRST_WORD)
    replacement = FIRST_WORD + tf.cast(drawn % (vocabulary_size - FIRST_WORD), tf.int32)
    hidden = tf.where(action < 0.8, MASK, tf.where(action < 0.9, replacement, ids))
    return tf.where(choose, -hidden, ids), tf.where(choose, ids, 0)


def mark_tokens(
    ids: tf.Tensor, targets: tf.Tensor, position: Position, *, rate: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses tokens that a generator is to fill in; others in each epoch.

    Args:
        ids: int32 (B, T), 0 for padding.
        targets: not read.
        position: of the batch.
        rate: share of the tokens that are chosen.

    Returns:
        ids (B, T), negative where a token was chosen; and the ids as they were.
    """
    chosen, _, _ = _draws(ids, position.keyed("masking"), dynamic=True)
    return tf.where((chosen < rate) & (ids >= FIRST_WORD), -ids, ids), ids


def swap_tokens(
    ids: tf.Tensor, targets: tf.Tensor, position: Position, *, rate: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts tokens of the same batch in the place of others: frequent ones come often, as in the text.

    Args:
        ids: int32 (B, T), 0 for padding.
        targets: not read.
        position: of the batch.
        rate: share of tokens to replace; some draw the token that stands there, or a special one, and stay.

    Returns:
        ids (B, T), and targets (B, T): 2 where the token is another one now, 1 where it is not, 0 for padding.
    """
    chosen, _, drawn = _draws(ids, position.keyed("swapping"), dynamic=False)
    others = tf.gather(tf.reshape(ids, [-1]), drawn % tf.size(ids, tf.int64))
    words = (ids >= FIRST_WORD) & (others >= FIRST_WORD)
    swapped = tf.where((chosen < rate) & words, others, ids)
    return swapped, tf.where(ids == 0, 0, tf.where(swapped == ids, 1, 2))


def _draws(ids: tf.Tensor, position: Position, dynamic: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Two draws in [0, 1) and one in [0, 2**30) for each token, each (B, T).

    A keyed permutation of (example, place in it) serves as the hash; so neither the batch size nor the order of the
    examples matters.
    """
    places = tf.range(tf.shape(ids, tf.int64)[1])
    numbers = tf.cast(position.indices, tf.int64)[:, None] * _PLACES + places
    epoch = position.epoch + 1 if dynamic else tf.zeros([], tf.int64)
    key = tf.stack([tf.cast(position.key, tf.int64), epoch, tf.zeros([], tf.int64)])
    hashed = tf.raw_ops.RandomIndexShuffle(
        index=tf.reshape(numbers, [-1]), seed=key, max_index=tf.constant(2**_BITS - 1, tf.int64), rounds=24
    )
    hashed = tf.reshape(hashed, tf.shape(ids))
    chosen = tf.cast(hashed // (_ACTIONS * _TOKENS), tf.float32) / (2**_BITS // (_ACTIONS * _TOKENS))
    action = tf.cast(hashed // _TOKENS % _ACTIONS, tf.float32) / _ACTIONS
    return chosen, action, hashed % _TOKENS


def _of_words(draws: tf.Tensor, ids: tf.Tensor, begins_words: np.ndarray) -> tf.Tensor:
    """One draw for all the tokens of a word, (B, T)."""
    special = ids < FIRST_WORD
    after_special = tf.pad(special[:, :-1], [[0, 0], [1, 0]], constant_values=True)
    begins = tf.gather(tf.constant(begins_words), ids) | special | after_special
    words = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1  # (B, T), which word of its row
    return tf.gather(draws, words, batch_dims=1)
