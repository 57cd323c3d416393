"""The network in whose features images are compared: what it makes of them, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.architectures.application import application
from dlcli.data.examples import Examples
from dlcli.errors import DlcliError
from dlcli.pretrained.graph import Cut, replay
from dlcli.pretrained.head import before_named
from dlcli.runs import Run, load_run

BATCH_SIZE = 100
INCEPTION_SIDE = 299
"""Pixels a side of the images that Inception v3 was trained on."""


class Described(NamedTuple):
    """Images as the network sees them."""

    features: np.ndarray
    """float32 (N, D)."""
    probabilities: np.ndarray | None
    """(N, K) of the network's own classes; None when it is no classifier of the user's."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network, from uint8 images (B, H, W, C) of any size to features."""

    source: str
    """What the user named: the path of a run, or imagenet."""
    model: keras.Model
    """uint8 images (B, h, w, c) -> features (B, D), and for a run probabilities (B, K)."""
    class_names: tuple[str, ...] = ()
    """Of the probabilities, in index order."""

    @property
    def is_imagenet(self) -> bool:
        """Whether distances are in the features of Inception v3, as those that papers call FID are."""
        return self.source == "imagenet"

    def changes(self, image_shape: tuple[int, ...]) -> str | None:
        """In words, what images of this shape go through before the network; None when nothing."""
        (height, width, channels), wanted = image_shape, self.model.input.shape[1:]
        steps = []
        if channels != wanted[2]:
            steps.append("made grey" if wanted[2] == 1 else "given three equal channels")
        if (height, width) != tuple(wanted[:2]):
            steps.append(f"resized from {height}x{width} to {wanted[0]}x{wanted[1]} (bilinear)")
        return " and ".join(steps) or None

    def describe(self, batches: Iterable[np.ndarray]) -> Described:
        """Features of uint8 images, batch by batch."""
        features: list[np.ndarray] = []
        probabilities: list[np.ndarray] = []
        for images in batches:
            compiled = _compiled(self.model, images.shape[1:])
            for start in range(0, len(images), BATCH_SIZE):
                outputs = compiled(tf.constant(images[start : start + BATCH_SIZE]))
                features.append(outputs[0].numpy())
                probabilities += [each.numpy() for each in outputs[1:]]
        return Described(np.concatenate(features), np.concatenate(probabilities) if probabilities else None)


def find_network(source: str) -> FeatureNetwork:
    """The network that `metrics.features` names; it is loaded once.

    Raises:
        DlcliError: no such run, one that does not classify images, or weights that cannot be had.
    """
    if source.lower() == "imagenet":
        return _inception()
    if not Path(source).expanduser().exists():
        raise DlcliError(
            f"metrics.features {source}: no such run folder; allowed: a run of task image_classification, or imagenet "
            "(Inception v3)"
        )
    run = load_run(source)
    if run.recipe.task.name != "image_classification":
        raise DlcliError(
            f"metrics.features {source}: a run of task {run.recipe.task.name}; allowed: a run of task "
            "image_classification, trained on images such as those that are drawn, or imagenet"
        )
    written = run.model_path.stat().st_mtime_ns if run.model_path.is_file() else 0
    return _of_run(str(run.path.absolute()), written, source)


@lru_cache(maxsize=1)
def _of_run(path: str, written: int, source: str) -> FeatureNetwork:
    """`written` is when the model file was, so that a run in the same place is read anew."""
    from dlcli.tasks.classification import ImageClassification

    model = Run(Path(path)).model
    cut = before_named(model, ImageClassification.head)
    if cut is None or len(model.inputs) != 1:
        raise DlcliError(
            f"metrics.features {source}: its model has no output layer behind features; give another run"
        )
    features = _as_vectors(_features_at(model, cut), source)
    last = model.layers[-1]
    outputs = [features, model.output] if last.target == "classes" else [features]
    return FeatureNetwork(
        source,
        keras.Model(model.input, outputs, name="features"),
        tuple(last.class_names) if last.target == "classes" else (),
    )


def _features_at(model: keras.Model, cut: Cut) -> keras.KerasTensor:
    """One pass gives features and probabilities, unless the features are inside a model inside this one."""
    return cut.tensors[0] if len(cut.tensors) == 1 else replay(cut, [model.input])


def _as_vectors(features: keras.KerasTensor, source: str) -> keras.KerasTensor:
    if len(features.shape) == 4:
        return keras.layers.GlobalAveragePooling2D(name="pooled_features", dtype="float32")(features)
    if len(features.shape) != 2:
        shape = " x ".join(str(side) for side in features.shape[1:])
        raise DlcliError(
            f"metrics.features {source}: its features are {shape}, neither vectors nor maps; give another run"
        )
    return features


@lru_cache(maxsize=1)
def _inception() -> FeatureNetwork:
    """Szegedy et al. 2016, before its output layer: what Heusel et al. 2017 measure the FID in."""
    raw = keras.Input((INCEPTION_SIDE, INCEPTION_SIDE, 3), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 255, dtype="float32")(raw)
    try:
        maps = application(pixels, model="inception_v3", weights="imagenet", trainable=False)
    except DlcliError as error:
        raise DlcliError(
            f"metrics.features imagenet: {str(error).rsplit('; or use', 1)[0]}; or name a run of task "
            "image_classification of your own in its place"
        ) from error
    return FeatureNetwork("imagenet", keras.Model(raw, [_as_vectors(maps, "imagenet")], name="inception_v3"))


def _compiled(model: keras.Model, image_shape: tuple[int, ...]) -> Any:
    """`model.predict` costs 50 ms a call; this is kept with the model, since tracing takes a second."""
    kept: dict[tuple[int, ...], Any] = model.__dict__.setdefault("_dlcli_describe", {})
    if image_shape not in kept:
        height, width, channels = model.input.shape[1:]

        def describe(images: tf.Tensor) -> list[tf.Tensor]:
            # A model of one output gives it bare.
            return tree.flatten(model(_converted(images, height, width, channels), training=False))

        kept[image_shape] = tf.function(describe, [tf.TensorSpec((None, *image_shape), tf.uint8)])
    return kept[image_shape]


def _converted(images: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """uint8 images of another size or with other channels, as the network reads them."""
    if images.shape[-1] != channels:
        images = tf.image.rgb_to_grayscale(images) if channels == 1 else tf.image.grayscale_to_rgb(images)
    if tuple(images.shape[1:3]) == (height, width):
        return images
    # Without smoothing, what is made smaller would show the grid of pixels that were left out.
    resized = tf.image.resize(images, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def some_images(examples: Examples, count: int, seed: int = 0) -> np.ndarray:
    """Indices of `count` of the examples, drawn at random, in order; of all when there are no more."""
    if count >= len(examples):
        return np.arange(len(examples))
    return np.sort(np.random.default_rng(seed).choice(len(examples), count, replace=False))


def images_at(examples: Examples, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The images at these indices, in batches: uint8 (B, H, W, C)."""
    for start in range(0, len(indices), BATCH_SIZE):
        yield np.asarray(examples.read(tf.constant(indices[start : start + BATCH_SIZE])))
