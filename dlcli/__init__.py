"""dlcli trains Keras models from YAML recipes. Importing it stays free of Keras and TensorFlow."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def __getattr__(name: str) -> Any:
    if name == "load_run":
        from dlcli.runs import load_run

        return load_run
    raise AttributeError(f"module 'dlcli' has no attribute {name!r}")
