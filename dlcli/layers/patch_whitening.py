"""A convolution that whitens image patches, learned from images before training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class PatchWhitening(keras.layers.Layer):
    """Frozen convolution: outputs the whitened patches and their negatives (Jordan 2024, section 3.2).

    Its filters are the eigenvectors of the patches' second moments, each divided by the root of its
    eigenvalue, followed by the same with the sign turned: 2 * C * patch_size**2 filters. Only the bias is
    trained. Until `adapt` has seen images, the filters are random.

    Args:
        patch_size: Side of a patch, in pixels.
        epsilon: Added to the eigenvalues, so that directions without signal do not become noise.

    Input: (B, H, W, C). Output: (B, H - patch_size + 1, W - patch_size + 1, 2 * C * patch_size**2).
    """

    adapts_to_inputs = True  # training calls `adapt` on such layers with the network's inputs

    def __init__(self, patch_size: int = 2, epsilon: float = 5e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if patch_size < 1:
            raise ValueError(f"Expected patch_size to be at least 1. Received: {patch_size}")
        self.patch_size = patch_size
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the frozen kernel and the trainable bias."""
        channels = input_shape[-1]
        if len(input_shape) != 4 or channels is None:
            raise ValueError(f"Expected images (B, H, W, C) of known channels. Received: shape {input_shape}")
        filters = 2 * channels * self.patch_size**2
        self.kernel = self.add_weight(
            shape=(self.patch_size, self.patch_size, channels, filters), name="kernel", trainable=False
        )
        self.bias = self.add_weight(shape=(filters,), initializer="zeros", name="bias")

    def adapt(self, images: Any) -> None:
        """Learns the filters from the layer's own inputs, as keras.layers.Normalization does.

        Args:
            images: (N, H, W, C), float; a few thousand are enough.
        """
        images = np.asarray(images, "float32")
        if images.ndim != 4 or not len(images) or min(images.shape[1:3]) < self.patch_size:
            raise ValueError(
                f"Expected images (N, H, W, C) of at least {self.patch_size} pixels. "
                f"Received: shape {images.shape}"
            )
        if not self.built:
            self.build(images.shape)
        eigenvalues, eigenvectors = np.linalg.eigh(self._second_moments(images))
        whitening = eigenvectors / np.sqrt(eigenvalues + self.epsilon)
        kernel = whitening.reshape(self.patch_size, self.patch_size, images.shape[-1], -1)
        self.kernel.assign(np.concatenate([kernel, -kernel], axis=-1))

    def _second_moments(self, images: np.ndarray) -> np.ndarray:
        """Mean of p p^T over all patches p, (D, D); in portions, to bound the memory."""
        size = self.patch_size
        dimensions = size * size * images.shape[-1]
        moments, count = np.zeros((dimensions, dimensions)), 0
        for start in range(0, len(images), 256):
            windows = np.lib.stride_tricks.sliding_window_view(
                images[start : start + 256], (size, size), (1, 2)
            )
            patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, dimensions)  # as a kernel is laid out
            moments += patches.T @ patches
            count += len(patches)
        return moments / count

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The whitened patches and their negatives, plus the bias."""
        return ops.conv(inputs, self.kernel, padding="valid", data_format="channels_last") + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, H - patch_size + 1, W - patch_size + 1, 2 * C * patch_size**2)."""
        batch, height, width, channels = input_shape
        sides = (None if side is None else side - self.patch_size + 1 for side in (height, width))
        return (batch, *sides, 2 * (channels or 0) * self.patch_size**2)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "patch_size": self.patch_size, "epsilon": self.epsilon}
