"""AlexNet, in the paper's size and in one for small images."""

from __future__ import annotations

from typing import Literal

import keras
from keras import ops

from dlcli.architectures.blocks import activate, drop_features, initializer_name, normalize, require_map
from dlcli.recipe.arguments import Activation, Initializer, Rate

# (filters, kernel, stride, padding, pool after it) of the five convolutions.
_LARGE = (
    (96, 11, 4, 2, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_SMALL = (
    (64, 11, 4, 5, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


def alexnet(
    inputs: keras.KerasTensor,
    *,
    size: Literal["auto", "small", "large"] = "auto",
    activation: Activation = "relu",
    normalization: Literal[
        "local_response", "batch", "batch_local", "layer", "instance", "group", "none"
    ] = "local_response",
    initializer: Initializer = "he_normal",
    dropout: Rate = 0.5,
) -> keras.KerasTensor:
    """AlexNet (Krizhevsky, Sutskever & Hinton 2012, section 3).

    `large` is one tower of the paper's widths, without the split over two GPUs: 62,378,344 parameters with
    1000 classes (the two towers have 60,965,224, because half of the connections of three layers are
    missing). Its two pixels of padding give 224 and 227 pixels alike the paper's maps of 55, 27, 13 and 6.
    `small` is the common form for 32x32 images: 2,472,266 parameters with 10 classes
    (https://github.com/bearpaw/pytorch-classification, 77.2 % on CIFAR-10).

    Args:
        inputs: (B, H, W, C); 224x224 or 227x227 in the paper.
        size: `large` for 63 pixels and more, `small` for 29 and more; `auto` takes `large` from 128 pixels
            on.
        activation: Of every layer.
        normalization: `local_response` is the paper's (section 3.3), after the first two activations; the
            others stand between each convolution and its activation.
        initializer: Of the kernels; the paper's normal of deviation 0.01 trains only with its schedule.
        dropout: Share set to zero in training: of the units of both dense layers; `small` has it on its
            features.

    Returns:
        (B, 4096) for `large`, (B, H', W', 256) for `small`.

    Raises:
        ValueError: Images too small.
    """
    if size == "auto":
        size = "large" if min(require_map(inputs, "alexnet")) >= 128 else "small"
    hint = "or use `size: small`" if size == "large" else ""
    require_map(inputs, f"alexnet ({size})", 63 if size == "large" else 29, hint)
    kernel_initializer = initializer_name(initializer)
    # Three poolings of 3 with stride 2 in the paper; small images have no pixel to spare for the overlap.
    pool_size = 3 if size == "large" else 2
    x = inputs
    for index, (filters, kernel_size, strides, padding, pool) in enumerate(
        _LARGE if size == "large" else _SMALL
    ):
        x = keras.layers.ZeroPadding2D(padding)(x)
        x = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            use_bias=normalization in ("local_response", "none"),
            kernel_initializer=kernel_initializer,
        )(x)
        if normalization == "local_response":
            x = activate(x, activation)
            x = local_response_normalize(x) if index < 2 else x
        else:
            x = activate(normalize(x, normalization), activation)
        x = keras.layers.MaxPooling2D(pool_size, strides=2)(x) if pool else x
    if size == "small":
        return drop_features(x, dropout)
    x = keras.layers.Flatten()(x)  # (B, 9216) for 224x224
    for _ in range(2):
        x = keras.layers.Dense(4096, kernel_initializer=kernel_initializer)(x)
        x = drop_features(activate(x, activation), dropout)
    return x


def local_response_normalize(x: keras.KerasTensor) -> keras.KerasTensor:
    """Divides by (2 + 1e-4 * sum of squares) ** 0.75 over 5 neighbouring channels (section 3.3)."""
    channels = x.shape[-1]
    squares = ops.pad(ops.square(x), [[0, 0], [0, 0], [0, 0], [2, 2]])
    total = squares[..., :channels]
    for shift in range(1, 5):
        total = total + squares[..., shift : shift + channels]
    return x / ops.power(2.0 + 1e-4 * total, 0.75)
