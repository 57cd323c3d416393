"""How the networks of a GAN are told a class: latents scaled by it, features compared with it."""

from __future__ import annotations

from typing import Any

import keras


def labelled(latent_dimension: int, num_classes: int) -> tuple[Any, Any]:
    """A generator's inputs, and the vector that it begins with.

    Args:
        latent_dimension: Z.
        num_classes: 0 for a generator that knows no labels.

    Returns:
        Inputs for `keras.Model`: `latents` (B, Z), or a dict with `labels` (B,) too; what the network goes on with
        (B, Z): the latents, scaled by a learnt vector of the class.
    """
    latents = keras.Input((latent_dimension,), name="latents")
    if not num_classes:
        return latents, latents
    labels = keras.Input((), dtype="int32", name="labels")
    # Around one, so that an untrained network draws as it would without labels.
    initializer = keras.initializers.RandomNormal(mean=1.0, stddev=0.5)
    scale = keras.layers.Embedding(num_classes, latent_dimension, initializer, name="label_embedding")(labels)
    x = keras.layers.Multiply()([latents, scale])
    return {"latents": latents, "labels": labels}, x


def projected(
    images: Any, features: Any, logits: Any, num_classes: int, embedding: Any = None
) -> keras.Model:
    """A discriminator; of labels it adds how well the features fit the class.

    Miyato and Koyama 2018, "cGANs with Projection Discriminator", equation 3.

    Args:
        images: input (B, H, W, C).
        features: (B, D).
        logits: (B, 1) from the features.
        num_classes: 0 for a discriminator that knows no labels.
        embedding: layer from labels to (B, D) to take in the place of a `keras.layers.Embedding`, for spectral norms.
    """
    if not num_classes:
        return keras.Model(images, logits, name="discriminator")
    labels = keras.Input((), dtype="int32", name="labels")
    embed = embedding or keras.layers.Embedding(num_classes, features.shape[-1], name="label_embedding")
    fit = keras.layers.Dot(axes=-1, dtype="float32", name="projection")([embed(labels), features])  # (B, 1)
    total = keras.layers.Add(dtype="float32", name="conditional_logits")([logits, fit])
    return keras.Model({"images": images, "labels": labels}, total, name="discriminator")
