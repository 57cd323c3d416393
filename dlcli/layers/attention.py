"""Scaled dot-product attention of several heads, with rotary positions and a cache of keys and values."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Cache = dict[str, Any]
"""Keys and values of the tokens read so far, each (B, length, N, H)."""

MASKED = -3e4
"""Added to a score that must not count: exp gives 0, also for float16, whose range ends at 65504."""


@keras.saving.register_keras_serializable("dlcli")
class Attention(keras.layers.Layer):
    """Multi-head attention (Vaswani et al. 2017, section 3.2): softmax(q k^T / sqrt(H)) v, in N heads of H = D / N.

    keras.layers.MultiHeadAttention computes the same. It is not used, since it keeps keys and values to itself, which
    a cache needs; has one initializer for its four matrices, where GPT-2 scales the last; and counts the fans of its
    kernels (D, N, H) as of a convolution, so that Glorot's come out several times too small.

    Args:
        width: D.
        num_heads: N, a divisor of `width`.
        causal: whether a token sees only itself and those before it. Then a mask of `inputs` is not needed, since
            padding stands at the end.
        dropout: share of the attention's weights set to zero in training, as in GPT-2 and BERT.
        rotary: whether queries and keys are turned by an angle that grows with their position (Su et al. 2021).
        use_bias: whether the four projections have biases.
        kernel_initializer: of the projections to queries, keys and values.
        output_initializer: of the projection behind the heads; default: as the others.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        rotary: bool = False,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        output_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1 or width % num_heads:
            raise ValueError(
                f"Expected num_heads to divide width. Received: num_heads={num_heads}, width={width}"
            )
        if rotary and width // num_heads % 2:
            raise ValueError(
                "Expected heads of even width for rotary positions, which turn pairs of features. "
                f"Received: width={width}, num_heads={num_heads}: heads of {width // num_heads}"
            )
        self.width, self.num_heads, self.head_width = width, num_heads, width // num_heads
        self.causal, self.dropout, self.rotary, self.use_bias = causal, dropout, rotary, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer) or self.kernel_initializer
        self.supports_masking = True
        self.query, self.key, self.value = (
            keras.layers.Dense(
                width, use_bias=use_bias, kernel_initializer=self.kernel_initializer.clone(),
                dtype=self.dtype_policy, name=name,
            )
            for name in ("query", "key", "value")
        )  # fmt: skip
        self.output_projection = keras.layers.Dense(
            width,
            use_bias=use_bias,
            kernel_initializer=self.output_initializer.clone(),
            dtype=self.dtype_policy,
            name="output",
        )
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop") if dropout else None

    def build(self, inputs_shape: tuple[int | None, ...], memory_shape: Any = None) -> None:
        """Makes the four projections."""
        self.query.build(inputs_shape)
        self.key.build(memory_shape or inputs_shape)
        self.value.build(memory_shape or inputs_shape)
        self.output_projection.build((*inputs_shape[:-1], self.width))

    def call(
        self,
        inputs: keras.KerasTensor,
        memory: keras.KerasTensor | None = None,
        *,
        key_mask: Any = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Each token of `inputs` (B, T, D) gathers from all that it sees -> (B, T, D).

        Args:
            inputs: what asks.
            memory: (B, S, E), what is asked; default: `inputs`.
            key_mask: bool (B, S), false for padding.
            training: whether dropout is on.
        """
        query, key, value = self._project(inputs, inputs if memory is None else memory, 0)
        bias = None
        if self.causal:
            bias = _later(ops.arange(ops.shape(inputs)[1]), ops.shape(key)[1], query.dtype)
        elif key_mask is not None:
            # expand_dims and no slice: LiteRT keeps an open length through it.
            bias = ops.expand_dims(ops.cast(ops.logical_not(key_mask), query.dtype), (1, 2)) * MASKED
        return self._attend(query, key, value, bias, training)

    def empty_cache(self, batch_size: int, length: int) -> Cache:
        """The cache before any token, for at most `length` of them."""
        shape = (batch_size, length, self.num_heads, self.head_width)
        return {name: ops.zeros(shape, self.compute_dtype) for name in ("key", "value")}

    def step(self, inputs: keras.KerasTensor, cache: Cache, position: Any) -> tuple[keras.KerasTensor, Cache]:
        """The tokens (B, T, D) at `position` and after -> (B, T, D), and the cache with them; T is mostly 1.

        Equal to what `call` gives for these tokens at the end of all those before them.
        """
        query, key, value = self._project(inputs, inputs, position)
        start = (0, position, 0, 0)
        cache = {
            "key": ops.slice_update(cache["key"], start, key),
            "value": ops.slice_update(cache["value"], start, value),
        }
        positions = position + ops.arange(ops.shape(inputs)[1])
        bias = _later(positions, ops.shape(cache["key"])[1], query.dtype)
        return self._attend(query, cache["key"], cache["value"], bias), cache

    def _project(self, inputs: Any, memory: Any, position: Any) -> tuple[Any, Any, Any]:
        """Queries (B, T, N, H), keys and values (B, S, N, H)."""
        shape = (self.num_heads, self.head_width)
        query, key, value = (
            ops.reshape(project(x), (-1, ops.shape(x)[1], *shape))
            for project, x in ((self.query, inputs), (self.key, memory), (self.value, memory))
        )
        if self.rotary:
            query, key = rotate(query, position), rotate(key, position)
        return query, key, value

    def _attend(
        self, query: Any, key: Any, value: Any, bias: Any, training: bool | None = False
    ) -> keras.KerasTensor:
        if self.drop is None or not training:
            heads = ops.dot_product_attention(query, key, value, bias=bias)  # (B, T, N, H)
        else:  # the fused operation cannot drop weights
            scores = ops.einsum("btnh,bsnh->bnts", query * self.head_width**-0.5, key)
            weights = ops.softmax(scores if bias is None else scores + bias)
            heads = ops.einsum("bnts,bsnh->btnh", self.drop(weights, training=training), value)
        return self.output_projection(ops.reshape(heads, (-1, ops.shape(heads)[1], self.width)))

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], memory_shape: Any = None
    ) -> tuple[int | None, ...]:
        """(B, T, D)."""
        return (*inputs_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {
            "width": self.width,
            "num_heads": self.num_heads,
            "causal": self.causal,
            "dropout": self.dropout,
            "rotary": self.rotary,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }
        return {**super().get_config(), **own}


def rotate(x: keras.KerasTensor, position: Any = 0) -> keras.KerasTensor:
    """Turns pairs of features by angles that grow with the position (Su et al. 2021, "RoFormer", section 3.2).

    The product of a turned query and a turned key depends on the distance between their positions alone. Pair i of
    H / 2 turns by position * 10000^(-2 i / H); it is made of the features i and i + H / 2, as in GPT-NeoX.

    Args:
        x: (B, T, N, H), H even.
        position: of the first token.
    """
    half = x.shape[-1] // 2
    places = ops.cast(position + ops.arange(ops.shape(x)[1]), "float32")
    frequencies = ops.exp(-ops.log(10_000.0) * ops.arange(half, dtype="float32") / half)
    angles = (places[:, None] * frequencies)[:, None, :]  # (T, 1, H / 2)
    cosine, sine = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    first, second = x[..., :half], x[..., half:]
    return ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _later(positions: Any, length: Any, dtype: str) -> Any:
    """(1, 1, T, length): what to add to the scores, so that nobody sees what comes after its own position."""
    later = ops.arange(length)[None, :] > positions[:, None]
    return (ops.cast(later, dtype) * MASKED)[None, None]
