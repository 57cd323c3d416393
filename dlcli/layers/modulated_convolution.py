"""Convolutions whose kernels a style scales. Karras et al. 2020, arXiv:1912.04958, section 2.2."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("dlcli")
class ModulatedConv2D(keras.layers.Layer):
    """A convolution whose input channels are scaled by a style, and whose outputs are brought back to unit variance.

    Scaling the inputs before and the outputs behind a convolution with one kernel for all images equals a kernel for
    each image (equations 1 and 3), and needs no grouped convolution. Its learning rate is equalized (layers/equalized).

    Args:
        filters: of the output.
        kernel_size: its side.
        demodulate: whether outputs are scaled back; not for those that become pixels.
        upsample: whether the sides double, by a transposed convolution.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        *,
        demodulate: bool = True,
        upsample: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.demodulate = demodulate
        self.upsample = upsample
        self.kernel: Any = None
        self.bias: Any = None
        self.style_kernel: Any = None
        self.style_bias: Any = None

    def build(self, inputs_shape: Any, styles_shape: Any) -> None:
        """Makes kernel and bias, and the affine map from latents to styles, which begin at one."""
        shape = (self.kernel_size, self.kernel_size, inputs_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=_unit_normal(), name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        affine = (styles_shape[-1], inputs_shape[-1])
        self.style_kernel = self.add_weight(shape=affine, initializer=_unit_normal(), name="style_kernel")
        self.style_bias = self.add_weight(shape=affine[1:], initializer="ones", name="style_bias")

    def call(self, inputs: keras.KerasTensor, styles: keras.KerasTensor) -> keras.KerasTensor:
        """Features (B, H, W, C) and latents (B, D) -> (B, H, W, filters), or (B, 2 H, 2 W, filters)."""
        channels = inputs.shape[-1]
        affine = ops.cast(self.style_kernel, "float32") / math.sqrt(styles.shape[-1])
        # Float32 also under mixed precision: the variances below are sums of many squares.
        style = ops.matmul(ops.cast(styles, "float32"), affine) + ops.cast(
            self.style_bias, "float32"
        )  # (B, C)
        kernel = ops.cast(self.kernel, "float32") / math.sqrt(self.kernel_size**2 * channels)
        outputs = self._convolve(inputs * ops.cast(style[:, None, None, :], inputs.dtype), kernel)
        if self.demodulate:
            variances = ops.matmul(
                ops.square(style), ops.sum(ops.square(kernel), axis=(0, 1))
            )  # (B, filters)
            outputs = outputs * ops.cast(ops.rsqrt(variances + 1e-8)[:, None, None, :], inputs.dtype)
        return outputs + ops.cast(self.bias, inputs.dtype)

    def _convolve(self, inputs: Any, kernel: Any) -> Any:
        kernel = ops.cast(kernel, inputs.dtype)
        if self.upsample:
            return ops.conv_transpose(inputs, ops.transpose(kernel, (0, 1, 3, 2)), strides=2, padding="same")
        return ops.conv(inputs, kernel, padding="same")

    def compute_output_shape(self, inputs_shape: Any, styles_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, filters)."""
        batch, height, width, _ = inputs_shape
        times = 2 if self.upsample else 1
        return (batch, height * times, width * times, self.filters)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {name: getattr(self, name) for name in ("filters", "kernel_size", "demodulate", "upsample")}
        return {**super().get_config(), **own}


def _unit_normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=1.0)
