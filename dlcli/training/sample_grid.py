"""A picture of samples after each epoch, always from the same draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from dlcli.data.examples import Examples


class SampleGrid(keras.callbacks.Callback):
    """Writes `epoch_0001.png`, ... (to be written)."""

    def __init__(self, task: Any, model: keras.Model, real: Examples, folder: Path, seed: int) -> None:
        super().__init__()
