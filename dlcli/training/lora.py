"""Models with low-rank adapters on the disk: merged, so that whoever loads them sees the plain architecture.

Keras writes kernels with their adapters added, but also the adapters' rank: a loaded model would carry idle ones.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

_ADAPTERS = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b")
_SETTINGS = ("lora_rank", "lora_alpha")


def save_merged(model: keras.Model, path: Path) -> None:
    """Writes a .keras file, adapters merged into their kernels."""
    model.save(path)
    if not any(_is_adapter(weight) for weight in model.weights):
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(_without_adapters(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def best_weights(predictor: keras.Model, saved: keras.Model) -> list[np.ndarray]:
    """The weights of a saved model in the order of `predictor`, whose adapters then add nothing."""
    merged = iter(saved.get_weights())
    return [
        np.zeros(weight.shape, "float32") if _is_adapter(weight) else next(merged)
        for weight in predictor.weights
    ]


def _is_adapter(weight: keras.Variable) -> bool:
    return weight.name in _ADAPTERS


def _without_adapters(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _without_adapters(value) for name, value in config.items() if name not in _SETTINGS}
    return [_without_adapters(value) for value in config] if isinstance(config, list) else config
