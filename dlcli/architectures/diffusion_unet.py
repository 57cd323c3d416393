"""The U-Net of denoising diffusion. Ho et al. 2020, arXiv:2006.11239, appendix B."""

from __future__ import annotations

from typing import Any, Literal

import keras

from dlcli.layers.noise_level_embedding import NoiseLevelEmbedding
from dlcli.recipe.arguments import Annotated, Count, Field, Rate, Sequence

Multipliers = Annotated[Sequence[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)]
Filters = Annotated[int, Field(ge=4, le=4096, multiple_of=4)]


def diffusion_unet(
    inputs: keras.KerasTensor,
    num_classes: int = 0,
    *,
    filters: Filters = 64,
    multipliers: Multipliers = (1, 2, 2),
    num_blocks: Annotated[int, Field(ge=1, le=16)] = 2,
    attention_size: Count = 8,
    num_heads: Annotated[int, Field(ge=1, le=64)] = 4,
    dropout: Rate = 0.0,
    patch_size: Literal[1, 2, 4] = 1,
) -> dict[str, keras.Model]:
    """Residual blocks down and up again, with the maps of the way down joined in on the way up.

    As the paper's but for: noise level and class scale and shift each block's maps (Nichol and Dhariwal 2021,
    section 3), and the middle has one attention between two blocks as there.

    Args:
        inputs: images (B, H, W, C).
        num_classes: of labels; 0 for none. A label of `num_classes` means none, for classifier-free guidance.
        filters: at the images' own size.
        multipliers: of `filters` at each size, which halves from one to the next.
        num_blocks: residual blocks at each size on the way down; one more on the way up.
        attention_size: maps whose longer side is no larger attend to themselves; 0 for none at all.
        num_heads: of attention.
        dropout: within each block.
        patch_size: pixels of a square of this side become channels before the first convolution (Hoogeboom et al.
            2023, "simple diffusion", section 4), so that large images cost as much as small ones.

    Raises:
        ValueError: sides that cannot be halved so often.
    """
    height, width, channels = inputs.shape[1:]
    divisor = patch_size << (len(multipliers) - 1)
    if height % divisor or width % divisor:
        raise ValueError(
            f"Expected sides that {divisor} divides: patch_size {patch_size}, and {len(multipliers) - 1} halvings for "
            f"{len(multipliers)} multipliers. Received: {height}x{width}; set dataset.image_size"
        )
    images = keras.Input(inputs.shape[1:], name="images")
    given: dict[str, Any] = {"images": images, "log_snr": keras.Input((), name="log_snr")}
    condition = _condition(given, num_classes, 4 * filters)
    unet = _Blocks(condition, num_blocks, attention_size, num_heads, dropout)
    x = _squares(images, patch_size)
    x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    x = unet.apply(x, [filters * multiplier for multiplier in multipliers])
    x = keras.layers.Activation("silu")(_normalized(x))
    x = keras.layers.Conv2D(
        channels * patch_size**2, 3, padding="same", kernel_initializer=near_zero(), dtype="float32"
    )(x)
    return {"denoiser": keras.Model(given, _pixels(x, patch_size, images.shape[1:]), name="denoiser")}


def near_zero() -> keras.initializers.Initializer:
    """Of layers that begin as nothing, so that a block begins as the identity.

    Not zero: behind a layer of zeros no weight has a gradient.
    """
    return keras.initializers.VarianceScaling(1e-10, "fan_avg", "uniform")


def _condition(given: dict[str, Any], num_classes: int, units: int) -> keras.KerasTensor:
    """Noise level, and class where there are some, as one vector (B, units)."""
    x = NoiseLevelEmbedding(units // 4, name="noise_level")(given["log_snr"])
    x = keras.layers.Dense(units, activation="silu")(x)
    x = keras.layers.Dense(units)(x)
    if num_classes:
        given["labels"] = keras.Input((), dtype="int32", name="labels")
        # As large as the noise level's vector, or it would be learnt late.
        spread = keras.initializers.RandomNormal(stddev=1.0)
        embed = keras.layers.Embedding(num_classes + 1, units, spread, name="label_embedding")
        x = keras.layers.Add()([x, embed(given["labels"])])
    return keras.layers.Activation("silu")(x)


class _Blocks:
    """What all blocks of one network share."""

    def __init__(
        self, condition: Any, num_blocks: int, attention_size: int, num_heads: int, dropout: float
    ) -> None:
        self.condition = condition
        self.num_blocks = num_blocks
        self.attention_size = attention_size
        self.num_heads = num_heads
        self.dropout = dropout

    def apply(self, x: Any, widths: list[int]) -> Any:
        """(B, H, W, F) -> (B, H, W, F)."""
        passed = [x]
        for depth, wide in enumerate(widths):
            if depth:
                x = keras.layers.Conv2D(widths[depth - 1], 3, strides=2, padding="same")(x)
                passed.append(x)
            for _ in range(self.num_blocks):
                x = self._block(x, wide)
                passed.append(x)
        x = self._residual(x, widths[-1])
        if self.attention_size:
            x = self._attention(x)
        x = self._residual(x, widths[-1])
        for depth, wide in reversed(list(enumerate(widths))):
            for _ in range(self.num_blocks + 1):
                x = self._block(keras.layers.Concatenate()([x, passed.pop()]), wide)
            if depth:
                x = keras.layers.Conv2D(wide, 3, padding="same")(keras.layers.UpSampling2D()(x))
        return x

    def _block(self, x: Any, wide: int) -> Any:
        x = self._residual(x, wide)
        return self._attention(x) if max(x.shape[1:3]) <= self.attention_size else x

    def _residual(self, x: Any, wide: int) -> Any:
        kept = x if x.shape[-1] == wide else keras.layers.Conv2D(wide, 1)(x)
        x = keras.layers.Activation("silu")(_normalized(x))
        x = _normalized(keras.layers.Conv2D(wide, 3, padding="same")(x))
        # Scale and shift of each map, (B, 1, 1, F); around one and zero, as the normalization's own.
        factors = keras.layers.Reshape((1, 1, wide))(
            keras.layers.Dense(wide, bias_initializer="ones")(self.condition)
        )
        shifts = keras.layers.Reshape((1, 1, wide))(keras.layers.Dense(wide)(self.condition))
        x = keras.layers.Add()([keras.layers.Multiply()([x, factors]), shifts])
        x = keras.layers.Activation("silu")(x)
        if self.dropout:
            x = keras.layers.Dropout(self.dropout)(x)
        x = keras.layers.Conv2D(wide, 3, padding="same", kernel_initializer=near_zero())(x)
        return keras.layers.Add()([kept, x])

    def _attention(self, x: Any) -> Any:
        height, width, wide = x.shape[1:]
        tokens = keras.layers.Reshape((height * width, wide))(_normalized(x))  # (B, T, F)
        heads = max(1, min(self.num_heads, wide // 4))
        attend = keras.layers.MultiHeadAttention(heads, max(4, wide // heads), use_bias=False)
        tokens = keras.layers.Dense(wide, kernel_initializer=near_zero())(attend(tokens, tokens))
        return keras.layers.Add()([x, keras.layers.Reshape((height, width, wide))(tokens)])


def _normalized(x: Any) -> Any:
    """Groups of at least 4 maps, 32 of them at most."""
    groups = next(
        groups for groups in (32, 16, 8, 4, 2, 1) if x.shape[-1] % groups == 0 and x.shape[-1] >= 4 * groups
    )
    return keras.layers.GroupNormalization(groups, epsilon=1e-5)(x)


def _squares(x: Any, side: int) -> Any:
    """(B, H, W, C) -> (B, H / side, W / side, side^2 C): each square of pixels becomes one."""
    if side == 1:
        return x
    height, width, channels = x.shape[1:]
    x = keras.layers.Reshape((height // side, side, width // side, side, channels))(x)
    x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
    return keras.layers.Reshape((height // side, width // side, side * side * channels))(x)


def _pixels(x: Any, side: int, shape: tuple[int, ...]) -> Any:
    """Back from `_squares`."""
    if side == 1:
        return keras.layers.Activation("linear", dtype="float32", name="prediction")(x)
    height, width, channels = shape
    x = keras.layers.Reshape((height // side, width // side, side, side, channels))(x)
    x = keras.layers.Permute((1, 3, 2, 4, 5))(x)
    return keras.layers.Reshape(shape, dtype="float32", name="prediction")(x)
