"""A saved model from anywhere -> a Keras model. A model file from outside is data, not a program.

The file is copied once, into a folder that nobody else can write to; everything below is said of that copy, so that
what was checked is what is loaded:

1. its first bytes say what it is (archive_check.find_format);
2. the container is whole, leads nowhere and does not swell (archive_check, hdf5_check);
3. its configuration names parts of models only, of sizes that its weights have (config_check);
4. Keras builds the model in safe mode and without its training settings, and may make no more weights than the file
   stores;
5. no weight is NaN or infinite.

A file that no run of dlcli wrote goes through all this in a process of its own first, with limits on memory and time
(trial_load).

Not covered: files made to exploit faults of the HDF5 library, and models that need endless time or memory in use.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
from packaging.version import InvalidVersion, Version

import dlcli.layers  # noqa: F401  registers the layers that a run's model names
from dlcli.console import warn
from dlcli.errors import DlcliError
from dlcli.pretrained.archive_check import HDF5, ZIP, find_format, read_archive
from dlcli.pretrained.config_check import check_config, check_names, parse_json
from dlcli.pretrained.hdf5_check import Weights, read_hdf5, try_hdf5
from dlcli.pretrained.trial_load import try_loading
from dlcli.pretrained.unfit import UnfitError

_GET_AGAIN = "get the file again from where it came"
_WHOLE_MODEL = (
    "save the whole model (model.save('NAME.keras')), or use architecture application with `weights: FILE`"
)
_AS_KERAS = "Keras 3 cannot rebuild every .h5 model: save it as .keras where it was made"
# A Bidirectional layer makes weights once more than it saves, for the layer that it was made from.
_MORE_THAN_STORED = 4
_FEW_NUMBERS = 1 << 24
_LOADING = threading.Lock()


def load_model_file(path: Path, *, advice: str = _GET_AGAIN, from_outside: bool = False) -> keras.Model:
    """Loads a model that was saved with `model.save`, as .keras or .h5, without running anything that it brings along.

    Args:
        path: the file.
        advice: what to do about a file that is damaged.
        from_outside: no run of dlcli wrote it: it is loaded in a process of its own first (`trial_load`).

    Returns:
        The model, not compiled.

    Raises:
        DlcliError: there is no such file, it is damaged, is no such model, or could do harm.
    """
    with _named(path, advice), _own_copy(path, "model") as copy:
        if copy.suffix != ".keras":
            try_hdf5(copy)
        if from_outside:
            try_loading(copy)
        return load_checked(copy, str(path))


def load_checked(copy: Path, name: str = "") -> keras.Model:
    """Loads a model from a copy that nobody else can write to, its container, configuration and weights checked.

    Args:
        copy: the file, with the suffix of what it is.
        name: what a warning calls it; without one there is none.

    Raises:
        UnfitError: it is damaged, is no such model, or could do harm.
    """
    if copy.suffix == ".keras":
        archive = read_archive(copy)
        config, weights = parse_json(archive.config, "config.json"), archive.weights
        version = parse_json(archive.metadata, "metadata.json").get("keras_version")
    else:
        weights = read_hdf5(copy, copy.stat().st_size)
        config, version = _config_of_h5(weights), weights.attributes.get("keras_version")
    check_config(config, weights)
    if name:
        _compare_versions(name, version)
    model = _build(copy, weights)
    _check_weights(model)
    return model


@contextmanager
def checked_weights_file(path: Path, *, advice: str = _GET_AGAIN) -> Iterator[Path]:
    """A copy of a file of weights (.weights.h5, .h5 or .keras) for `model.load_weights`, its container checked.

    Raises:
        DlcliError: there is no such file, it is damaged, or no file of weights.
    """
    with _named(path, advice), _own_copy(path) as copy:
        magic = ZIP if copy.suffix == ".keras" else HDF5  # as Keras chooses
        with copy.open("rb") as file:
            if not file.read(len(magic)).startswith(magic):
                raise UnfitError(
                    f"is no {'.keras archive' if magic == ZIP else 'HDF5 file'}, as its name says"
                )
        if magic == ZIP:
            read_archive(copy)
        else:
            try_hdf5(copy)
            if not read_hdf5(copy, copy.stat().st_size).holds_layers:
                raise UnfitError("is an HDF5 file, and holds no weights of Keras")
        yield copy


@contextmanager
def _named(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except UnfitError as error:
        # Names in it are the file's own words.
        reason = "".join(each if each.isprintable() else "?" for each in str(error)[:600])
        raise DlcliError(f"{path} {reason}; {error.advice or advice}") from error


@contextmanager
def _own_copy(path: Path, stem: str | None = None) -> Iterator[Path]:
    """A copy that is deleted afterwards; with a `stem`, its suffix is what the content says."""
    with _opened(path) as source, tempfile.TemporaryDirectory(prefix="dlcli-") as folder:
        magic = find_format(source.read(64), path.suffix)
        source.seek(0)
        copy = Path(folder) / (path.name if stem is None else stem + {ZIP: ".keras", HDF5: ".h5"}[magic])
        try:
            with copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 22)
        except OSError as error:
            raise UnfitError(
                f"cannot be copied to {folder} ({error.strerror})", "set TMPDIR to a folder with room for it"
            ) from error
        yield copy


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A plain file, open; of a pipe or a device nothing is read."""
    try:
        if path.is_dir():
            raise UnfitError(f"is a folder{_what_folder(path)}", "give a .keras or .h5 file")
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnfitError("is a pipe or a device, and no file", "give a .keras or .h5 file")
        # A pipe that takes the file's place now is opened without waiting for its other end, and is empty.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except FileNotFoundError as error:
        raise UnfitError("is not there: no such file", "give the path of a .keras or .h5 file") from error
    except OSError as error:
        raise UnfitError(f"cannot be opened ({error.strerror})", "give a file that may be read") from error
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise UnfitError("is damaged or truncated: it is empty")
        yield file


def _what_folder(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        return " with a TensorFlow SavedModel, which is a program"
    if (path / "recipe.yaml").exists():
        return " with a run: its model is model.keras in it"
    return " (a checkpoint or a preset of KerasHub is no model file)"


def _config_of_h5(weights: Weights) -> dict[str, Any]:
    texts = weights.attributes
    if "model_config" not in texts:
        if weights.holds_layers:
            raise UnfitError("holds weights without the layers that they belong to", _WHOLE_MODEL)
        raise UnfitError("is an HDF5 file, and holds no Keras model", _WHOLE_MODEL)
    if "training_config" in texts:  # never used, and nothing to hide things in either
        # TensorFlow 2.11 to 2.15 wrote its own optimizers as Custom>Adam.
        training = texts["training_config"].replace('"Custom>', '"')
        check_names({"training_config": parse_json(training, "training_config")})
    return parse_json(texts["model_config"], "model_config")


def _compare_versions(name: str, saved_by: Any) -> None:
    try:
        newer = Version(str(saved_by)).release[:2] > Version(keras.__version__).release[:2]
    except InvalidVersion:
        return
    if newer:
        warn(
            f"{name} was saved by Keras {saved_by}, and {keras.__version__} is installed: "
            "a layer may be unknown to it, or work in another way"
        )


def _build(copy: Path, weights: Weights) -> keras.Model:
    try:
        with _LOADING, _bounded(weights):
            model = keras.saving.load_model(copy, compile=False, safe_mode=True)
    except UnfitError:
        raise
    except (
        Exception
    ) as error:  # what does not fit together makes h5py, TensorFlow and Keras raise almost anything
        reason = _first_lines(error).replace(str(copy), copy.name)
        advice = _AS_KERAS if copy.suffix == ".h5" else None
        raise UnfitError(f"cannot be read ({type(error).__name__}: {reason})", advice) from error
    if not model.built:
        raise UnfitError(
            "holds a model without weights: it was saved before it knew the shape of its input",
            "call it on some data, or give it an Input, and save it again",
        )
    return model


@contextmanager
def _bounded(weights: Weights) -> Iterator[None]:
    """Keras makes weights of whatever size the configuration says, before it compares them with those in the file.

    Sizes multiply, so no limit on each of them would do: two dense layers of 100,000 units are 40 GB.
    """
    add_weight = keras.Layer.add_weight
    allowed = left = _MORE_THAN_STORED * weights.numbers + _FEW_NUMBERS
    exceeded: list[UnfitError] = []

    def add_within_bounds(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        shape = args[0] if args else kwargs.get("shape") or ()
        left -= math.prod(shape) if isinstance(shape, (tuple, list)) else shape
        if left < 0:
            exceeded.append(
                UnfitError(
                    f"is refused: layer {layer.name!r} needs weights of shape {tuple(shape)}, and the file stores "
                    f"{weights.numbers:,} numbers in all; with it the layers have more than {allowed:,}"
                )
            )
            raise exceeded[0]
        return add_weight(layer, *args, **kwargs)

    keras.Layer.add_weight = add_within_bounds
    try:
        yield
    except Exception as error:
        if exceeded:  # Keras may have made another error of it
            raise exceeded[0] from error
        raise
    finally:
        keras.Layer.add_weight = add_weight


def _check_weights(model: keras.Model) -> None:
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype) and not np.isfinite(weight.numpy()).all():
            layer, _, name = weight.path.rpartition("/")
            raise UnfitError(
                f"is refused: weights of layer {layer or model.name!r} ({name}) are NaN or infinite",
                "its training went wrong: give a file from before that",
            )


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.endswith(":") and len(lines) > 1:  # Keras says what failed, and why a line below
        text = f"{text} {lines[1]}"
    return text[:300]
