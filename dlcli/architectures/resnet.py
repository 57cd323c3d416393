"""Residual networks for small images (section 4.2 of the paper) and large ones (table 1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import keras
from keras import ops

from dlcli.architectures.blocks import (
    activate,
    convolve,
    drop_features,
    initializer_name,
    normalize,
    require_map,
)
from dlcli.recipe.arguments import Activation, Initializer, Normalization, Rate

# Residual blocks in each stage of table 1. 50 and deeper have bottlenecks of three convolutions.
_LARGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_SMALL = (8, 14, 20, 32, 44, 56, 110)


def resnet(
    inputs: keras.KerasTensor,
    *,
    depth: Literal[8, 14, 20, 32, 44, 56, 110, 18, 34, 50, 101, 152] = 20,
    stem: Literal["auto", "small", "large"] = "auto",
    shortcut: Literal["auto", "pad", "project"] = "auto",
    activation: Activation = "relu",
    normalization: Normalization = "batch",
    initializer: Initializer = "he_normal",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """ResNet (He, Zhang, Ren & Sun 2016, Deep Residual Learning for Image Recognition).

    Depths 6n + 2 (8 to 110) are the networks for small images: 269,722 parameters for 20 layers, 1,727,962
    for 110, with 10 classes. 18, 34, 50, 101, 152 are those for large images: 25,557,032 parameters for 50
    layers with 1000 classes (keras.applications counts 25,636,712: 26,560 biases before batch normalization,
    which cancels them, and 53,120 moving averages).

    Args:
        inputs: (B, H, W, C).
        depth: Layers with weights.
        stem: `large` halves the image twice before the first block (7x7 convolution, 3x3 pooling), `small`
            keeps it (3x3 convolution); `auto` is the paper's for the depth. `small` with 18 or more is the
            common ResNet for 32x32 images.
        shortcut: Where a stage begins: `pad` adds channels of zeros (the paper's option A), `project` a 1x1
            convolution (option B); `auto` is the paper's: `pad` for 6n + 2, `project` for the others.
        activation: After each sum and inside the blocks.
        normalization: After each convolution.
        initializer: Of the kernels.
        dropout: Share of the features set to zero in training; the paper has none.

    Returns:
        (B, H / 4, W / 4, 64) for 6n + 2; else (B, H / 32, W / 32, 512), or 2048 channels from 50 layers on
        (H / 8, W / 8 with a small stem).

    Raises:
        ValueError: Images too small, or a depth that is not in the paper.
    """
    if depth not in _LARGE and depth not in _SMALL:
        raise ValueError(f"Expected depth to be one of {[*_SMALL, *_LARGE]}. Received: {depth}")
    large = depth in _LARGE
    stages = _LARGE[depth] if large else ((depth - 2) // 6,) * 3
    stem = ("large" if large else "small") if stem == "auto" else stem
    hint = "or use `stem: small`, or a depth of 6n + 2" if stem == "large" else ""
    require_map(inputs, f"resnet {depth}", (4 if stem == "large" else 1) * 2 ** (len(stages) - 1), hint)
    act = partial(activate, activation=activation)
    conv = partial(_convolve, initializer=initializer_name(initializer), normalization=normalization)
    width = 64 if large else 16
    if stem == "large":
        x = act(conv(inputs, width, 7, 2))
        x = keras.layers.MaxPooling2D(3, strides=2)(keras.layers.ZeroPadding2D(1)(x))
    else:
        x = act(conv(inputs, width, 3))
    residual, expansion = (_bottleneck, 4) if large and depth >= 50 else (_basic, 1)
    if shortcut == "auto":
        shortcut = "project" if large else "pad"
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            filters = width * 2**stage
            identity = _shortcut(x, filters * expansion, strides, shortcut, conv)
            x = act(keras.layers.Add()([identity, residual(x, filters, strides, conv, act)]))
    return drop_features(x, dropout)


def _convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    initializer: str,
    normalization: str,
) -> keras.KerasTensor:
    x = convolve(x, filters, kernel_size, strides, initializer=initializer, use_bias=normalization == "none")
    return normalize(x, normalization)


def _basic(
    x: keras.KerasTensor, filters: int, strides: int, conv: Callable, act: Callable
) -> keras.KerasTensor:
    """Two 3x3 convolutions (figure 2)."""
    return conv(act(conv(x, filters, 3, strides)), filters, 3)


def _bottleneck(
    x: keras.KerasTensor, filters: int, strides: int, conv: Callable, act: Callable
) -> keras.KerasTensor:
    """1x1 to fewer channels, 3x3, 1x1 to four times as many (figure 5); the first has the stride."""
    x = act(conv(x, filters, 1, strides))
    return conv(act(conv(x, filters, 3)), 4 * filters, 1)


def _shortcut(
    x: keras.KerasTensor, filters: int, strides: int, shortcut: str, conv: Callable
) -> keras.KerasTensor:
    """What the residual is added to: x itself, or x in the next stage's shape."""
    missing = filters - x.shape[-1]
    if strides == 1 and not missing:
        return x
    if shortcut == "project":
        return conv(x, filters, 1, strides)
    x = keras.layers.MaxPooling2D(1, strides=strides)(x) if strides > 1 else x  # every second pixel
    return ops.pad(x, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
