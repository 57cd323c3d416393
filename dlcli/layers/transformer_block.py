"""One layer of a Transformer: attention and a feed-forward network, each with residual connection and normalization."""

from __future__ import annotations

from typing import Any, Literal

import keras

from dlcli.layers.attention import Attention, Cache

EPSILON = 1e-5
"""Of all layer normalizations, as in GPT-2; Keras's default of 1e-3 is large beside embeddings of deviation 0.02."""


@keras.saving.register_keras_serializable("dlcli")
class TransformerBlock(keras.layers.Layer):
    """Self-attention, where wanted attention to another text (`memory`), and a feed-forward network.

    `norm: post` is Vaswani et al. 2017: LayerNorm(x + f(x)). `norm: pre` is GPT-2's x + f(LayerNorm(x)), which learns
    without warm-up (Xiong et al. 2020) and needs one more normalization behind the last block.

    Padding of `inputs` is honoured through its Keras mask. A causal block needs none, as padding stands at the end. The
    mask of `memory` is taken from it, or given.

    Args:
        width: D, features of a token.
        num_heads: of the attention, a divisor of `width`.
        feedforward_width: units of the hidden layer.
        dropout: share set to zero, in training, of the attention's weights and of what each part adds.
        norm: where the normalizations stand.
        activation: of the hidden layer.
        causal: whether a token sees only itself and those before it.
        cross_attention: whether there is a part that attends to `memory`; such a block is causal.
        rotary: whether self-attention has rotary positions (Su et al. 2021).
        use_bias: whether projections and normalizations have biases.
        kernel_initializer: of all matrices.
        residual_initializer: of the last matrix of each part, which writes into the residual; default: as the others.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        feedforward_width: int,
        dropout: float = 0.0,
        norm: Literal["pre", "post"] = "pre",
        *,
        activation: Any = "gelu",
        causal: bool = False,
        cross_attention: bool = False,
        rotary: bool = False,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        residual_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if norm not in ("pre", "post"):
            raise ValueError(f"Expected norm pre or post. Received: {norm!r}")
        if cross_attention and not causal:
            raise ValueError("Expected causal=True beside cross_attention=True. Received: causal=False")
        self.width, self.num_heads, self.feedforward_width = width, num_heads, feedforward_width
        self.dropout, self.norm, self.use_bias = dropout, norm, use_bias
        self.activation = keras.activations.get(activation)
        self.causal, self.cross_attention, self.rotary = causal, cross_attention, rotary
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.residual_initializer = keras.initializers.get(residual_initializer) or self.kernel_initializer
        self.supports_masking = True

        self.attention = self._attention("attention", causal=causal, rotary=rotary)
        self.attention_norm = self._norm("attention_norm")
        if cross_attention:
            self.memory_attention = self._attention("memory_attention")
            self.memory_norm = self._norm("memory_norm")
        self.hidden = self._dense(feedforward_width, self.kernel_initializer, "hidden", self.activation)
        self.output_projection = self._dense(width, self.residual_initializer, "output")
        self.feedforward_norm = self._norm("feedforward_norm")
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop") if dropout else None

    def build(self, inputs_shape: tuple[int | None, ...], memory_shape: Any = None) -> None:
        """Makes the weights.

        Raises:
            ValueError: tokens of another width, or `memory` where there is no attention to it.
        """
        if inputs_shape[-1] != self.width:
            raise ValueError(f"Expected tokens of {self.width} features. Received: shape {inputs_shape}")
        if (memory_shape is not None) != self.cross_attention:
            raise ValueError(
                "Expected memory with cross_attention and only then. "
                f"Received: cross_attention={self.cross_attention}, memory of shape {memory_shape}"
            )
        self.attention.build(inputs_shape)
        self.attention_norm.build(inputs_shape)
        if self.cross_attention:
            self.memory_attention.build(inputs_shape, memory_shape)
            self.memory_norm.build(inputs_shape)
        self.hidden.build(inputs_shape)
        self.output_projection.build((*inputs_shape[:-1], self.feedforward_width))
        self.feedforward_norm.build(inputs_shape)

    def call(
        self,
        inputs: keras.KerasTensor,
        memory: keras.KerasTensor | None = None,
        *,
        mask: Any = None,
        memory_mask: Any = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """(B, T, D) -> (B, T, D).

        Args:
            inputs: (B, T, D).
            memory: (B, S, E), with `cross_attention` only.
            mask: bool (B, T), false for padding of `inputs`; its Keras mask.
            memory_mask: bool (B, S), false for padding of `memory`; default: its Keras mask.
            training: whether dropout is on.
        """
        x = self._add(
            inputs,
            self.attention_norm,
            lambda x: self.attention(x, key_mask=mask, training=training),
            training,
        )
        if memory is not None:
            x = self._add(
                x,
                self.memory_norm,
                lambda x: self.memory_attention(x, memory, key_mask=memory_mask, training=training),
                training,
            )
        return self._add(x, self.feedforward_norm, self._feedforward, training)

    def empty_cache(self, batch_size: int, length: int) -> Cache:
        """What `step` takes before the first token, for texts of at most `length`.

        Raises:
            ValueError: the block is not causal, or attends to a memory as well.
        """
        if not self.causal or self.cross_attention:
            raise ValueError(
                "Expected a causal block without cross-attention: in others, tokens see later ones or a memory. "
                f"Received: causal={self.causal}, cross_attention={self.cross_attention}"
            )
        return self.attention.empty_cache(batch_size, length)

    def step(self, inputs: keras.KerasTensor, cache: Cache, position: Any) -> tuple[keras.KerasTensor, Cache]:
        """The tokens (B, T, D) at `position` and after -> (B, T, D), and the cache with them; T is mostly 1."""
        kept = cache

        def attend(x: Any) -> Any:
            nonlocal kept
            attended, kept = self.attention.step(x, cache, position)
            return attended

        x = self._add(inputs, self.attention_norm, attend, False)
        return self._add(x, self.feedforward_norm, self._feedforward, False), kept

    def _add(self, x: Any, norm: keras.layers.Layer, part: Any, training: bool | None) -> Any:
        """The residual connection of one part, with its normalization."""
        added = part(norm(x) if self.norm == "pre" else x)
        if self.drop is not None:
            added = self.drop(added, training=training)
        return x + added if self.norm == "pre" else norm(x + added)

    def _feedforward(self, x: Any) -> Any:
        return self.output_projection(self.hidden(x))

    def _attention(self, name: str, **options: Any) -> Attention:
        return Attention(
            self.width,
            self.num_heads,
            dropout=self.dropout,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            output_initializer=self.residual_initializer,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def _norm(self, name: str) -> keras.layers.Layer:
        return layer_norm(self.use_bias, dtype=self.dtype_policy, name=name)

    def _dense(self, units: int, initializer: Any, name: str, activation: Any = None) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            activation=activation,
            use_bias=self.use_bias,
            kernel_initializer=initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], memory_shape: Any = None
    ) -> tuple[int | None, ...]:
        """(B, T, D)."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        names = (
            "width", "num_heads", "feedforward_width", "dropout", "norm", "causal", "cross_attention", "rotary",
            "use_bias",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names} | {
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "residual_initializer": keras.initializers.serialize(self.residual_initializer),
        }
        return {**super().get_config(), **own}


def layer_norm(use_bias: bool = True, **kwargs: Any) -> keras.layers.LayerNormalization:
    """The layer normalization of Transformers."""
    return keras.layers.LayerNormalization(epsilon=EPSILON, center=use_bias, **kwargs)
