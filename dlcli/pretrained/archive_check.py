"""What kind of file it is, and whether a .keras archive (zip) is whole, leads nowhere and does not swell.

Keras checks some of this while it reads; here it is checked first, so that the message says what is wrong.
"""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dlcli.pretrained.hdf5_check import Weights, read_hdf5
from dlcli.pretrained.unfit import (
    LARGEST_CONFIG,
    LARGEST_EXPANSION,
    LARGEST_MODEL,
    MOST_OBJECTS,
    SMALL,
    UnfitError,
    damage_named,
)

_LARGEST_METADATA = 1 << 20
_PIECE = 1 << 20

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_PICKLE = "a Python pickle (PyTorch's old form is one), which can run any program when it is read"
_LITERT = "a LiteRT (TFLite) model, which holds no layers that could be trained"
_SAFETENSORS = "a safetensors file, which holds weights only"
_OTHER_FORMATS: tuple[tuple[int, bytes | tuple[bytes, ...], str], ...] = (
    (0, (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
    (4, b"TFL3", _LITERT),
    (0, b"\x08\x01\x12", "a TensorFlow SavedModel graph, which is a program"),
    (8, b'{"', _SAFETENSORS),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: the model itself was not fetched (git lfs pull)"),
    (0, b"<", "a web page or XML: the download brought something else"),
    (0, (b"\x1f\x8b", b"BZh", b"\xfd7zXZ"), "a compressed file; unpack it first"),
)
# What no first bytes tell.
_OTHER_SUFFIXES = {
    ".onnx": "an ONNX model, which holds no layers that could be trained",
    ".pb": "a TensorFlow graph, which is a program",
    ".tflite": _LITERT,
    ".pt": "a PyTorch model",
    ".pth": "a PyTorch model",
    ".pkl": _PICKLE,
    ".joblib": _PICKLE,
    ".safetensors": _SAFETENSORS,
    ".ckpt": "a checkpoint, which holds weights only",
    ".index": "a TensorFlow checkpoint, which holds weights only",
}


@dataclass(frozen=True)
class Archive:
    """What a .keras file holds beside its assets."""

    config: str
    metadata: str
    weights: Weights


def find_format(head: bytes, suffix: str) -> bytes:
    """ZIP or HDF5, by a file's first bytes.

    Raises:
        UnfitError: another format, named where it can be told.
    """
    for magic in (ZIP, HDF5):
        if head.startswith(magic):
            return magic
    accepted = (
        "give a model as Keras 3 saves it: model.save('NAME.keras'), or an .h5 file with the whole model"
    )
    for offset, beginning, name in _OTHER_FORMATS:
        if head[offset:].startswith(beginning):
            raise UnfitError(f"is {name}", accepted)
    if suffix.lower() in _OTHER_SUFFIXES:
        raise UnfitError(f"is {_OTHER_SUFFIXES[suffix.lower()]}", accepted)
    raise UnfitError("is damaged or truncated: it is no Keras archive and no HDF5 file")


def read_archive(path: Path) -> Archive:
    """The parts of a .keras file, every byte of it compared with its checksum.

    Raises:
        UnfitError: it is damaged, is no .keras file, or could lead out of itself or swell.
    """
    with damage_named(), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        for name in (CONFIG, WEIGHTS):
            if name not in names:
                raise _no_keras_archive(name, names)
        members = {member.filename: member for member in _checked_members(archive, path.stat().st_size)}
        contents = {CONFIG: b"", METADATA: b"{}", WEIGHTS: b""}
        for name, largest in ((CONFIG, LARGEST_CONFIG), (METADATA, _LARGEST_METADATA)):
            if name in members and members[name].file_size > largest:
                raise UnfitError(f"is refused: its {name} has {members[name].file_size:,} bytes")
        for name in members:
            if name in contents:
                contents[name] = archive.read(name)  # compares the checksum
            else:
                with archive.open(name) as member:
                    while member.read(_PIECE):
                        pass
        config, metadata = (contents[name].decode("utf-8") for name in (CONFIG, METADATA))
    return Archive(config, metadata, read_hdf5(io.BytesIO(contents[WEIGHTS]), len(contents[WEIGHTS])))


def _checked_members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MOST_OBJECTS:
        raise UnfitError(f"is refused: it holds {len(members):,} members")
    seen = set()
    for member in members:
        _check_member(member)
        if member.filename in seen:
            raise UnfitError(f"is refused: {member.filename!r} is in the archive twice")
        seen.add(member.filename)
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > LARGEST_MODEL:
        raise UnfitError(f"is refused: it unpacks to {unpacked:,} bytes; the most is {LARGEST_MODEL:,}")
    if packed > size:  # members that overlap are counted twice: the other way to make a bomb
        raise UnfitError(f"is refused: its members claim {packed:,} bytes, and the file has {size:,}")
    return members


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    path, mode = PurePosixPath(name), member.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise UnfitError(f"is refused: its member {name!r} leads out of the archive")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnfitError(f"is refused: its member {name!r} is a link or a device")
    if name not in (CONFIG, METADATA, WEIGHTS) and not name.startswith("assets/"):
        raise UnfitError(f"is refused: its member {name!r} is no part of a Keras model")
    if member.flag_bits & 0x1:
        raise UnfitError(f"is refused: its member {name!r} is encrypted", "save it without a password")
    if member.file_size > SMALL and member.file_size > LARGEST_EXPANSION * member.compress_size:
        raise UnfitError(
            f"is refused: its member {name!r} unpacks from {member.compress_size:,} to {member.file_size:,} bytes"
        )


def _no_keras_archive(lacking: str, members: set[str]) -> UnfitError:
    advice = "give a model as Keras 3 saves it: model.save('NAME.keras')"
    if any(name.endswith("data.pkl") for name in members):
        return UnfitError("is a PyTorch model, which is a Python pickle inside a zip archive", advice)
    if members and all(name.endswith(".npy") for name in members):
        return UnfitError("is a NumPy archive of arrays (.npz), which holds weights only", advice)
    if lacking == WEIGHTS and any(name.endswith(".npz") for name in members):
        return UnfitError("holds its weights as .npz, which is not read", advice)
    held = ", ".join(sorted(members)[:5]) or "nothing"
    return UnfitError(f"is a zip archive without {lacking}, thus no Keras model; it holds {held}", advice)
