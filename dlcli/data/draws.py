"""All that is random about a step of a generative model, drawn with its batch: a pure function of (seed, step)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dlcli.data.augmentation import Augment, Position, as_float


def signed_pixels(images: tf.Tensor) -> tf.Tensor:
    """Levels 0..255 -> float32 in [-1, 1]."""
    return as_float(images) / 127.5 - 1


def adversarial_draws(
    *, latent_dimension: int, turns: int, labels: bool = False, mix: bool = False, augmentation: int = 0
) -> Augment:
    """Batches as `AdversarialTrainer` reads them: each example of a batch of B holds `turns` images.

    Args:
        latent_dimension: Z.
        turns: updates of the discriminator in a step; the stream gives B * turns images.
        labels: whether the networks are told the images' classes.
        mix: whether a place between real and drawn image is drawn.
        augmentation: uniform numbers that the differentiable augmentation of an image takes.
    """

    def draw(images: tf.Tensor, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        count = tf.shape(images)[0] // turns
        # Split example by example, not turn by turn: so each of several devices gets whole examples.
        batch = {"images": tf.reshape(signed_pixels(images), [count, turns, *images.shape[1:]])}
        shape = [count, turns, latent_dimension]
        batch["latents"] = tf.random.stateless_normal(shape, position.keyed("latents").seed)
        targets = tf.reshape(targets, [count, turns, *targets.shape[1:]])
        if labels:
            batch["labels"] = tf.cast(targets, tf.int32)
        if mix:
            batch["mix"] = tf.random.stateless_uniform([count, turns], position.keyed("mix").seed)
        if augmentation:
            shape = [count, turns, 2, augmentation]
            batch["augmentation"] = tf.random.stateless_uniform(shape, position.keyed("augmentation").seed)
        return batch, targets

    return draw
