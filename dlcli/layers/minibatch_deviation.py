"""How much the images of a batch differ, told to the discriminator, so that a generator has to vary."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class MinibatchDeviation(keras.layers.Layer):
    """Adds a channel: the standard deviation over a group of images, averaged over places and channels.

    Karras et al. 2018, "Progressive Growing of GANs", section 3. Groups are of neighbours in the batch, so that several
    devices, which get contiguous parts of it, see the groups that one device would. A batch that groups do not divide
    is one group.

    Args:
        group_size: images in a group.
    """

    def __init__(self, group_size: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group_size = group_size

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C) -> (B, H, W, C + 1)."""
        shape = ops.shape(inputs)
        batch = shape[0]
        divides = ops.equal(ops.mod(batch, self.group_size), 0)
        group = ops.where(divides, self.group_size, batch)
        groups = ops.reshape(ops.cast(inputs, "float32"), (-1, group, *inputs.shape[1:]))
        variances = ops.mean(ops.square(groups - ops.mean(groups, axis=1, keepdims=True)), axis=1)
        spread = ops.mean(ops.sqrt(variances + 1e-8), axis=(1, 2, 3))  # (groups,)
        of_images = ops.reshape(ops.broadcast_to(spread[:, None], (batch // group, group)), (-1, 1, 1, 1))
        channel = ops.broadcast_to(ops.cast(of_images, inputs.dtype), (*shape[:3], 1))
        return ops.concatenate([inputs, channel], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, H, W, C + 1)."""
        return (*input_shape[:-1], input_shape[-1] + 1)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "group_size": self.group_size}
