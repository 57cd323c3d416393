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
        latents = tf.random.stateless_normal(
            [position.whole, latent_dimension], position.keyed("latents").seed
        )
        batch["latents"] = tf.reshape(position.own(latents), [count, turns, latent_dimension])
        targets = tf.reshape(targets, [count, turns, *targets.shape[1:]])
        if labels:
            batch["labels"] = tf.cast(targets, tf.int32)
        if mix:
            mixed = tf.random.stateless_uniform([position.whole], position.keyed("mix").seed)
            batch["mix"] = tf.reshape(position.own(mixed), [count, turns])
        if augmentation:
            shape = [position.whole, 2, augmentation]
            uniform = tf.random.stateless_uniform(shape, position.keyed("augmentation").seed)
            batch["augmentation"] = tf.reshape(position.own(uniform), [count, turns, 2, augmentation])
        return batch, targets

    return draw


def variational_draws(*, latent_dimension: int, pixels: str, warmup_epochs: int = 0) -> Augment:
    """Batches as `VariationalTrainer` reads them.

    Args:
        latent_dimension: Z.
        pixels: `binary`, `dequantized` or `levels`: see `dlcli.training.steps.likelihoods.PixelLikelihood`.
        warmup_epochs: passes over the train split in which the KL divergence counts less, rising evenly to 1 (Sønderby
            et al. 2016, "Ladder Variational Autoencoders", section 2.3).
    """

    def draw(images: tf.Tensor, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        levels, count = as_float(images), tf.shape(images)[0]
        if pixels != "levels":
            shape = [position.whole, *images.shape[1:]]
            uniform = position.own(tf.random.stateless_uniform(shape, position.keyed("pixels").seed))
            levels = levels + uniform if pixels == "dequantized" else 255 * as_float(uniform < levels / 255)
        # The encoder sees the black and white image that it is to give back, but no noise.
        seen = levels if pixels == "binary" else images
        weight = tf.minimum((tf.cast(position.epoch, tf.float32) + 1) / (warmup_epochs + 1), 1.0)
        noise = tf.random.stateless_normal([position.whole, latent_dimension], position.keyed("latents").seed)
        batch = {
            "images": signed_pixels(seen),
            "levels": levels,
            "noise": position.own(noise),
            "kl_weight": tf.fill([count], weight),  # for each image: a batch is split over devices
        }
        return batch, targets

    return draw


def diffusion_draws(*, classes: int = 0, label_dropout: float = 0.0) -> Augment:
    """Batches as `DenoisingTrainer` reads them.

    Times are spread evenly over a batch from a random first one, which makes the loss less noisy than independent
    ones (Kingma et al. 2021, "Variational Diffusion Models", appendix I.1).

    Args:
        classes: of labels; 0 for none.
        label_dropout: share of images that are shown without their label, which is then `classes`.
    """

    def draw(images: tf.Tensor, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        first = tf.random.stateless_uniform([], position.keyed("times").seed)
        count = position.whole
        places = tf.cast(tf.range(count), tf.float32) / tf.cast(count, tf.float32)
        noise = tf.random.stateless_normal([count, *images.shape[1:]], position.keyed("noise").seed)
        batch = {
            "images": signed_pixels(images),
            "noise": position.own(noise),
            "times": position.own(tf.math.floormod(first + places, 1.0)),
        }
        if classes:
            labels = tf.cast(targets, tf.int32)
            uniform = tf.random.stateless_uniform([count], position.keyed("labels").seed)
            batch["labels"] = tf.where(position.own(uniform) < label_dropout, classes, labels)
        return batch, targets

    return draw


def translation_draws(buffer: int = 0) -> Augment:
    """Batches as `CycleTrainer` and `PairedTrainer` read them.

    Args:
        buffer: uniform numbers that each of the two image buffers takes for an image; 0 for no buffers.
    """

    def draw(images: Any, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        batch = {name: signed_pixels(part) for name, part in images.items()}
        if buffer:
            uniform = tf.random.stateless_uniform([position.whole, 2, buffer], position.keyed("buffer").seed)
            batch["buffer"] = position.own(uniform)
        return batch, targets

    return draw
