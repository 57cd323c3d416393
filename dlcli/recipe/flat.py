"""Nested sections as dotted keys, so that two of them can be compared key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`, as `--set` names keys; mappings in lists are numbered, other lists whole."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, list) and any(isinstance(item, Mapping) for item in inner):
            inner = {str(index): item for index, item in enumerate(inner)}  # noqa: PLW2901
        if isinstance(inner, Mapping) and inner:
            flat |= flattened(inner, f"{prefix}{name}.")
        else:
            flat[prefix + name] = inner
    return flat
