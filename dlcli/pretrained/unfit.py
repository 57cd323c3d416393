"""What makes a file no model that is read, and the limits that all parts of such a file keep to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

LARGEST_MODEL = 32 << 30
"""Bytes that a file may unpack to."""
LARGEST_CONFIG = 64 << 20
"""Bytes of a configuration; a vocabulary may be in it."""
LARGEST_EXPANSION = 100
"""Times that anything may grow when it is unpacked; Keras compresses nothing."""
SMALL = 16 << 20
"""Bytes; what unpacks to less is no bomb, however small it was."""
MOST_OBJECTS = 100_000
"""Members, groups and arrays; the largest models have some thousands."""


class UnfitError(Exception):
    """A file that is not read; the text goes on behind the file's name: `is damaged or truncated: ...`."""

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.advice = advice
        """What to do; None where getting the file again may help."""


@contextmanager
def damage_named() -> Iterator[None]:
    """Whatever goes wrong inside means a damaged file.

    Raises:
        UnfitError: says what went wrong.
    """
    try:
        yield
    except UnfitError:
        raise
    except MemoryError as error:
        raise UnfitError("is larger than this machine's memory", "load it on a machine with more") from error
    except Exception as error:  # damage makes zipfile, zlib and h5py raise almost anything
        text = str(error).partition("\n")[0][:200].rstrip(".")
        if "CRC" in text:
            raise UnfitError(f"cannot be read: it was damaged after it was written ({text})") from error
        raise UnfitError(f"is damaged or truncated ({type(error).__name__}: {text})") from error
