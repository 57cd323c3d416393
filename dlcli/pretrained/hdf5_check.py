"""Whether an HDF5 file, alone or inside a .keras archive, is whole, leads to no other file and does not swell.

Keras 3.15 refuses links and virtual arrays too, one by one as it comes to them.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import h5py

from dlcli.pretrained.unfit import (
    LARGEST_CONFIG,
    LARGEST_EXPANSION,
    LARGEST_MODEL,
    MOST_OBJECTS,
    SMALL,
    UnfitError,
    damage_named,
)

# gzip, shuffle, fletcher32, scaleoffset, lzf: part of h5py; any other would load a plugin.
_FILTERS = {1, 2, 3, 6, 32000}
_UNWRITTEN = 1 << 20  # bytes; smaller arrays may be left to their fill value
_SLOWEST = 60  # seconds, and one more for each 10 MB


@dataclass(frozen=True)
class Weights:
    """What the arrays of a file amount to."""

    arrays: int
    numbers: int
    attributes: dict[str, str]
    """Texts at the root of an old .h5 model: model_config, training_config, keras_version."""
    holds_layers: bool
    """Whether there is anything that Keras writes as weights."""


def read_hdf5(file: Path | BinaryIO, size: int) -> Weights:
    """What an HDF5 file holds, from its index alone: no array is read.

    Args:
        file: path, or the bytes in memory.
        size: of the file, in bytes.

    Raises:
        UnfitError: it is damaged, leads to other files, or claims far more than it stores.
    """
    with damage_named(), h5py.File(file, "r") as root:
        attributes = {
            name: text
            for name in ("model_config", "training_config", "keras_version")
            if (text := _text_attribute(root, name)) is not None
        }
        arrays = numbers = claimed = 0
        for name, dataset in _datasets(root):
            declared = _checked_size(name, dataset)
            arrays, numbers = arrays + 1, numbers + declared // dataset.dtype.itemsize
            claimed += declared
            if claimed > min(LARGEST_MODEL, max(SMALL, LARGEST_EXPANSION * size)):
                raise UnfitError(f"is refused: its arrays claim {claimed:,} bytes, and the file has {size:,}")
        layers = any(
            name in root for name in ("layers", "vars", "_layer_checkpoint_dependencies", "model_weights")
        )
        holds_layers = layers or "layer_names" in root.attrs
    return Weights(arrays, numbers, attributes, holds_layers)


def _datasets(root: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """All arrays, each reached once and by plain links only."""
    groups, seen = [("", root)], set()
    while groups:
        place, group = groups.pop()
        links = group.id.links
        for name in group:
            if not isinstance(name, str):
                raise UnfitError(f"is damaged: it holds the name {name!r}")
            path, key = f"{place}/{name}", name.encode()
            link = links.get_info(key)
            if link.type in (h5py.h5l.TYPE_SOFT, h5py.h5l.TYPE_EXTERNAL):
                target = _target(links.get_val(key))
                raise UnfitError(f"is refused: {path} in it is a link to {target}", "save the model again")
            if link.u in seen:
                raise UnfitError(
                    f"is refused: {path} in it is a second name of another entry", "save the model again"
                )
            seen.add(link.u)
            if len(seen) > MOST_OBJECTS:
                raise UnfitError(f"is refused: it holds more than {MOST_OBJECTS:,} groups and arrays")
            entry = group[name]
            if isinstance(entry, h5py.Group):
                groups.append((path, entry))
            elif isinstance(entry, h5py.Dataset):
                yield path, entry
            else:
                raise UnfitError(f"is refused: {path} in it is neither a group nor an array")


def _target(value: bytes | tuple[bytes, bytes]) -> str:
    """Where a soft link or an external one leads."""
    parts = value if isinstance(value, tuple) else (value,)
    return ":".join(part.decode("utf-8", "replace") for part in parts)


def _checked_size(name: str, dataset: h5py.Dataset) -> int:
    """Bytes of an array, which holds plain numbers in this very file."""
    layout = dataset.id.get_create_plist()
    if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
        raise UnfitError(f"is refused: {name} in it reads from other files", "save the model again")
    filters = {layout.get_filter(index)[0] for index in range(layout.get_nfilters())}
    if unknown := filters - _FILTERS:
        raise UnfitError(
            f"is refused: {name} in it is compressed by filter {min(unknown)}, which is not read",
            "save the model again",
        )
    if not _is_numeric(dataset) or dataset.shape is None:
        raise UnfitError(f"is refused: {name} in it holds {dataset.dtype}, and weights are numbers")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if declared > _UNWRITTEN and declared > LARGEST_EXPANSION * stored:
        raise UnfitError(
            f"is refused: {name} in it claims {declared:,} bytes {dataset.shape}, and stores {stored:,}"
        )
    if dataset.chunks is not None:
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk > max(SMALL, declared):
            raise UnfitError(f"is refused: {name} in it is stored in pieces of {chunk:,} bytes")
    return declared


def _is_numeric(dataset: h5py.Dataset) -> bool:
    dtype = dataset.dtype
    if dtype.kind in "fiub":
        return True
    # NumPy has no bfloat16: Keras stores its bytes, and notes the type.
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None and dtype.subdtype is None


def _text_attribute(root: h5py.File, name: str) -> str | None:
    if name not in root.attrs:
        return None
    attribute = root.attrs.get_id(name)
    if attribute.shape != () or attribute.dtype.kind not in "OS" or attribute.dtype.itemsize > LARGEST_CONFIG:
        raise UnfitError(f"is refused: its attribute {name} is no text")
    value = root.attrs[name]
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > LARGEST_CONFIG:
        raise UnfitError(f"is refused: its attribute {name} is no text of a usual size")
    return text


def try_hdf5(path: Path) -> None:
    """Reads a file from end to end in a process of its own: on some damaged ones the HDF5 library crashes.

    Inside a .keras archive checksums find such damage.

    Raises:
        UnfitError: the process died, or came to no end.
    """
    # -P: nothing is imported from the folder where the user happens to be.
    code = f"import sys; from {__name__} import read_all; read_all(sys.argv[1])"
    try:
        reader = subprocess.run(
            [sys.executable, "-P", "-c", code, str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SLOWEST + path.stat().st_size / 10e6,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnfitError("is damaged: the HDF5 library comes to no end with it") from error
    if reader.returncode < 0:  # an ordinary error comes again, and is named, in this process
        raise UnfitError("is damaged: the HDF5 library crashes on it")


def read_all(path: str) -> None:
    """Every attribute and array of a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read_hdf5(Path(path), Path(path).stat().st_size)
    with h5py.File(path, "r") as root:
        dict(root.attrs)
        root.visititems(lambda _, entry: dict(entry.attrs) and None)
        for _, dataset in _datasets(root):
            dataset[()]
