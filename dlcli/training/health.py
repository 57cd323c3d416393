"""Failures of adversarial training, seen and told: a discriminator that has won, a generator that draws one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from dlcli.data.examples import Examples


class Health(keras.callbacks.Callback):
    """Warns once of each failure, in progress and in `warnings.json`... (to be written)."""

    def __init__(self, task: Any, model: keras.Model, real: Examples, folder: Path, seed: int) -> None:
        super().__init__()


def warnings_of(folder: Path) -> list[dict[str, Any]]:
    """The warnings of a run."""
    return []
