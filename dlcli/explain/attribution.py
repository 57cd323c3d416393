"""What explaining takes and gives: a Subject, and an Attribution of one of the model's outputs to its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Subject:
    """One input to explain."""

    name: str
    """A path, `table.csv row 3`, or the beginning of a text: how a report names it."""
    inputs: Any
    """What the model reads, of this example alone: uint8 or float32 (H, W, C); int32 (T,) token ids with the special
    tokens around them and no padding; or a dict of columns, each (1,)."""
    words: tuple[str, ...] = ()
    """Of texts: the words, as they stand there; of tables the names of the columns."""
    word_of: np.ndarray | None = None
    """Of texts: int (T,), the word that each token belongs to; -1 for special tokens."""
    tokens: tuple[str, ...] = ()
    """Of texts: the T tokens as the vocabulary writes them."""
    original: Any = None
    """Of images: uint8 (H', W', C) as the file has it, when the model reads it at another size. Of texts: what stands
    before, between and behind the M words, M + 1 pieces."""
    notes: tuple[str, ...] = ()
    """What was done to it: `resized from 640x480 to 32x32`."""
    truth: str | None = None
    """What it is, of examples with a label."""

    @cached_property
    def digest(self) -> str:
        """Sha256 of what the model reads; seeds depend on it and not on the place in a batch."""
        digest = hashlib.sha256()
        parts = sorted(self.inputs.items()) if isinstance(self.inputs, Mapping) else [("", self.inputs)]
        for name, part in parts:
            array = np.asarray(part)
            content = repr(array.tolist()).encode() if array.dtype.kind in "OUS" else array.tobytes()
            digest.update(f"{name}:{array.dtype.kind}{array.shape}:".encode())
            digest.update(content)
        return digest.hexdigest()

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers that depend on the seed and this subject's content alone."""
        return np.random.default_rng([seed, int(self.digest[:15], 16)])


@dataclass(frozen=True)
class Unreadable:
    """What a user named and nothing can be made of."""

    name: str
    """As in `Subject`."""
    error: str


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of an input speaks for one output of the model."""

    values: np.ndarray
    """float32: (H, W) of an image's pixels, (T,) of a text's tokens, (D,) of a table's columns."""
    signed: bool
    """Whether values below 0 speak against the output; otherwise all are at least 0."""
    base: float | None = None
    """Where attributions should sum to f(x) - f(baseline): f(baseline). None for methods that promise no sum."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What the method knows of its own quality: `r2`, `segments`, `residual` ..."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it was made with: `layer`, `samples`, `steps`, `baseline` ..., of plain Python types."""
    warnings: tuple[str, ...] = ()
    """Sentences that belong on the picture: `R2 0.12 is below 0.3: ...`."""

    @property
    def problem(self) -> str | None:
        """Why there is nothing to draw: the map is flat or not finite; None when there is."""
        if not np.isfinite(self.values).all():
            return "not_finite"
        sizes = np.abs(self.values)
        # Equal attributions that are signed say that all parts speak alike; those of a map say nothing about places.
        spread = float(sizes.max(initial=0) if self.signed or self.values.size == 1 else np.ptp(self.values))
        return "flat_map" if spread <= FLAT * max(1.0, float(sizes.max(initial=0))) else None


FLAT = 1e-12
"""A map whose values differ by less, relative to the largest or to 1, shows nothing; signed ones: are no larger."""


class Players(Protocol):
    """The parts of one input that can be hidden: superpixels, words, columns. M of them."""

    count: int
    """M."""

    def value(self, present: np.ndarray) -> np.ndarray:
        """The explained output, float64 (N,), with only some parts present: bool (N, M)."""

    def spread(self, each: np.ndarray) -> np.ndarray:
        """A number for each part (M,) -> float32 `Attribution.values`, whose sum is that of the parts.

        A word's number is shared by its tokens, a superpixel's by its pixels.
        """


class Method(Protocol):
    """A row of METHODS."""

    def __call__(
        self, network: Any, subjects: Sequence[Subject], outputs: np.ndarray, **options: Any
    ) -> list[Attribution]:
        """Explains outputs[i] of subjects[i], which are all of one shape (texts may differ in length).

        Raises:
            DlcliError: the model has nothing that the method needs; the message names methods that work.
        """
