"""Which layer a class activation map is made at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from dlcli.errors import DlcliError
from dlcli.explain.hooks import Seen, spatial
from dlcli.explain.network import Network
from dlcli.recipe.names import suggest

WITHOUT_A_MAP = "integrated_gradients, smooth_grad, saliency, occlusion, rise, lime, shap"
"""Methods of images that need no layer with a map."""

LISTED = 20
"""Layers that a message lists."""

# They pass a map on, smaller or with gaps: what they are given shows more. By name, since pooling has no common class.
_PASS_ON = (
    "Pooling",
    "Dropout",
    "ZeroPadding",
    "Cropping",
    "Identity",
    "Activity",
    "Gaussian",
    "Reshape",
    "Permute",
)

# Inside attention they give (B, T, heads, D) and (B, heads, T, T), which are no maps of the image.
_ATTENTION = (keras.layers.EinsumDense, keras.layers.Softmax)

_SCALING = (keras.layers.Normalization, keras.layers.BatchNormalization, keras.layers.LayerNormalization)


def layer_of(network: Network, method: str, name: str | None = None) -> Seen:
    """The layer at which a map is made: the one that is named, or the last that makes features with a height and width.

    Args:
        network: of images.
        method: for messages.
        name: as `Seen.name` has it, or its last part when only one layer is called so.

    Raises:
        DlcliError: no layer is called so, or the model has none that gives a map.
    """
    maps = map_layers(network.layers)
    if name is not None:
        return _named(network.layers, maps, name)
    if not maps:
        raise DlcliError(
            f"{method} needs a layer that gives a map (B, H, W, D), and the model has none behind its first weights; "
            f"methods that work: {WITHOUT_A_MAP}"
        )
    made = [seen for seen in maps if not any(part in type(seen.layer).__name__ for part in _PASS_ON)]
    last = (made or maps)[-1]
    if _works_on_tokens_behind(network.layers, last):
        raise DlcliError(
            f"{method} needs a map of what the model has found, and behind {last.name} {shape_of(last)}, the last "
            f"layer with a map, this model works on a sequence of patches; methods that work: {WITHOUT_A_MAP}. "
            f"--layer {last.name} asks for that layer's map"
        )
    return last


def map_layers(layers: Sequence[Seen]) -> list[Seen]:
    """The layers behind the model's first weights that give a map (B, H, W, D), each once, in their order."""
    weights = next(
        (i for i, seen in enumerate(layers) if seen.layer.weights and not _scales(seen)), len(layers)
    )
    maps: dict[int, Seen] = {}
    for seen in layers[weights:]:
        one_example = seen.shape[:1] == layers[0].shape[:1]
        if spatial(seen) and one_example and not isinstance(seen.layer, _ATTENTION):
            maps.setdefault(id(seen.layer), seen)
    return list(maps.values())


def shape_of(seen: Seen) -> str:
    """`(8, 8, 64)`: without the batch."""
    return f"({', '.join(map(str, seen.shape[1:]))})"


def _scales(seen: Seen) -> bool:
    return isinstance(seen.layer, _SCALING)


def _named(layers: Sequence[Seen], maps: Sequence[Seen], name: str) -> Seen:
    found = [seen for seen in maps if seen.name == name]
    found = found or [seen for seen in maps if seen.name.rpartition("/")[2] == name]
    if len({id(seen.layer) for seen in found}) == 1:
        return found[0]
    if found:
        raise DlcliError(f"--layer {name}: {len(found)} layers are called so; {_listed(found)}")
    if not maps:
        raise DlcliError(
            f"--layer {name}: the model has no layer that gives a map (B, H, W, D); methods that work: {WITHOUT_A_MAP}"
        )
    other = next((seen for seen in layers if name in (seen.name, seen.name.rpartition("/")[2])), None)
    if other is not None:
        why = f"gives {shape_of(other)}, which is no map (H, W, D) of features"
    else:
        near = suggest(name, [seen.name for seen in maps])
        why = f"no such layer{f'; did you mean {near}?' if near else ''}"
    raise DlcliError(f"--layer {name}: {why}; {_listed(maps)}")


def _listed(maps: Sequence[Seen]) -> str:
    shown = maps[-LISTED:]
    earlier = f"{len(maps) - len(shown)} earlier ones, " if len(maps) > len(shown) else ""
    return f"layers with a map: {earlier}{', '.join(f'{seen.name} {shape_of(seen)}' for seen in shown)}"


def _works_on_tokens_behind(layers: Sequence[Seen], last: Seen) -> bool:
    """Whether layers with weights follow that give (B, T, D), T at least the map's places, as a ViT's blocks do."""
    places = math.prod(last.shape[1:3])
    behind = layers[max(i for i, seen in enumerate(layers) if seen.layer is last.layer) + 1 :]
    tokens = [
        seen for seen in behind if len(seen.shape) == 3 and seen.shape[1] >= places and seen.layer.weights
    ]
    return len(tokens) >= MOST_ON_TOKENS


MOST_ON_TOKENS = 3
"""Layers with weights on a sequence, from which on a model is one of patches."""
