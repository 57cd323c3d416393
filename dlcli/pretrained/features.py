"""The features of a pretrained model as vectors."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import tree

from dlcli.data.text.tokenizer import PAD
from dlcli.errors import DlcliError
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.pretrained.backbone import Backbone

Pooling = Literal["mean", "max", "first"]

POOLED = "pooled_features"
"""The layer that pools."""


def pooled(backbone: Backbone, pooling: Pooling) -> keras.Model:
    """The backbone with its features as vectors.

    Args:
        backbone: gives (B, D), (B, T, D) or (B, H, W, D).
        pooling: as `pool` takes it.

    Returns:
        A model from the backbone's inputs to float32 (B, D).

    Raises:
        DlcliError: as `pool` does.
    """
    ids = None if backbone.tokenizer is None else backbone.model.input
    features = pool(backbone, backbone.model.output, pooling, ids)
    return keras.Model(backbone.model.input, features, name="features")


def pool(backbone: Backbone, features: Any, pooling: Pooling, ids: Any = None) -> keras.KerasTensor:
    """Features of a backbone -> float32 (B, D).

    Args:
        backbone: for messages.
        features: vectors, which stay as they are; maps (B, H, W, D), pooled over H and W; or sequences (B, T, D),
            pooled over the tokens that are no padding.
        pooling: `first` is for sequences alone.
        ids: of texts the tokens (B, T), for a backbone that hands no mask on.

    Raises:
        DlcliError: the layer gives something else, or maps have no first token.
    """
    where = f"{backbone.source}: layer {backbone.layer} gives"
    shapes = ", ".join(_shape(each) for each in tree.flatten(features))
    rank = len(features.shape) if isinstance(features, keras.KerasTensor) else 0
    if rank not in (2, 3, 4) or features.shape[-1] is None:
        raise DlcliError(
            f"{where} {shapes}; features are D numbers, T x D (a sequence) or H x W x D (a map): choose another layer"
        )
    if rank == 4 and pooling == "first":
        raise DlcliError(f"{where} maps of {shapes}, which have no first token; pooling is mean or max")
    if rank == 4:
        layers = {"mean": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
        return layers[pooling](name=POOLED, dtype="float32")(features)
    if rank == 3:
        features = _of_sequence(features, pooling, ids)
    if keras.backend.standardize_dtype(features.dtype) != "float32":
        features = keras.ops.cast(features, "float32")
    return features


def _of_sequence(features: Any, pooling: Pooling, ids: Any) -> keras.KerasTensor:
    if pooling == "first":
        return features[:, 0]
    layer = MaskedPooling(pooling, name=POOLED, dtype="float32")
    if ids is None or getattr(features, "_keras_mask", None) is not None:
        return layer(features)
    # Some models read their mask as an input of its own and hand none on.
    return layer(features, mask=keras.ops.not_equal(ids, PAD))


def _shape(tensor: Any) -> str:
    return " x ".join("?" if side is None else str(side) for side in tensor.shape[1:])
