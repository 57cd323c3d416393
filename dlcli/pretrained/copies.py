"""A pretrained model inside a new network: copies of its layers, called on the network's own inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import tree

from dlcli.errors import DlcliError
from dlcli.pretrained.backbone import Backbone
from dlcli.pretrained.graph import Cut, Operation, nested, replay

PREFIX = "source_"
"""Before the name of a layer whose own name is taken."""


class _RefusedError(Exception):
    """A layer does not take what it is called on."""


def connect(backbone: Backbone, inputs: keras.KerasTensor, taken: Iterable[str] = ()) -> keras.KerasTensor:
    """The backbone's features of other inputs, from copies of its layers with its weights.

    Copies, because a layer that is called a second time shows the shapes of its first call, and because names have to
    be unique in the new network.

    Args:
        backbone: as `load_backbone` gives it.
        inputs: uint8 pixels (B, H, W, C), of another size and number of channels where the layers allow it, or
            int32 token ids (B, T).
        taken: names that the new network's other layers have, or will get.

    Raises:
        DlcliError: the inputs do not fit; with both shapes and the layer that refuses.
    """
    model = backbone.model
    expected = model.input
    if not isinstance(expected, keras.KerasTensor):
        raise DlcliError(
            f"{backbone.source}: reads a table's columns, and this network does not; use architecture frozen_features"
        )
    if len(expected.shape) != len(inputs.shape):
        kinds = {4: "images", 2: "texts"}
        raise DlcliError(
            f"{backbone.source}: reads {kinds.get(len(expected.shape), expected.shape)}, and these inputs are "
            f"{kinds.get(len(inputs.shape), inputs.shape)} of shape {_side(inputs)}"
        )
    x = inputs
    if len(expected.shape) == 4:
        x = with_channels(inputs, expected.shape[-1], backbone.source)
    copies = _Copies({*taken, *_upstream(x)})
    try:
        features = replay(Cut(model, (model.outputs[0],)), [x], copies)
        copies.copy_weights()
    except _RefusedError as refusal:
        raise DlcliError(
            f"{backbone.source}: reads inputs of shape {_side(expected)}, and these are {_side(inputs)}: {refusal}. "
            f"Give images of the source's size (dataset.image_size), or cut before that layer (layer: NAME)"
        ) from refusal.__cause__
    return features


def with_channels(images: keras.KerasTensor, channels: int | None, source: str) -> keras.KerasTensor:
    """Gray images with their one channel repeated, or colour images as gray ones, as a source needs them.

    Raises:
        DlcliError: other numbers of channels.
    """
    own = images.shape[-1]
    if channels in (None, own):
        return images
    if (own, channels) == (1, 3):
        return keras.layers.Concatenate(name="repeated_channels")([images] * 3)
    if (own, channels) == (3, 1):
        # In float32: of bytes the gray value would be rounded.
        return keras.ops.image.rgb_to_grayscale(keras.ops.cast(images, "float32"))
    raise DlcliError(
        f"{source}: reads images of {channels} channels, and these are {_side(images)}; 1 and 3 channels can be "
        "exchanged, others cannot"
    )


class _Copies:
    """Makes one copy of each layer, on demand."""

    def __init__(self, taken: set[str], made: dict[int, tuple[Any, Any]] | None = None) -> None:
        self._taken = taken
        self._made = {} if made is None else made

    def __call__(self, operation: Any) -> Operation:
        if isinstance(operation, keras.Model):
            inside = _Copies(set(), self._made)  # names have to be unique in each model of its own
            return nested(operation, operation.outputs[:1], inside, self._free(operation.name))
        if id(operation) not in self._made:
            self._made[id(operation)] = (operation, self._copy(operation))
        return _refusing(self._made[id(operation)][1], operation.name)

    def _copy(self, operation: Any) -> Any:
        config = dict(operation.get_config())
        if not isinstance(operation, keras.layers.Layer):
            config.pop("name", None)  # the next free one of this process
            return type(operation).from_config(config)
        config["name"] = self._free(operation.name)
        if _policy(operation) == "float32":  # the recipe's precision decides
            config["dtype"] = keras.config.dtype_policy().name
        return type(operation).from_config(config)

    def _free(self, name: str) -> str:
        while name in self._taken:
            name = PREFIX + name
        self._taken.add(name)
        return name

    def copy_weights(self) -> None:
        """Puts the source's weights into the copies.

        Raises:
            _RefusedError: other shapes.
        """
        for source, copy in self._made.values():
            if not isinstance(source, keras.layers.Layer) or not source.weights:
                continue
            theirs = [tuple(weight.shape) for weight in source.weights]
            ours = [tuple(weight.shape) for weight in copy.weights]
            if theirs != ours:
                raise _RefusedError(
                    f"layer {source.name} has weights of {_shapes(theirs)}, and these inputs need {_shapes(ours)}"
                )
            copy.set_weights(source.get_weights())
            if isinstance(copy, keras.layers.Normalization):
                copy.finalize_state()  # set_weights leaves what it computes with as it was


def _refusing(operation: Any, name: str) -> Operation:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return operation(*args, **kwargs)
        except (ValueError, TypeError, ArithmeticError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            shapes = " and ".join(_side(each) for each in tree.flatten(args) if hasattr(each, "shape"))
            raise _RefusedError(f"layer {name} does not take {shapes} ({reason})") from error

    return call


def _policy(layer: keras.layers.Layer) -> str:
    return str(getattr(layer.dtype_policy, "name", ""))


def _upstream(x: keras.KerasTensor) -> set[str]:
    """Names of the layers that inputs come from."""
    return {layer.name for layer in keras.Function(keras.utils.get_source_inputs(x), x).operations}


def _side(tensor: Any) -> str:
    return "x".join("?" if side is None else str(side) for side in tensor.shape[1:])


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes)
