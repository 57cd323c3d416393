"""The first layer of a model of texts: passes token ids on, and keeps the vocabulary inside the saved model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from dlcli.errors import DlcliError

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


@keras.saving.register_keras_serializable("dlcli")
class Tokens(keras.layers.Layer):
    """Token ids (B, T) -> the same ids.

    Args:
        tokenizer_json: the tokenizer with its vocabulary, as `Tokenizer.json` gives it.
        max_length: tokens of an example; what is longer was cut in training.
    """

    def __init__(self, tokenizer_json: str, max_length: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "int32", **kwargs})
        self.tokenizer_json = tokenizer_json
        self.max_length = max_length
        self.supports_masking = True

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids."""
        from dlcli.data.text.tokenizer import Tokenizer

        return Tokenizer(self.tokenizer_json)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Int32 (B, T), unchanged."""
        return keras.ops.cast(inputs, "int32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T)."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        own = {"tokenizer_json": self.tokenizer_json, "max_length": self.max_length}
        return {**super().get_config(), **own}


def tokens_of(model: keras.Model) -> Tokens | None:
    """The layer that holds a saved model's vocabulary; None for a model that reads no text."""
    return next((layer for layer in model.layers if isinstance(layer, Tokens)), None)


def read_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary in a file that a training wrote.

    Raises:
        DlcliError: it is damaged.
    """
    from dlcli.data.text.tokenizer import Tokenizer

    try:
        return Tokenizer(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise DlcliError(
            f"{path}: no vocabulary ({error}); put back a copy, or train the recipe anew"
        ) from error


def saved_tokenizer(path: Path) -> Tokenizer | None:
    """The vocabulary inside a .keras file, without building the model; None for a model that reads no text.

    Raises:
        DlcliError: the file is damaged, or no .keras file.
    """
    from dlcli.data.text.tokenizer import Tokenizer
    from dlcli.pretrained.archive_check import read_archive
    from dlcli.pretrained.config_check import parse_json
    from dlcli.pretrained.unfit import UnfitError

    try:
        config = parse_json(read_archive(path).config, "config.json").get("config", {})
    except UnfitError as error:
        raise DlcliError(f"{path} {error}; {error.advice or 'put back a copy of it'}") from error
    configs = [layer["config"] for layer in config.get("layers", ()) if layer["class_name"] == "Tokens"]
    return Tokenizer(configs[0]["tokenizer_json"]) if configs else None
