"""The parts of an input that insertion shows and deletion hides: pixels, words, columns."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from keras import tree

from dlcli.explain.attribution import Subject
from dlcli.explain.image.pixels import baseline_images, images_at_once
from dlcli.explain.network import BATCH_SIZE, Network
from dlcli.explain.table import players
from dlcli.explain.text import words

Hidden = Literal["insertion", "deletion"]
"""Whose rule says what stands in the place of hidden parts."""

CELL = 1 / 8
"""Side of the squares that a random order shows or hides at once, as a share of an image's longer side."""

BACKGROUND = 25
"""Rows of a table's background of which averages are made; areas under 20 points need no more."""


class Parts(Protocol):
    """The M parts of one input."""

    count: int
    """M."""

    def scores(self, values: np.ndarray) -> np.ndarray:
        """`Attribution.values` -> what each part got, float64 (M,)."""

    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """Scores (M,) that say nothing."""

    def outputs(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """The model's outputs, float64 (N, R, K), with only some parts present, bool (N, M); R are to be averaged."""


def parts_of(
    network: Network, subject: Subject, background: Any = None, batch_size: int = BATCH_SIZE
) -> Parts:
    """The parts of one subject.

    Args:
        network: the model.
        subject: the input.
        background: of tables: rows like the model's inputs, whose values take the place of hidden columns.
        batch_size: images in one call of the model.
    """
    if network.kind == "image":
        return Pixels(network, np.asarray(subject.inputs), batch_size)
    return Words(network, subject) if network.kind == "text" else Columns(network, subject, background)


class Pixels:
    """Pixels of an image: hidden ones are blurred for insertion, and of the image's mean colour for deletion.

    Both as in Petsiuk et al. 2018, "RISE", section 4.1, where a blur avoids the sharp edges that a model may take for
    evidence. A random order takes squares at once. Scattered single pixels are a noise that destroys any image: beside
    them the Grad-CAM of another picture seems better than random in 14 of 48 cases and worse in 13; beside squares in
    9 and 2 (ResNet-20, CIFAR-10; objects stand in the middle of most pictures, so that another picture's map is not
    all wrong).

    Args:
        network: the model.
        image: uint8 or float32 (H, W, C).
        batch_size: images in one call of the model.
    """

    def __init__(self, network: Network, image: np.ndarray, batch_size: int = BATCH_SIZE) -> None:
        self._network = network
        self._batch_size = min(batch_size, images_at_once(*image.shape[:2]))
        self.count = image.shape[0] * image.shape[1]
        self._image = image
        side = max(image.shape[:2])
        self._cell = max(1, round(side * CELL))
        self._fill = {
            "insertion": baseline_images(image[None], "blur")[0],
            "deletion": baseline_images(image[None], "mean")[0],
        }

    def scores(self, values: np.ndarray) -> np.ndarray:
        """The pixels' values, in the order of their rows."""
        return np.asarray(values, np.float64).reshape(-1)

    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """One number for all pixels of a square; the squares' grid lies at a random place."""
        height, width = self._image.shape[:2]
        down, right = generator.integers(self._cell, size=2)
        rows = (np.arange(height) + down) // self._cell
        columns = (np.arange(width) + right) // self._cell
        return generator.random((rows[-1] + 1, columns[-1] + 1))[np.ix_(rows, columns)].reshape(-1)

    def inputs(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """Images (N, H, W, C) of the model's own type."""
        seen = present.reshape(-1, *self._image.shape[:2], 1)
        return np.where(seen, self._image, self._fill[hidden])

    def outputs(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """Float64 (N, 1, K); a few images at a time, since large ones would be too much for the memory."""
        size = self._batch_size
        parts = [
            self._network.outputs(self.inputs(present[start : start + size], hidden), size)
            for start in range(0, len(present), size)
        ]
        return np.concatenate(parts)[:, None]


class Words:
    """Words of a text, hidden as `dlcli.explain.text.words.Words` hides them: they are removed.

    Args:
        network: the model.
        subject: a text; tokens of no word are always present.
    """

    def __init__(self, network: Network, subject: Subject) -> None:
        self._subject = subject
        self._players = words.Words(network, subject)
        self.count = self._players.count

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Sums over the tokens of each word."""
        return words.sums_of_words(self._subject, values)

    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """A number for each word."""
        return generator.random(self.count)

    def outputs(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """Float64 (N, 1, K)."""
        return self._players.outputs(present)[:, None]


class Columns:
    """Columns of a row, hidden as `dlcli.explain.table.players.Columns` hides them: they take the background's values.

    Args:
        network: of a table.
        subject: the row.
        background: rows like the model's inputs.
    """

    def __init__(self, network: Network, subject: Subject, background: Any) -> None:
        if background is not None:
            rows = len(tree.flatten(background)[0])
            chosen = np.arange(min(rows, BACKGROUND)) * rows // min(rows, BACKGROUND)
            background = tree.map_structure(lambda column: column[chosen], background)
        self._players = players.Columns(network, subject, 0, background)
        self.count = self._players.count

    def scores(self, values: np.ndarray) -> np.ndarray:
        """The columns' values."""
        return np.asarray(values, np.float64)[self._players.columns]

    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """A number for each column."""
        return generator.random(self.count)

    def outputs(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """Float64 (N, R, K), of each of the background's R rows."""
        return self._players.outputs(present)
