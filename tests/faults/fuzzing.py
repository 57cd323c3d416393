"""What the fuzzers of recipes, images, tables, texts and models share: edits of bytes, trees and archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck
from hypothesis import strategies as st

EVERY_TIME = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
"""Settings of hypothesis: the same examples each time, however slow the machine."""


def flip_bit(draw: st.DrawFn, content: bytearray, start: int) -> None:
    """Another bit of the byte at `start`, where there is one."""
    if start < len(content):
        content[start] ^= 1 << draw(st.integers(0, 7))


def places_of(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree: the mapping or list, and the key."""
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from places_of(value)


def parts_of(whole: bytes) -> dict[str, bytes]:
    """Name -> content of each member of a ZIP archive."""
    with zipfile.ZipFile(io.BytesIO(whole)) as members:
        return {name: members.read(name) for name in members.namelist()}


def archive(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A ZIP archive of these members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as members:
        for name, part in parts.items():
            members.writestr(name, part)
    return content.getvalue()
