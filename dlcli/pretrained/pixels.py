"""Raw pixels -> what a pretrained model of images was trained on."""

from __future__ import annotations

import re
from typing import Any

import keras
from keras import ops

from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers

PIXELS = "pixels"
"""The name of the layer that scales."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mode: scale and offset of levels 0..255; `caffe` turns RGB into BGR before.
_MODES: dict[str, tuple[Any, Any]] = {
    "none": (1.0, 0.0),
    "rescale": (1 / 255, 0.0),
    "tf": (1 / 127.5, -1.0),
    "caffe": (1.0, [-103.939, -116.779, -123.68]),
    "torch": ([1 / (255 * d) for d in _DEVIATION], [-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)]),
}
_MEANING = {
    "none": "levels 0..255 as they are",
    "rescale": "scaled to 0..1",
    "tf": "scaled to -1..1",
    "caffe": "BGR, minus ImageNet's mean",
    "torch": "standardized by ImageNet's mean and deviation",
}

# Families of keras.applications, by the names of their models and, of models that were cut open, of their layers.
_FAMILIES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("MobileNetV3", r"mobilenet_?v3", (), "none"),
    ("MobileNetV2", r"mobilenet_?v2", ("Conv1", "expanded_conv_depthwise"), "tf"),
    ("MobileNet", r"mobilenet_[\d.]+_", ("conv_dw_1", "conv_pw_1"), "tf"),
    ("InceptionResNetV2", r"inception_resnet_v2", ("block35_1_mixed",), "tf"),
    ("InceptionV3", r"inception_v3", ("mixed0", "mixed10"), "tf"),
    ("ResNetV2", r"resnet\d+v2", ("conv1_conv", "conv2_block1_preact_bn"), "tf"),
    ("DenseNet", r"densenet\d+", ("conv2_block1_concat",), "torch"),
    ("ResNet", r"resnet(50|101|152)$", ("conv1_conv", "conv2_block1_0_conv"), "caffe"),
    ("Xception", r"xception", ("block14_sepconv2",), "tf"),
    ("VGG", r"vgg1[69]", ("block1_conv1", "block5_conv3"), "caffe"),
    ("NASNet", r"nasnet", ("stem_conv1", "stem_bn1"), "tf"),
    ("EfficientNet", r"efficientnet", (), "none"),
    ("ConvNeXt", r"convnext", (), "none"),
)

_SCALES = {"Add", "Divide", "Multiply", "Normalization", "Rescaling", "Subtract", "TrueDivide"}


def has_preprocessing(model: keras.Model) -> bool:
    """Whether pixels are scaled inside the model, before its first weights."""
    return _scales_first(model) is True


def _scales_first(model: keras.Model) -> bool | None:
    for layer in keras.Function(model.inputs, model.outputs).operations:
        if isinstance(layer, keras.Model):
            answer = _scales_first(layer)
            if answer is not None:
                return answer
        elif type(layer).__name__ in _SCALES:
            return True
        elif getattr(layer, "weights", ()):
            return False
    return None


def family_of(model: keras.Model) -> tuple[str, str] | None:
    """The family of keras.applications that a model is of, or that is inside it, and how its pixels are scaled."""
    paths = [path for path, _ in named_layers(model)]
    models = {model.name, *(part for path in paths for part in path.split("/")[:-1])}
    layers = {path.rpartition("/")[2] for path in paths}
    for family, pattern, signature, mode in _FAMILIES:
        if any(re.match(pattern, name.lower()) for name in models) or (
            signature and layers >= set(signature)
        ):
            return family, mode
    return None


def choose_mode(model: keras.Model, preprocessing: str) -> tuple[str | None, str]:
    """How raw pixels are to be scaled for a model, and a sentence about it; None for a model that does it itself.

    Args:
        model: reads images.
        preprocessing: `auto`, or what the user knows of it.
    """
    own = has_preprocessing(model)
    if preprocessing != "auto":
        twice = "; the file scales them once more itself" if own and preprocessing != "none" else ""
        return preprocessing, f"pixels: {_MEANING[preprocessing]} (preprocessing: {preprocessing}){twice}"
    if own:
        return None, "pixels: 0..255, which the file scales itself"
    family = family_of(model)
    if family is not None:
        name, mode = family
        return (
            mode,
            f"pixels: {_MEANING[mode]}, as {name} of keras.applications expects (preprocessing: {mode})",
        )
    return "rescale", (
        "pixels: scaled to 0..1, which is a guess, since the file does not say what it was trained on; "
        "preprocessing: tf, caffe, torch or none for something else"
    )


def scale_pixels(images: keras.KerasTensor, mode: str | None, source: str) -> keras.KerasTensor:
    """Levels 0..255 -> what the model reads, in layers that are saved with it.

    Args:
        images: uint8 (B, H, W, C).
        mode: of `_MODES`; None for levels as float32.
        source: what messages call the model.

    Raises:
        DlcliError: the mode is for colour images only, and the model reads others.
    """
    scale, offset = _MODES[mode or "none"]
    if mode in ("caffe", "torch") and images.shape[-1] not in (3, None):
        raise DlcliError(
            f"{source}: preprocessing {mode} is for images of 3 channels, and this model reads {images.shape[-1]}; "
            "use none, rescale or tf"
        )
    if mode == "caffe":
        images = ops.flip(images, axis=-1)
    return keras.layers.Rescaling(scale, offset, name=PIXELS)(images)
