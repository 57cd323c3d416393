"""Earlier drawn images for a discriminator to see again. Shrivastava et al. 2017, arXiv:1612.07828, section 2.3."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

DRAWS = 2
"""Uniform numbers that one image takes: whether it is exchanged, and for which."""


class ImageBuffer(keras.layers.Layer):
    """Holds the last drawn images; half of those that come are exchanged for one of them.

    The images are weights that nobody trains, so that a resumed training finds them again. Several devices hold the
    same: what all of them drew, in the order of the batch.

    Args:
        size: images; at least those of a batch.
        image_shape: (H, W, C).
    """

    def __init__(self, size: int, image_shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.size = size
        options = {"initializer": "zeros", "trainable": False, "aggregation": "only_first_replica"}
        self.images = self.add_weight(shape=(size, *image_shape), name="images", **options)
        self.filled = self.add_weight(shape=(), dtype="int32", name="filled", **options)
        self.built = True

    def exchange(self, images: Any, draws: Any) -> Any:
        """What the discriminator gets to see.

        Args:
            images: (B, H, W, C), just drawn; B at most the buffer's size.
            draws: uniform in [0, 1), (B, 2).

        Returns:
            (B, H, W, C): until the buffer is full the images themselves, which fill it; then each is exchanged with
            probability 1/2 for one of the buffer, whose place it takes.
        """
        own = ops.shape(images)[0]
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            images, draws = context.all_gather(images, axis=0), context.all_gather(draws, axis=0)
            return self._exchange(images, draws)[context.replica_id_in_sync_group * own :][:own]
        return self._exchange(images, draws)

    def _exchange(self, images: Any, draws: Any) -> Any:
        """The same with all images of the batch."""
        count = ops.shape(images)[0]
        filled, held = ops.convert_to_tensor(self.filled), ops.convert_to_tensor(self.images)
        full = filled >= self.size
        # Places of a batch follow each other, so that no two of its images fall on one.
        first = ops.where(full, ops.cast(draws[0, 1] * self.size, "int32"), filled)
        places = first + ops.arange(count, dtype="int32")
        fills = ops.logical_and(ops.logical_not(full), places < self.size)
        places = ops.mod(places, self.size)
        earlier = ops.take(held, places, axis=0)
        swaps = ops.logical_and(full, draws[:, 0] < 0.5)
        stores = ops.logical_or(fills, swaps)[:, None, None, None]
        kept = ops.where(stores, images, earlier)
        self.images.assign(ops.scatter_update(held, places[:, None], kept))
        self.filled.assign(ops.minimum(filled + count, self.size))
        return ops.where(swaps[:, None, None, None], earlier, images)
