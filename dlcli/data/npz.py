"""Arrays of an .npz file from anywhere, which is trusted in nothing; `pickle` is not used."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlcli.data.pickled_arrays import read_pickle
from dlcli.errors import DataError

MAX_MEMBER = 256 << 20
"""Bytes that anything in an archive may unpack to; the largest real one, CIFAR-100's train, has 155 MB."""
MAX_MEMBERS = 1_000
"""Entries of an archive."""
_NUMBERS = "biuf"  # kinds of NumPy's; texts and records could be of 0 bytes each, and as many as one likes


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names.

    Args:
        path: of the file.
        names: of the arrays, all of which have to be there.

    Returns:
        Arrays of numbers, or of lists (dtype object) where the file holds a pickle of them.

    Raises:
        DataError: it is damaged, lacks one of them, holds anything else, or claims more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist())
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            arrays = {}
            for name in names:
                if name not in held:
                    raise DataError(f"{path}: no array {name}; it holds {', '.join(held) or 'none'}")
                arrays[name] = _read(archive.read(f"{name}.npy"))
            return arrays
    except (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path}: not a readable .npz file of plain arrays: {error}") from None


def _check(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path}: more than {MAX_MEMBERS} entries; refused")
    if len({member.filename for member in members}) < len(members):
        raise DataError(f"{path}: an entry is in the archive twice; refused")
    for member in members:
        if member.file_size > MAX_MEMBER:
            raise DataError(f"{path}: {member.filename} unpacks to {member.file_size:,} bytes; refused")


def _read(raw: bytes) -> np.ndarray:
    """One array; its header is compared with its bytes before memory is taken for it."""
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    try:
        shape, _, dtype = read_header(stream)
    except (tokenize.TokenError, TypeError, MemoryError) as error:  # of the parsers that NumPy uses
        raise ValueError(f"an array's header is damaged ({type(error).__name__})") from None
    if dtype.kind == "O":
        array = read_pickle(raw[stream.tell() :])
        if not isinstance(array, np.ndarray) or array.ndim != 1:
            raise ValueError("expected one row of documents")
        return array
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"an array of {dtype}, and only numbers and lists are read")
    if not all(0 <= size <= MAX_MEMBER for size in shape) or math.prod(shape) * dtype.itemsize > len(raw):
        raise ValueError(f"an array claims the shape {shape}, and has {len(raw):,} bytes")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
