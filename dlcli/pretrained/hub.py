"""Presets of KerasHub, and folders in Hugging Face's form, as models of raw inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from dlcli.console import note
from dlcli.errors import DlcliError
from dlcli.extras import require
from dlcli.layers.token_ids import PresetTokens, WithMask
from dlcli.pretrained.archive_check import UnfitError
from dlcli.pretrained.config_check import check_names, parse_json
from dlcli.pretrained.model_file import checked_weights_file
from dlcli.pretrained.pixels import PIXELS, choose_mode, scale_pixels
from dlcli.pretrained.preset_tokenizer import convert_tokenizer

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer

SEQUENCE, MASKED = "sequence_output", "masked_features"
"""The output of KerasHub's encoders that holds a vector for each token, and the layer that gives them a mask."""

_SCHEMES = ("kaggle", "hf")
"""Others KerasHub would read through TensorFlow's file systems, whose connections nothing can forbid."""

_FIRST_IS_CLASS = ("ViTBackbone", "DeiTBackbone", "DINOV2Backbone", "DINOV3Backbone")
"""Vision transformers whose first token stands for the whole image."""


@dataclass(frozen=True)
class Preset:
    """A preset from raw inputs to features."""

    inputs: keras.KerasTensor
    """uint8 (B, H, W, C), or dlcli's token ids int32 (B, T)."""
    features: keras.KerasTensor
    notes: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None
    max_length: int = 0

    def masked(self, ids: keras.KerasTensor, features: keras.KerasTensor) -> keras.KerasTensor:
        """Features of another layer with the mask that pooling needs."""
        return WithMask(name=f"{MASKED}_of_layer")([features, ids])


def load_preset(preset: str, source: str, preprocessing: str) -> Preset:
    """Loads a backbone of KerasHub with the preprocessing that its preset describes.

    Args:
        preset: a name of KerasHub, a handle such as `kaggle://...` or `hf://...`, or a folder.
        source: what messages call it.
        preprocessing: of images, where the preset has no image converter.

    Raises:
        DlcliError: KerasHub is missing, the preset cannot be loaded, or is of a kind that is not supported.
    """
    scheme, _, rest = preset.partition("://")
    if rest and scheme.lower() not in _SCHEMES:
        raise DlcliError(
            f"{source}: {scheme}:// is not read; allowed: {', '.join(f'{each}://' for each in _SCHEMES)}"
        )
    require("hub", "keras_hub", what=source)
    if not Path(preset).exists():
        note(f"{source}: from the network, unless KerasHub has it in its cache")
    if (Path(preset) / "config.json").is_file():
        _check_folder(Path(preset), source)
    backbone = _load(preset, source)
    inputs = backbone.input
    if isinstance(inputs, dict) and "token_ids" in inputs:
        return _of_texts(backbone, preset, source)
    if isinstance(inputs, keras.KerasTensor) and len(inputs.shape) == 4:
        return _of_images(backbone, preset, source, preprocessing)
    names = ", ".join(inputs) if isinstance(inputs, dict) else str(inputs.shape)
    raise DlcliError(
        f"{source}: {type(backbone).__name__} reads {names}; only models of images and models of one text are supported"
    )


def _check_folder(folder: Path, source: str) -> None:
    """Refuses what a local folder may not hold, before anything of it is loaded."""
    config = _read(folder / "config.json")
    if "model_type" in config:
        require("hub", "safetensors", what=f"{source} (a folder in Hugging Face's form)")
        if not list(folder.glob("model*.safetensors*")):
            raise DlcliError(
                f"{source}: holds no model.safetensors; weights in PyTorch's own form (pytorch_model.bin) are programs "
                "and are not read: save them with safetensors"
            )
        return
    name = str(config.get("registered_name"))
    if not name.startswith("keras_hub>"):
        raise DlcliError(
            f"{source}: its class {name} is not of KerasHub, and classes from elsewhere are not loaded"
        )
    for part in ("tokenizer.json", "image_converter.json"):
        if (folder / part).is_file():
            _read(folder / part)
    for weights in sorted(folder.glob("*.weights.h5")):
        with checked_weights_file(weights):
            pass


def _read(path: Path) -> dict[str, Any]:
    """A configuration of KerasHub or Hugging Face that names no code."""
    try:
        config = parse_json(path.read_text(encoding="utf-8"), path.name)
        if "registered_name" in config:
            check_names(config)
    except (OSError, UnicodeDecodeError) as error:
        raise DlcliError(f"{path}: cannot be read ({error}); put back a copy of it") from error
    except UnfitError as error:
        raise DlcliError(f"{path} {error}; {error.advice or 'put back a copy of it'}") from error
    return config


def _load(preset: str, source: str) -> keras.Model:
    import keras_hub

    try:
        return keras_hub.models.Backbone.from_preset(preset)
    except Exception as error:  # downloads, JSON, HDF5 and safetensors fail in every way there is
        logging.getLogger(__name__).debug("keras_hub failed", exc_info=True)
        reason = " ".join(str(error).split())[:400]
        local = Path(preset).exists()
        hint = (
            "put back a copy of the folder"
            if local
            else f"on a machine with a network save it (keras_hub.models.Backbone.from_preset({preset!r})"
            ".save_to_preset(DIR), and the same with keras_hub.models.Tokenizer) and give DIR; names: "
            "https://keras.io/keras_hub/presets"
        )
        raise DlcliError(f"{source}: cannot be loaded ({type(error).__name__}: {reason}); {hint}") from error


def _of_texts(backbone: keras.Model, preset: str, source: str) -> Preset:
    vocabulary = convert_tokenizer(preset, source)
    embedding = getattr(backbone, "token_embedding", None)
    rows = getattr(embedding, "input_dim", vocabulary.preset_size)
    if rows < vocabulary.preset_size:
        raise DlcliError(
            f"{source}: its tokenizer knows {vocabulary.preset_size} tokens and its embedding {rows}; they do not "
            "belong together"
        )
    ids = keras.Input((None,), dtype="int32", name="tokens")
    read = PresetTokens(vocabulary.preset_size, vocabulary.special_ids, name="preset_tokens")(ids)
    outputs = backbone.output
    wanted = outputs[SEQUENCE] if isinstance(outputs, dict) and SEQUENCE in outputs else outputs
    if not isinstance(wanted, keras.KerasTensor) or len(wanted.shape) != 3:
        raise DlcliError(f"{source}: {type(backbone).__name__} gives no vector for each token")
    missing = [name for name in backbone.input if name not in read]
    if missing:
        raise DlcliError(
            f"{source}: {type(backbone).__name__} also reads {', '.join(missing)}, which one text does not give"
        )
    body = keras.Function([backbone.input[name] for name in backbone.input], [wanted])
    features = body._run_through_graph([read[name] for name in backbone.input])[0]
    features = WithMask(name=MASKED)([features, read["padding_mask"]])
    return Preset(
        ids,
        features,
        notes=vocabulary.notes,
        tokenizer=vocabulary.tokenizer,
        max_length=int(getattr(backbone, "max_sequence_length", None) or 0),
    )


def _of_images(backbone: keras.Model, preset: str, source: str, preprocessing: str) -> Preset:
    expected = backbone.input
    raw = keras.Input(expected.shape[1:], dtype="uint8", name="image")
    converter = _image_converter(preset)
    if converter is not None and preprocessing == "auto":
        scale = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
        pixels = keras.layers.Rescaling(_plain(scale), _plain(offset), name=PIXELS)(raw)
        notes = [f"pixels: scaled by {_plain(scale)} and shifted by {_plain(offset)}, as the preset says"]
        if converter.image_size and None in expected.shape[1:3]:
            notes.append(f"the preset was trained on images of {'x'.join(map(str, converter.image_size))}")
    else:
        mode, sentence = choose_mode(backbone, preprocessing)
        pixels, notes = scale_pixels(raw, mode, source), [sentence]
    if not isinstance(backbone.output, keras.KerasTensor):
        raise DlcliError(
            f"{source}: {type(backbone).__name__} gives several outputs; name one layer with `layer`"
        )
    features = keras.Function(backbone.input, backbone.output)._run_through_graph([pixels])
    if len(features.shape) == 3 and type(backbone).__name__ in _FIRST_IS_CLASS:
        features = features[:, 0]
        notes.append("features: the class token")
    elif len(features.shape) == 3:
        features = keras.layers.GlobalAveragePooling1D(name="mean_of_patches")(features)
        notes.append("features: the mean over all patches")
    return Preset(raw, features, notes=tuple(notes))


def _image_converter(preset: str) -> Any:
    import keras_hub

    try:
        return keras_hub.layers.ImageConverter.from_preset(preset)
    except (
        ValueError,
        OSError,
        KeyError,
    ):  # KerasHub has none for this kind, or the folder has no file of it
        return None


def _plain(value: Any) -> Any:
    """A number, or one for each channel."""
    return [float(each) for each in value] if isinstance(value, Sequence) else float(value)
