"""Where the head of a pretrained model begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from dlcli.pretrained.graph import Cut, producer

# They have no weights, and stand between a model's last weights and its output.
_AFTER_THE_LAST_WEIGHTS = {
    "Activation", "Cast", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Identity",
    "LogSoftmax", "Predictions", "ReLU", "Relu", "Reshape", "Sigmoid", "Softmax", "Squeeze", "TokenLogits",
}  # fmt: skip
_SPATIAL = {"Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Reshape", "Squeeze"}


def before_named(model: keras.Model, head: Sequence[str]) -> Cut | None:
    """What the first of the layers with names of the head reads; None when there is none.

    Looked for from the output backwards: a pretrained model inside has such names of its own. Of a language model whose
    output matrix is its embedding, what that embedding reads the second time.

    Args:
        model: of a run.
        head: names of the layers that the run's task added.
    """
    place = _settled(model, (model.outputs[0],))
    found = None
    while place is not None:
        layer = producer(place[-1])
        ours = layer.name in head or _backwards(place[-1])
        if not ours and isinstance(layer, keras.layers.Layer):
            break  # operations such as a squeeze may stand between the layers of a head
        place = _before(model, place)
        found = place if ours else found
    return None if found is None else Cut(model, found)


def before_last_weights(model: keras.Model) -> Cut | None:
    """What the last Dense layer reads, or the last 1x1 convolution before a pooling; None where neither ends the model.

    Args:
        model: any graph of layers with one output.
    """
    place: Sequence[keras.KerasTensor] | None = _settled(model, (model.outputs[0],))
    pooled = False
    while place is not None:
        layer = producer(place[-1])
        kind = type(layer).__name__
        if kind in _AFTER_THE_LAST_WEIGHTS:
            pooled = pooled or kind in _SPATIAL
        elif _is_dense(layer) or _backwards(place[-1]) or (pooled and _is_pointwise(layer)):
            before = _before(model, place)
            return None if before is None else Cut(model, tuple(before))
        else:
            return None
        place = _before(model, place)
    return None


def whole(model: keras.Model) -> Cut:
    """The model's own output."""
    return Cut(model, _settled(model, (model.outputs[0],)) or (model.outputs[0],))


def _is_dense(layer: Any) -> bool:
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    return isinstance(inner, keras.layers.Dense)


def _is_pointwise(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) == (1, 1)


def _backwards(tensor: keras.KerasTensor) -> bool:
    """Whether an embedding gives this tensor as logits."""
    operation, index, _ = tensor._keras_history
    if not isinstance(operation, keras.layers.ReversibleEmbedding):
        return False
    arguments = operation._inbound_nodes[index].arguments
    return bool(arguments.kwargs.get("reverse", False) or True in arguments.args[1:2])


def _before(model: keras.Model, place: Sequence[keras.KerasTensor]) -> tuple[keras.KerasTensor, ...] | None:
    """One layer back; None at the model's inputs."""
    operation, index, _ = place[-1]._keras_history
    read = operation._inbound_nodes[index].input_tensors
    return _settled(model, (*place[:-1], read[0])) if read else None


def _settled(
    model: keras.Model, place: tuple[keras.KerasTensor, ...]
) -> tuple[keras.KerasTensor, ...] | None:
    """The same values where a layer gives them: into a nested model at its output, out of it at its input."""
    while True:
        operation, index, position = place[-1]._keras_history
        if isinstance(operation, keras.Model):
            place = (*place, operation.outputs[position])
        elif not isinstance(operation, keras.layers.InputLayer):
            return place
        elif len(place) == 1:
            return None
        else:
            outer, index, _ = place[-2]._keras_history
            number = next(i for i, each in enumerate(outer.inputs) if each is place[-1])
            place = (*place[:-2], outer._inbound_nodes[index].input_tensors[number])
