"""The data set `unpaired_images`: two folders of images, of which no two belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.augmentation import Position
from dlcli.data.examples import DataInfo, Examples, Source
from dlcli.data.image_listing import SPLITS, list_two_sides
from dlcli.data.images import image_preprocessing
from dlcli.data.listed_images import read_files
from dlcli.data.stream import SHUFFLE_ROUNDS
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize


def unpaired_images(
    *,
    path: Path,
    image_size: ImageSize | None = None,
    color_mode: Literal["auto", "rgb", "grayscale"] = "auto",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """Images of two kinds in `trainA/*` and `trainB/*`, perhaps with `testA/*` and `testB/*`, as CycleGAN's own data.

    The two may differ in number. An epoch shows each image of the larger set once; the smaller set begins again, in
    a new order, when all of it has been seen.

    Args:
        path: the folder; `valA` and `valB` are a validation split.
        image_size: one side or [height, width] that every image is resized to; needed when the images differ in size.
        color_mode: `rgb`, `grayscale`, or `auto`: grey when all images of both sets are.
        on_bad_file: `error` refuses to start while a file cannot be read; `skip` leaves those out and counts them.
    """
    root = Path(path).expanduser()
    files = read_files(list_two_sides(root), image_size, color_mode, on_bad_file)
    listing = files.listing

    def part(split: int) -> UnpairedExamples | None:
        sides = [files.part((listing.splits == split) & (listing.targets == side)) for side in (0, 1)]
        return None if sides[0] is None or sides[1] is None else UnpairedExamples(sides[0], sides[1])

    train, validation, test = (part(split) for split in range(len(SPLITS)))
    if train is None:
        raise DataError(f"{root}: no images of the train split")
    notes = [*files.notes, f"{len(train.a)} train images of A and {len(train.b)} of B"]
    if test is None:
        notes.append(
            "there is no test split (testA, testB): `dlcli evaluate` needs `--split` validation or train"
        )
    info = DataInfo(
        kind="unpaired_images",
        input_shape=files.shape,
        target="images",
        notes=tuple(notes),
        fingerprint=listing.fingerprint(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, files.shape)

    return Source(train, info, preprocess, test=test, validation=validation)


class UnpairedExamples:
    """Two sets of images of one shape; N is the number of the larger one.

    Args:
        a: images of the one kind.
        b: images of the other.
    """

    def __init__(self, a: Examples, b: Examples) -> None:
        self.a, self.b = a, b
        self.targets = np.zeros(max(len(a), len(b)), np.int32)

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: np.ndarray) -> UnpairedExamples:
        """Of both sets the images at `indices`, as far as there are any: so two disjoint subsets share no image.

        Raises:
            DataError: the smaller set has none there.
        """
        parts = []
        for name, side in (("A", self.a), ("B", self.b)):
            chosen = indices[indices < len(side)]
            if not len(chosen):
                raise DataError(
                    f"dataset.validation_split leaves no image of {name}, of which there are {len(side)}: raise it, "
                    "or set it to 0 to train without validation"
                )
            parts.append(side.subset(chosen))
        return UnpairedExamples(*parts)

    def read(self, indices: tf.Tensor) -> dict[str, Any]:
        """uint8 (B, H, W, C) of each set; the smaller one is repeated."""
        return {name: side.read(indices % len(side)) for name, side in (("a", self.a), ("b", self.b))}

    def read_at(self, position: Position, seed: int) -> dict[str, Any]:
        """A train batch: the larger set at its indices, the smaller one in passes of its own, each in a new order.

        A pure function of its arguments, as all that the stream reads; every batch has as many images.

        Args:
            position: of the batch.
            seed: of the order.
        """
        # Of two sets of one size the second one has passes of its own, or always the same two images would meet.
        others = _in_passes(min(len(self.a), len(self.b)), position.whole, seed, position.step)
        both = position.indices, position.own(others)
        first, second = both if len(self.a) >= len(self.b) else reversed(both)
        return {"a": self.a.read(first), "b": self.b.read(second)}


def _in_passes(length: int, count: tf.Tensor, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Which of `length` examples stand in a step when pass follows pass without a gap."""
    places = step * tf.cast(count, tf.int64) + tf.range(tf.cast(count, tf.int64))
    passes = places // length
    # The stream's own shuffle of the larger set has 0 in the last place.
    keys = tf.stack(
        [tf.fill(tf.shape(passes), tf.constant(seed, tf.int64)), passes, tf.ones_like(passes)], axis=1
    )
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.cast(places % length, tf.int32), seed=keys, max_index=length - 1, rounds=SHUFFLE_ROUNDS
    )
