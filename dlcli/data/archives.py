"""The original files of MNIST, Fashion-MNIST and CIFAR: idx, npz, pickled batches; none is trusted."""

from __future__ import annotations

import gzip
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dlcli.data import npz
from dlcli.data.npz import MAX_MEMBER, MAX_MEMBERS
from dlcli.data.pickled_arrays import read_pickle
from dlcli.errors import DataError

_MAX_UNPACKED = 256 << 20  # bytes of a whole archive; CIFAR's have 186 MB
_IDX_UINT8 = 0x08


@dataclass(frozen=True)
class ImageArrays:
    """Images uint8 (N, H, W, C) and targets int32 (N,) of the train and test splits."""

    train_images: np.ndarray
    train_targets: np.ndarray
    test_images: np.ndarray
    test_targets: np.ndarray


def read_idx_folder(folder: Path) -> ImageArrays:
    """`train-images-idx3-ubyte` and its three companions, plain or as `.gz`.

    Raises:
        DataError: one is missing, truncated or does not fit the others.
    """
    images, targets = {}, {}
    for split in ("train", "t10k"):
        image_path = _existing(folder, f"{split}-images", "idx3-ubyte")
        label_path = _existing(folder, f"{split}-labels", "idx1-ubyte")
        images[split] = _read_idx(image_path, 3)[..., None]
        targets[split] = _read_idx(label_path, 1).astype(np.int32)
        if len(images[split]) != len(targets[split]):
            raise DataError(
                f"{image_path} has {len(images[split])} images, "
                f"{label_path.name} {len(targets[split])} labels"
            )
    return ImageArrays(images["train"], targets["train"], images["t10k"], targets["t10k"])


def has_idx_files(folder: Path) -> bool:
    """Whether `folder` holds idx files of MNIST's names."""
    return any(folder.glob("train-images*idx3-ubyte*")) or any(folder.glob("t10k-images*idx3-ubyte*"))


def read_npz(path: Path) -> ImageArrays:
    """`mnist.npz`: the arrays x_train, y_train, x_test, y_test.

    Raises:
        DataError: it is damaged, holds pickled objects, or lacks one of them.
    """
    parts = npz.read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
    for split in ("train", "test"):
        images, targets = parts[f"x_{split}"], parts[f"y_{split}"].reshape(-1)
        if (
            images.dtype != np.uint8
            or images.ndim not in {3, 4}
            or len(images) != len(targets)
            or targets.dtype.kind not in "iu"
        ):
            raise DataError(
                f"{path}: expected uint8 images and as many whole numbers; "
                f"x_{split} is {images.dtype} {images.shape}, y_{split} {targets.dtype} ({len(targets)},)"
            )
        parts[f"x_{split}"] = images if images.ndim == 4 else images[..., None]
        parts[f"y_{split}"] = targets.astype(np.int32)
    return ImageArrays(parts["x_train"], parts["y_train"], parts["x_test"], parts["y_test"])


def read_cifar(path: Path, train_names: tuple[str, ...], test_name: str, label_key: bytes) -> ImageArrays:
    """CIFAR's python version: the `.tar.gz` as downloaded, or the folder it unpacks to.

    Nothing is unpacked to disk, and the pickles are read as data (`pickled_arrays`).

    Args:
        path: archive or folder.
        train_names: file names of the train batches, in order.
        test_name: file name of the test batch.
        label_key: which labels (`b"labels"`, `b"fine_labels"`).

    Raises:
        DataError: a file is missing, damaged or holds anything but arrays.
    """
    names = (*train_names, test_name)
    contents = _folder_contents(path, names) if path.is_dir() else _tar_contents(path, names)
    batches = {name: _read_batch(f"{path}: {name}", contents[name], label_key) for name in names}
    train = [batches[name] for name in train_names]
    return ImageArrays(
        np.concatenate([images for images, _ in train]),
        np.concatenate([targets for _, targets in train]),
        *batches[test_name],
    )


def _existing(folder: Path, start: str, end: str) -> Path:
    candidates = [folder / f"{start}{joint}{end}{suffix}" for joint in "-." for suffix in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder}: {start}-{end} (or {start}-{end}.gz) is missing")


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    compressed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            magic = file.read(4)
            if magic != bytes((0, 0, _IDX_UINT8, dimensions)):
                raise DataError(f"{path}: not an idx{dimensions} file of bytes; it starts with {magic!r}")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            if size > MAX_MEMBER:
                raise DataError(f"{path}: claims {size:,} bytes; more than {MAX_MEMBER:,} are refused")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if len(data) != size:
        raise DataError(
            f"{path}: holds {'more' if len(data) > size else 'less'} than the {size:,} bytes it claims"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _folder_contents(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path} is missing, or no plain file; expected {', '.join(names)} in {folder}")
        if path.stat().st_size > MAX_MEMBER:
            raise DataError(f"{path}: more than {MAX_MEMBER:,} bytes; refused")
        contents[name] = path.read_bytes()
    return contents


def _tar_contents(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    seen: set[str] = set()
    with (
        _damaged_means_data_error(path),
        gzip.open(path) as unpacked,
        # As a stream: each byte is unpacked once, and counted.
        tarfile.open(fileobj=_Counted(path, unpacked), mode="r|") as archive,
    ):
        for count, member in enumerate(archive):
            _check_member(path, member, count)
            name = PurePosixPath(member.name).name
            if member.name in seen or name in contents:
                raise DataError(f"{path}: {name} is in the archive twice; refused")
            seen.add(member.name)
            file = archive.extractfile(member) if name in names else None
            if file is not None:
                contents[name] = file.read()
    if missing := [name for name in names if name not in contents]:
        raise DataError(f"{path}: no {', '.join(missing)} in it; is it the python version of the data set?")
    return contents


class _Counted(io.RawIOBase):
    """What comes out of a compressed stream, up to a limit: some kilobytes can unpack to as many gigabytes."""

    def __init__(self, path: Path, stream: gzip.GzipFile) -> None:
        super().__init__()
        self.path, self.stream, self.left = path, stream, _MAX_UNPACKED

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            DataError: they are more than any real archive holds.
        """
        if size > self.left or size < 0:
            raise DataError(f"{self.path}: unpacks to more than {_MAX_UNPACKED:,} bytes; refused")
        part = self.stream.read(size)
        self.left -= len(part)
        return part


@contextmanager
def _damaged_means_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, LookupError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: a damaged archive: {error}") from None


def _check_member(path: Path, member: tarfile.TarInfo, count: int) -> None:
    parts = PurePosixPath(member.name)
    if count >= MAX_MEMBERS:
        raise DataError(f"{path}: more than {MAX_MEMBERS} entries; refused")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise DataError(f"{path}: {member.name} is a link or a device; refused")
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{path}: {member.name} leads out of the archive; refused")
    if member.size > MAX_MEMBER:
        raise DataError(f"{path}: {member.name} unpacks to {member.size:,} bytes; refused")


def _read_batch(place: str, content: bytes, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = read_pickle(content)
    except ValueError as error:
        raise DataError(f"{place}: refused: {error}") from None
    if not isinstance(batch, dict) or b"data" not in batch or label_key not in batch:
        raise DataError(f"{place}: no data and {label_key.decode()} in it")
    data, labels = batch[b"data"], _labels(place, batch[label_key], label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), 3 * 32 * 32):
        raise DataError(f"{place}: expected a uint8 array ({len(labels)}, 3072) of pixels")
    # Stored as planes of red, green and blue: (N, 3, 32, 32) -> (N, 32, 32, 3)
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _labels(place: str, labels: object, label_key: bytes) -> np.ndarray:
    """Int32 (N,); looked at before NumPy is, which makes as many axes of nested lists as there are."""
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        labels = labels.tolist()
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise DataError(f"{place}: {label_key.decode()} are not all whole numbers")
    try:
        return np.asarray(labels, dtype=np.int32)
    except OverflowError:
        raise DataError(f"{place}: {label_key.decode()} are not all whole numbers of 32 bits") from None
