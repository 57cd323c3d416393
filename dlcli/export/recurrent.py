"""SimpleRNN, LSTM and GRU as one operation of the target, in place of Keras's loop, which few runtimes can read.

Keras loops over time with lists of tensors. Converted to ONNX that is a `Loop` of many small nodes; OpenVINO refuses
it, and LiteRT needs a fixed batch for it. While a model is traced inside `replaced`, its recurrent layers call a
function of the target in place of that loop; everything around them stays Keras's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from dlcli.layers.attention import Attention

Direction = Literal["forward", "reverse", "bidirectional"]

CELLS = {keras.layers.LSTM: "LSTM", keras.layers.GRU: "GRU", keras.layers.SimpleRNN: "RNN"}
"""Layer -> the operation's name in ONNX; in OpenVINO it is this with `Sequence` behind it."""


@dataclass(frozen=True)
class Cell:
    """One direction's weights, as Keras orders the gates: LSTM i f c o, GRU z r h."""

    kernel: np.ndarray
    """(D, G * H)."""
    recurrent_kernel: np.ndarray
    """(H, G * H)."""
    bias: np.ndarray
    """(2, G * H): of the inputs, and of the state; the second is 0 but for GRU."""

    def gates(self, order: str, keras_order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W (G * H, D), R (G * H, H) and both biases (2, G * H), the gates in another order."""
        picked = [keras_order.index(gate) for gate in order]

        def pick(columns: np.ndarray) -> np.ndarray:
            return np.concatenate([np.split(columns, len(picked), axis=1)[gate] for gate in picked], axis=1)

        return pick(self.kernel).T, pick(self.recurrent_kernel).T, pick(self.bias)


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer, in one direction or in both."""

    operation: str
    """`LSTM`, `GRU` or `RNN`."""
    units: int
    """H."""
    direction: Direction
    cells: tuple[Cell, ...]
    """Forward before backward."""

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of each cell."""
        return ("forward", "reverse") if self.direction == "bidirectional" else (self.direction,)

    def stacked(self, order: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W (S, G * H, D), R (S, G * H, H) and biases (S, 2, G * H) of the S directions.

        Args:
            order: of the gates, as the target wants them, in Keras's letters.
        """
        keras_order = {"LSTM": "ifco", "GRU": "zrh", "RNN": "h"}[self.operation]
        kernels, recurrent_kernels, biases = zip(
            *(cell.gates(order, keras_order) for cell in self.cells), strict=True
        )
        return np.stack(kernels), np.stack(recurrent_kernels), np.stack(biases)


Implement = Callable[[Recurrent, Any, Any], tuple[Any, Any]]
"""(layer, inputs (B, T, D), number of real tokens int32 (B,)) -> outputs (B, T, S * H), 0 beyond the real tokens,
and each direction's last state (B, S * H), which for the backward one is that of the first token."""


def recurrent_layers(model: keras.Model) -> list[keras.Layer]:
    """The model's layers that loop over time, in both directions or one; those inside wrappers are not listed twice."""
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, (keras.layers.Bidirectional, keras.layers.RNN))
    ]
    inner = {
        id(part)
        for layer in found
        if isinstance(layer, keras.layers.Bidirectional)
        for part in (layer.forward_layer, layer.backward_layer)
    }
    return [layer for layer in found if id(layer) not in inner]


def has_attention(model: keras.Model) -> bool:
    """Whether tokens or places look at each other."""
    kinds = (
        Attention,
        keras.layers.MultiHeadAttention,
        keras.layers.GroupQueryAttention,
        keras.layers.Attention,
    )
    return any(isinstance(layer, kinds) for layer in model._flatten_layers())


@contextmanager
def replaced(model: keras.Model, implement: Implement) -> Iterator[None]:
    """Inside, the model's recurrent layers call `implement`; one that differs from what targets have keeps its loop."""
    layers = [(layer, cells) for layer in recurrent_layers(model) if (cells := _cells(layer))]
    for layer, recurrent in layers:
        layer.__dict__["call"] = _call(layer, recurrent, implement)
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.__dict__["call"]


def _call(layer: keras.Layer, recurrent: Recurrent, implement: Implement) -> Callable[..., Any]:
    """What stands in for `layer.call`."""
    own = type(layer).call

    def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        if initial_state is not None:
            return own(layer, sequences, initial_state=initial_state, mask=mask, training=training)
        shape = ops.shape(sequences)
        if mask is None:
            lengths = ops.zeros((shape[0],), "int32") + shape[1]
        else:
            lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        outputs, states = implement(recurrent, sequences, lengths)
        if recurrent.direction == "bidirectional":
            return _merged(layer, outputs if layer.return_sequences else states, recurrent.units)
        if not layer.return_sequences:
            return states
        if mask is not None and not layer.go_backwards and not layer.zero_output_for_mask:
            # Keras repeats the last output over the padding. Backwards it begins there, with zeros.
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, ops.expand_dims(states, 1))
        return ops.flip(outputs, axis=1) if layer.go_backwards else outputs

    return call


def _merged(layer: keras.layers.Bidirectional, both: Any, units: int) -> Any:
    """Both directions' outputs (..., 2 H) joined as the layer says."""
    if layer.merge_mode == "concat":
        return both
    forward, backward = both[..., :units], both[..., units:]
    merge = {"sum": ops.add, "mul": ops.multiply, "ave": lambda x, y: (x + y) / 2}
    return merge[layer.merge_mode](forward, backward)


def _cells(layer: keras.Layer) -> Recurrent | None:
    """The layer as one operation; None for what differs from it in anything."""
    if not isinstance(layer, keras.layers.Bidirectional):
        operation = CELLS.get(type(layer))
        if operation is None or not _is_usual(layer):
            return None
        direction: Direction = "reverse" if layer.go_backwards else "forward"
        return Recurrent(operation, layer.units, direction, (_cell(layer),))
    forward, backward = layer.forward_layer, layer.backward_layer
    operation = CELLS.get(type(forward))
    fits = type(forward) is type(backward) and forward.units == backward.units and backward.go_backwards
    if (
        operation is None
        or not fits
        or layer.merge_mode is None
        or not (_is_usual(forward) and _is_usual(backward))
    ):
        return None
    return Recurrent(operation, forward.units, "bidirectional", (_cell(forward), _cell(backward)))


def _is_usual(layer: keras.layers.RNN) -> bool:
    """Whether it computes what ONNX and OpenVINO call by its name: usual activations, no state kept or returned."""
    activations = [layer.activation] + (
        [] if isinstance(layer, keras.layers.SimpleRNN) else [layer.recurrent_activation]
    )
    usual = [keras.activations.tanh, keras.activations.sigmoid][: len(activations)]
    return (
        activations == usual
        and not layer.stateful
        and not layer.return_state
        and getattr(layer, "reset_after", True)
    )


def _cell(layer: keras.layers.RNN) -> Cell:
    cell = layer.cell
    kernel, recurrent_kernel = (
        ops.convert_to_numpy(weight) for weight in (cell.kernel, cell.recurrent_kernel)
    )
    bias = np.zeros((2, kernel.shape[1]), "float32")
    if cell.use_bias:
        given = ops.convert_to_numpy(cell.bias)
        bias[: given.ndim] = given  # (G * H,) is of the inputs alone
    return Cell(kernel, recurrent_kernel, bias)


def marker(layers: dict[str, Recurrent]) -> Implement:
    """An operation that stands for each layer in the TensorFlow graph until a converter puts its own there.

    It is TensorFlow's PyFunc, whose attribute `token` names the layer, and is never run.

    Args:
        layers: is filled with token -> layer.
    """

    def implement(recurrent: Recurrent, sequences: Any, lengths: Any) -> tuple[Any, Any]:
        token = f"recurrent_{len(layers)}"
        layers[token] = recurrent
        outputs, states = tf.raw_ops.PyFunc(
            input=[sequences, lengths], token=token, Tout=[tf.float32, tf.float32]
        )
        width = recurrent.units * len(recurrent.cells)
        return (
            tf.ensure_shape(outputs, (*sequences.shape[:2], width)),
            tf.ensure_shape(states, (sequences.shape[0], width)),
        )

    return implement


def full_length(implement: Implement) -> Implement:
    """For a target that reads forward and always to the end: lengths and directions become operations around it.

    A text is turned round within its own length, so that its padding stays behind it; the last state is the output
    at the last real token.

    Args:
        implement: gets layers of one direction, always forward, and lengths that are all T.
    """

    def read(recurrent: Recurrent, sequences: Any, lengths: Any) -> tuple[Any, Any]:
        places = tf.range(tf.shape(sequences)[1])[None, :, None]  # (1, T, 1)
        ends = lengths[:, None, None]  # (B, 1, 1)
        all_steps = tf.zeros_like(lengths) + tf.shape(sequences)[1]
        all_outputs, all_states = [], []
        for cell, direction in zip(recurrent.cells, recurrent.directions, strict=True):
            backward = direction == "reverse"
            inputs = _turned(sequences, lengths) if backward else sequences
            outputs, _ = implement(
                Recurrent(recurrent.operation, recurrent.units, "forward", (cell,)), inputs, all_steps
            )
            all_states.append(tf.reduce_sum(tf.where(tf.equal(places, ends - 1), outputs, 0.0), axis=1))
            outputs = _turned(outputs, lengths) if backward else outputs
            all_outputs.append(tf.where(places < ends, outputs, 0.0))
        return tf.concat(all_outputs, axis=-1), tf.concat(all_states, axis=-1)

    return read


def _turned(sequences: Any, lengths: Any) -> Any:
    return tf.reverse_sequence(sequences, tf.maximum(lengths, 1), seq_axis=1, batch_axis=0)
