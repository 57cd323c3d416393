"""A pretrained model from elsewhere, without its head."""

from __future__ import annotations

from typing import Literal

import keras

from dlcli.errors import DlcliError
from dlcli.layers.output_projection import EMBEDDING
from dlcli.layers.token_ids import PresetTokens
from dlcli.pretrained.copies import connect
from dlcli.pretrained.source import load_backbone
from dlcli.recipe.arguments import Rate

DROPOUT = "features_dropout"
"""The name of the layer in front of the task's."""

RESERVED = (
    "tokenizer", "pooling", "logits", "predictions", "output_projection", "masked_language_dense",
    "masked_language_norm", "detection_dense", "answers", "features", DROPOUT,
)  # fmt: skip
"""Names of layers that tasks and the pipeline add around an architecture; a source's own are renamed."""


def pretrained(
    inputs: keras.KerasTensor,
    vocabulary_size: int = 0,
    max_length: int = 0,
    *,
    source: str,
    layer: str | None = None,
    preprocessing: Literal["auto", "none", "rescale", "tf", "caffe", "torch"] = "auto",
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """The layers of a pretrained model up to the one before its head, with their weights.

    The source's own preprocessing is among them, so inputs are raw. Models inside the model stay so, under their names.

    Args:
        inputs: of images levels 0..255 (B, H, W, C); of texts token ids int32 (B, T) of the source's vocabulary.
        vocabulary_size: of texts: tokens.
        max_length: of texts: the longest T.
        source: a run folder, a .keras or .h5 file, `imagenet:NAME`, `hub:PRESET`, or a local preset folder.
        layer: the layer whose output becomes the features; the one before the head when left out.
        preprocessing: what the source expects of pixels when the file does not contain it.
        dropout: share of the features set to zero in training.

    Returns:
        (B, D), (B, T, D) or (B, H, W, D).

    Raises:
        DlcliError: the source cannot be used, or does not read such inputs; with both shapes.
    """
    backbone = load_backbone(source, layer, preprocessing)
    if vocabulary_size and backbone.tokenizer is not None:
        if backbone.tokenizer.vocabulary_size != vocabulary_size:
            raise DlcliError(
                f"{source}: knows {backbone.tokenizer.vocabulary_size:,} tokens, and the texts were split into a "
                f"vocabulary of {vocabulary_size:,}: they have to be split by the source's own tokenizer"
            )
        if backbone.max_length and max_length > backbone.max_length:
            raise DlcliError(
                f"{source}: reads at most {backbone.max_length} tokens, and dataset.max_length is {max_length}: "
                f"set dataset.max_length to {backbone.max_length} or less"
            )
    taken: tuple[str, ...] = RESERVED
    if any(isinstance(one, PresetTokens) for one in backbone.model.layers):
        # Its rows are in the preset's order: a task that tied its outputs to them would learn the wrong tokens.
        taken = (*RESERVED, EMBEDDING)
    return _dropped(connect(backbone, inputs, taken), dropout)


def _dropped(features: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """As `drop_features`, under a name that the source's own Dropout layers do not have."""
    if not rate:
        return features
    layer = keras.layers.SpatialDropout2D if len(features.shape) == 4 else keras.layers.Dropout
    return layer(rate, name=DROPOUT)(features)
