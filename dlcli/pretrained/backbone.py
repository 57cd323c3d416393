"""What a pretrained model gives to training: everything of it before its head, from raw inputs to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Backbone:
    """A pretrained model without its head."""

    model: keras.Model
    """Raw inputs (uint8 pixels (B, H, W, C), a dict of columns (B, 1) each, or token ids int32 (B, T)) -> features
    (B, D), (B, T, D) or (B, H, W, D). Its own preprocessing is inside."""
    layer: str
    """The layer that gives the features, by its name as `dlcli plan` prints it."""
    source: str
    """What the user named."""
    fingerprint: str
    """sha256 over the weights and the configuration: equal backbones give equal features."""
    tokenizer: Tokenizer | None = None
    """Of a model of texts: the vocabulary that its ids stand for."""
    max_length: int = 0
    """Of a model of texts: the most tokens that it can read; 0 for no limit."""
    classes: tuple[str, ...] = ()
    """What the source's own head told apart; empty when the file does not say."""
    notes: tuple[str, ...] = ()
    """What was assumed or converted; shown to the user."""
