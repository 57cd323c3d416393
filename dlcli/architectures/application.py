"""Any network of keras.applications."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Literal

import keras
from keras import ops

from dlcli.architectures.blocks import drop_features, require_map
from dlcli.downloads import https_only
from dlcli.errors import DlcliError
from dlcli.pretrained.model_file import checked_weights_file
from dlcli.recipe.arguments import Application, Path, Rate
from dlcli.recipe.names import keras_class_name

# Which of Keras's preprocessing modes each family was trained with; "raw" families rescale inside the model.
_PREPROCESSING = {
    "convnext": "raw",
    "densenet": "torch",
    "efficientnet": "raw",
    "efficientnet_v2": "raw",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "raw",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}
# Keras keeps these under another name than the one they are downloaded from.
_CACHED_AS = {
    "NASNet-large-no-top.h5": "nasnet_large_no_top.h5",
    "NASNet-mobile-no-top.h5": "nasnet_mobile_no_top.h5",
}
_SMALLEST = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}


def application(
    inputs: keras.KerasTensor,
    *,
    model: Application,
    weights: Literal["imagenet", "none"] | Path = "imagenet",
    trainable: bool = True,
    dropout: Rate = 0.0,
) -> keras.KerasTensor:
    """A network of keras.applications without its top, with the preprocessing that it was trained with.

    Args:
        inputs: (B, H, W, 3) pixels in [0, 1]; one channel is repeated three times.
        model: A class of keras.applications in any spelling: `EfficientNetB0`, `efficientnet_b0`, `resnet50`.
        weights: `imagenet` (downloaded once into Keras's cache), `none` for random ones, or a weights file of
            the same network without its top.
        trainable: False freezes the network, so that only the task's output layer learns.
        dropout: Share of the features set to zero in training.

    Returns:
        (B, H', W', D): the last map, before pooling.

    Raises:
        ValueError: An unknown model, images too small, or neither 1 nor 3 channels.
        DlcliError: The weights cannot be downloaded or do not fit; the message says which file to put where.
    """
    constructor = find_application(model)
    family = _family(constructor)
    require_map(inputs, constructor.__name__, _SMALLEST.get(family, 32))
    channels = inputs.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"{constructor.__name__} expects images of 1 or 3 channels. Received: {channels}")
    x = keras.layers.Concatenate()([inputs] * 3) if channels == 1 else inputs
    base = load_application(constructor, weights, tuple(x.shape[1:]))
    base.trainable = trainable
    # Called layer by layer, so that the network is no model inside a model: Grad-CAM, `plan` and fine-tuning
    # then find its layers like those of any other architecture.
    x = base.call(preprocess(x, _PREPROCESSING[family]))
    return drop_features(x, dropout)


def find_application(model: str) -> Callable[..., keras.Model]:
    """The class of keras.applications with this name, in any spelling.

    Raises:
        ValueError: No such class; the message has those that there are.
    """
    constructor: Callable[..., keras.Model] = getattr(
        keras.applications, keras_class_name("applications", model)
    )
    return constructor


def preprocess(x: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """Pixels in [0, 1] -> what networks of this mode were trained on, in layers saved with the model.

    Args:
        x: (B, H, W, 3), RGB.
        mode: `caffe`: 0..255, BGR, minus ImageNet's mean; `tf`: -1..1; `torch`: standardized by ImageNet's
            mean and deviation; `raw`: 0..255.
    """
    if mode == "caffe":
        return keras.layers.Rescaling(255.0, offset=[-103.939, -116.779, -123.68])(ops.flip(x, axis=-1))
    if mode == "torch":
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
        return keras.layers.Rescaling([1 / d for d in deviation], offset=offset)(x)
    if mode == "tf":
        return keras.layers.Rescaling(2.0, offset=-1.0)(x)
    return keras.layers.Rescaling(255.0)(x)


def _family(constructor: Callable[..., keras.Model]) -> str:
    return constructor.__module__.rsplit(".", 1)[-1]


def load_application(
    constructor: Callable[..., keras.Model], weights: str | Path, input_shape: tuple[int, ...]
) -> keras.Model:
    """The network without its top.

    Args:
        constructor: of keras.applications.
        weights: `imagenet`, `none`, or a file.
        input_shape: (H, W, C).

    Raises:
        DlcliError: the weights cannot be downloaded or do not fit.
    """
    known = str(weights) in ("imagenet", "none")
    if not known and not Path(weights).is_file():
        raise DlcliError(
            f"weights: {weights} is no file; allowed: imagenet, none, or a weights file of Keras"
        )
    source = "imagenet" if str(weights) == "imagenet" else None
    try:
        # Keras tells of its downloads on stdout, which is for results.
        with https_only(), contextlib.redirect_stdout(sys.stderr):
            base = constructor(include_top=False, weights=source, input_shape=input_shape)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if "URL fetch failure" not in str(error):
            raise
        raise DlcliError(_no_download(constructor.__name__, str(error))) from error
    if not known:
        try:
            with checked_weights_file(Path(weights)) as file, warnings.catch_warnings():
                # Keras only warns when layers that the file lacks keep their random weights.
                warnings.simplefilter("error", UserWarning)
                base.load_weights(file)
        except (ValueError, OSError, KeyError, UserWarning) as error:
            raise DlcliError(
                f"weights: {weights} does not fit {constructor.__name__} without its top ({error}); "
                "give a file of the same network without its top (notop), or `weights: none`"
            ) from error
    return base


def _no_download(model: str, reason: str) -> str:
    match = re.search(r"https?://\S+(?=: )", reason)
    url = match.group(0) if match else "https://keras.io/api/applications"
    name = PurePosixPath(url).name
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return (
        f"The ImageNet weights of {model} could not be downloaded ({reason}). On a machine with a network "
        f"download {url} and put it here as {home / 'models' / _CACHED_AS.get(name, name)}; "
        "or use `weights: none`"
    )
