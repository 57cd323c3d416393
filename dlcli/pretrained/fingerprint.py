"""What tells two models apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras

_NOT_OF_FEATURES = {"name", "trainable", "build_config", "shared_object_id"}
"""Parts of a configuration that features do not depend on."""


def fingerprint(model: keras.Model, *also: str) -> str:
    """sha256 over a model's configuration and weights, equal in every process.

    Names are left out: Keras numbers layers and operations anew in each process.

    Args:
        model: Functional or Sequential.
        also: more that decides on the features.
    """
    digest = hashlib.sha256()
    config = model.get_config()
    numbers: dict[str, str] = {}
    _number(config, numbers)
    digest.update(json.dumps([_anonymous(config, numbers), *also], sort_keys=True, default=str).encode())
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight.value)
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _number(part: Any, numbers: dict[str, str]) -> None:
    """Gives each layer name a number, in the order of the configuration."""
    if isinstance(part, dict):
        if isinstance(part.get("name"), str):
            numbers.setdefault(part["name"], f"#{len(numbers)}")
        for value in part.values():
            _number(value, numbers)
    elif isinstance(part, list | tuple):
        for value in part:
            _number(value, numbers)


def _anonymous(part: Any, numbers: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {
            name: _anonymous(value, numbers) for name, value in part.items() if name not in _NOT_OF_FEATURES
        }
    if isinstance(part, list | tuple):
        return [_anonymous(value, numbers) for value in part]
    return numbers.get(part, part) if isinstance(part, str) else part
