"""Pieces that several architectures share: activation, normalization, initializer and dropout by name."""

from __future__ import annotations

import keras

from dlcli.layers.local_normalization import LocalBatchNormalization
from dlcli.recipe.names import keras_class_name


def initializer_name(name: str) -> str:
    """Keras's name of an initializer; a name and not an object, so that each layer draws from its own seed.

    Raises:
        ValueError: No initializer of Keras has this name, nor is it an alias (`he`, `xavier`).
    """
    return keras_class_name("initializers", name)


def activate(x: keras.KerasTensor, activation: str) -> keras.KerasTensor:
    """Applies a function of keras.activations, named in any spelling.

    Raises:
        ValueError: No such function; the message has those that there are.
    """
    function = getattr(keras.activations, keras_class_name("activations", activation))
    return keras.layers.Activation(function)(x)


def normalize(x: keras.KerasTensor, normalization: str) -> keras.KerasTensor:
    """Normalizes features over the axes that Wu & He 2018 (Group Normalization, fig. 2) give each name.

    `batch` over examples and positions, also where several devices share a batch; `batch_local` over those of
    each device; `layer` over positions and channels of one example; `instance` over positions of one channel;
    `group` over positions and groups of channels (at most 32 groups, of at least 4 channels).

    Args:
        x: (B, H, W, C) or (B, D).
        normalization: batch, batch_local, layer, instance, group or none.

    Raises:
        ValueError: An unknown name, or instance normalization of single values, which would make them all
        zero.
    """
    if normalization == "none":
        return x
    if normalization in ("batch", "batch_local"):
        kind = keras.layers.BatchNormalization if normalization == "batch" else LocalBatchNormalization
        # Keras's momentum of 0.99 needs several hundred steps until inference sees the right averages; small
        # data sets have fewer, so the usual 0.9 of Caffe and PyTorch stands here.
        return kind(momentum=0.9, epsilon=1e-5)(x)
    channels = x.shape[-1]
    if normalization == "instance" and all(side == 1 for side in x.shape[1:-1]):
        raise ValueError(
            "Expected a map of at least 2 positions for instance normalization (a single value minus its own "
            f"mean is zero). Received: shape {tuple(x.shape)}; use batch, layer or group"
        )
    groups = {"layer": 1, "instance": channels, "group": _number_of_groups(channels)}
    if normalization not in groups:
        raise ValueError(
            "Expected normalization batch, batch_local, layer, instance, group or none. "
            f"Received: {normalization!r}"
        )
    return keras.layers.GroupNormalization(groups[normalization], epsilon=1e-5)(x)


def _number_of_groups(channels: int) -> int:
    """The most groups of equal size, up to the paper's 32, that leave 4 channels in each."""
    return max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= 4))


def drop_features(x: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Dropout for the last features.

    Of a map whole channels are dropped: after the task's global average pooling that equals dropout of the
    vector.
    """
    if not rate:
        return x
    layer = keras.layers.SpatialDropout2D if len(x.shape) == 4 else keras.layers.Dropout
    return layer(rate)(x)


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    initializer: str,
    use_bias: bool = False,
) -> keras.KerasTensor:
    """A convolution padded alike on all sides, as the papers (Caffe, PyTorch) do it.

    Keras's "same" is that only without strides; with them it pads even sides at the bottom and right alone.
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=initializer,
    )(x)


def require_map(
    inputs: keras.KerasTensor, architecture: str, smallest: int = 1, hint: str = ""
) -> tuple[int, int]:
    """The height and width of images, refused where they are too small for the network.

    Args:
        inputs: (B, H, W, C), with known H and W.
        architecture: What the message calls the network.
        smallest: The smallest side that works, in pixels.
        hint: What to do about it, besides larger images.

    Raises:
        ValueError: Not a map, or a side is too small; the message has the received shape and the smallest
        size.
    """
    shape = tuple(inputs.shape)
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            f"{architecture} expects images of one known size, (B, H, W, C). Received: shape {shape}"
        )
    height, width = shape[1:3]
    if min(height, width) < smallest:
        # Each of thousands of poolings doubles the side: a number of a thousand digits says nothing.
        side = f"{smallest}x{smallest}" if smallest < 10**9 else "more than a billion"
        raise ValueError(
            f"{architecture} expects images of at least {side} pixels. "
            f"Received: {height}x{width} (inputs of shape {shape}){hint and f'; {hint}'}"
        )
    return height, width
