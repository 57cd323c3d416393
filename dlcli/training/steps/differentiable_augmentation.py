"""Differentiable augmentation (to be written)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

DRAWS = 8
"""Uniform numbers that one image takes."""


def build_differentiable(policy: Sequence[str]) -> Callable[[Any, Any], Any]:
    """(images (B, H, W, C), uniform draws (B, DRAWS)) -> images."""
    raise NotImplementedError
