"""Augmentation on batches, inside tf.data: a recipe's list becomes one function of a batch and its position.

Each function of the table IMAGE_AUGMENTATIONS is `augment(images, targets, position, *, ...) -> images, targets`,
with images (B, H, W, C) in [0, 255], uint8 or float32, C 1 or 3, and a draw of its own for each image. What
only copies pixels keeps the dtype, the rest returns float32: so uint8 images are cast once, only when needed.
"""

from __future__ import annotations

import pkgutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from dlcli.data import IMAGE_AUGMENTATIONS, MIXING
from dlcli.recipe.schema import Spec

Augment = Callable[[Any, tf.Tensor, "Position"], tuple[Any, tf.Tensor]]
"""(images, targets, position) -> (images, targets)."""


@dataclass(frozen=True)
class Position:
    """Where in the training a batch stands: all that augmentation may draw from."""

    key: tf.Tensor
    """int32 scalar: which augmentation of which seed; the same in every step."""
    step: tf.Tensor
    """int64 scalar, counted over the whole training."""
    epoch: tf.Tensor
    """int64 scalar."""
    indices: tf.Tensor
    """int32 (B,): which examples of the train split these are."""
    rows: tf.Tensor | None = None
    """int32 (B,): where they stand in the whole batch, when other processes have the rest of it; None: this is all."""
    size: tf.Tensor | None = None
    """int32 scalar: examples of the whole batch; None: as many as there are here."""
    before: int = 0
    """How many of them stand before this process's own, for what mixes images with the one before."""

    @classmethod
    def of(cls, seed: int, step: tf.Tensor, epoch: tf.Tensor, indices: tf.Tensor) -> Position:
        """The position of a whole batch, before any augmentation has its own key."""
        return cls(tf.constant(seed, tf.int32), step, epoch, indices)

    def at(self, rows: tf.Tensor, before: int = 0) -> Position:
        """The position of some rows of this whole batch; the arguments are the fields of these names."""
        indices = tf.gather(self.indices, rows)
        return replace(self, indices=indices, rows=rows, size=tf.size(self.indices), before=before)

    @property
    def whole(self) -> tf.Tensor:
        """int32 scalar: examples of the whole batch. Draws are made for all of them."""
        return tf.size(self.indices) if self.size is None else self.size

    def own(self, drawn: tf.Tensor) -> tf.Tensor:
        """Of what was drawn for the whole batch (B, ...), the lines of the examples that are here.

        Sines, exponentials and the like belong before the cut: the last numbers of a vector may take another path
        through the processor than those before, and differ in the last bit.
        """
        return drawn if self.rows is None else tf.gather(drawn, self.rows)

    def keyed(self, name: str) -> Position:
        """The same place with an independent source of randomness."""
        # Adding wraps around in int32: distinct names stay distinct for every seed.
        return replace(self, key=self.key + tf.constant(_crc(name), tf.int32))

    @property
    def seed(self) -> tf.Tensor:
        """int32 (2,), for tf.random.stateless_*; no two augmentations and no two steps share it."""
        return tf.stack([self.key, tf.cast(self.step, tf.int32)])

    def uniform(self, columns: int) -> list[tf.Tensor]:
        """`columns` draws in [0, 1) for each image that is here, each float32 (B,)."""
        return [self.own(draws) for draws in self.uniform_of_all(columns)]

    def uniform_of_all(self, columns: int) -> list[tf.Tensor]:
        """The same for each image of the whole batch, for what is computed before `own`."""
        draws = tf.random.stateless_uniform([columns, self.whole], self.seed)
        return tf.unstack(draws, num=columns)

    def phase(self, period: int) -> tf.Tensor:
        """int32 (B,) in [0, period): belongs to the example, so it is the same in every epoch."""
        # A keyed permutation of all indices serves as the hash: its low bits are as good as random.
        key = tf.stack([self.key, 0, 0])
        scattered = tf.raw_ops.RandomIndexShuffle(
            index=self.indices, seed=key, max_index=2**30 - 1, rounds=12
        )
        return scattered % period


def build_augment(specs: Sequence[Spec], alike: bool = False) -> Augment | None:
    """One function that applies the augmentations in their order; None when there are none.

    Of a dict of images each part is changed, with draws of its own.

    Images leave it in the dtype in which they came, uint8 rounded: a network with a uint8 input would cut off
    the fractions without a word.

    Args:
        specs: names of the table IMAGE_AUGMENTATIONS with their arguments.
        alike: whether the parts of a dict get the same draws, because their images belong together.
    """
    mixing = rows_before(specs)
    steps = [
        (f"{place}:{spec.name}", _builder(spec.name), spec.arguments) for place, spec in enumerate(specs)
    ]
    if not steps:
        return None

    def augment(images: Any, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        if isinstance(images, dict):
            places = {name: position if alike else position.keyed(name) for name in images}
            return {name: augment(part, targets, places[name])[0] for name, part in images.items()}, targets
        dtype = images.dtype
        if position.rows is not None and position.before < mixing:
            raise ValueError(f"Expected {mixing} examples before those to keep. Received: {position.before}")
        for name, function, arguments in steps:
            images, targets = function(images, targets, position.keyed(name), **arguments)
        if images.dtype != dtype and dtype.is_integer:
            images = tf.round(images)
        return tf.cast(images, dtype), targets

    return augment


def mixes_targets(specs: Sequence[Spec]) -> bool:
    """Whether these augmentations need float targets (`one_hot_classes` of the stream)."""
    return any(spec.name in MIXING for spec in specs)


def rows_before(specs: Sequence[Spec]) -> int:
    """How many examples before its own a process reads for these augmentations: mixing looks at the one before."""
    return sum(spec.name in MIXING for spec in specs)


def between(draw: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """A draw in [0, 1) stretched to [low, high)."""
    return low + draw * (high - low)


def as_float(images: tf.Tensor) -> tf.Tensor:
    """Images as float32 (no operation when they are)."""
    return tf.cast(images, tf.float32)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


def _builder(name: str) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    if name not in IMAGE_AUGMENTATIONS:
        raise ValueError(f"Unknown augmentation {name!r}; known: {', '.join(sorted(IMAGE_AUGMENTATIONS))}")
    return pkgutil.resolve_name(IMAGE_AUGMENTATIONS[name])


def _crc(name: str) -> int:
    """A signed 32-bit hash that is the same in every process (Python's own is not)."""
    return zlib.crc32(name.encode()) - 2**31
