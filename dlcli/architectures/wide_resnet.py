"""Wide residual networks."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import keras

from dlcli.architectures.blocks import activate, convolve, initializer_name, normalize, require_map
from dlcli.recipe.arguments import Activation, Field, Initializer, Normalization, Rate


def wide_resnet(
    inputs: keras.KerasTensor,
    *,
    depth: Literal[10, 16, 22, 28, 34, 40] = 28,
    width: Annotated[int, Field(ge=1, le=64)] = 10,
    activation: Activation = "relu",
    normalization: Normalization = "batch",
    initializer: Initializer = "he_normal",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """Wide ResNet (Zagoruyko & Komodakis 2016, table 1), with blocks of two 3x3 convolutions, B(3, 3).

    WRN-28-10 has 36,479,194 parameters with 10 classes (36.5 M in table 4), WRN-16-8 10,961,370.

    Args:
        inputs: (B, H, W, C).
        depth: Convolutions, 6n + 4.
        width: How many times wider than ResNet's 16, 32 and 64 channels: the paper's k.
        activation: Before each convolution (pre-activation).
        normalization: Before each activation.
        initializer: Of the kernels.
        dropout: Share set to zero in training, between the two convolutions of each block; 0.3 in section
            3.3.

    Returns:
        (B, H / 4, W / 4, 64 * width).

    Raises:
        ValueError: Images under 4x4, or a depth that is not 6n + 4.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"Expected depth 6n + 4: 10, 16, 22, 28, 34, 40. Received: {depth}")
    require_map(inputs, "wide_resnet", 4)
    conv = partial(convolve, initializer=initializer_name(initializer))
    x = conv(inputs, 16, 3)
    for stage in range(3):
        filters = 16 * width * 2**stage
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            preactivated = activate(normalize(x, normalization), activation)
            # Where the shape changes, the shortcut starts from the activation too, as in the authors' code.
            identity = x
            if strides > 1 or x.shape[-1] != filters:
                identity = conv(preactivated, filters, 1, strides)
            x = conv(preactivated, filters, 3, strides)
            x = activate(normalize(x, normalization), activation)
            x = keras.layers.Dropout(dropout)(x) if dropout else x
            x = conv(x, filters, 3)
            x = keras.layers.Add()([identity, x])
    return activate(normalize(x, normalization), activation)
