"""Containers that lead elsewhere, or swell when they are read, are refused."""

from __future__ import annotations

import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import dlcli.tasks.language_modeling  # noqa: F401  registers classes that are no layers

Config = dict[str, Any]
INPUT = np.random.default_rng(0).random((3, 4), "float32")


def member(name: str, mode: int = stat.S_IFREG | 0o644, flags: int = 0) -> Callable[[zipfile.ZipFile], None]:
    def add(members: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        members.writestr(info, "/etc/passwd")
        info.flag_bits |= flags

    return add


def bomb(members: zipfile.ZipFile) -> None:
    members.writestr("assets/bomb", bytes(32 << 20), zipfile.ZIP_DEFLATED)


def twice(members: zipfile.ZipFile) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        members.writestr("config.json", "{}")


def overlapping(members: zipfile.ZipFile) -> None:
    members.writestr("assets/a", bytes(100_000))
    for number in range(5):
        info = zipfile.ZipInfo(f"assets/{number}")
        info.compress_size = info.file_size = 100_000
        info.header_offset = info.CRC = 0
        members.filelist.append(info)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (member("assets/../../evil"), "its member 'assets/../../evil' leads out of the archive"),
        (member("/tmp/evil"), "its member '/tmp/evil' leads out of the archive"),
        (member("assets\\..\\evil"), r"its member 'assets\\..\\evil' leads out of the archive"),
        (member("C:/evil"), "its member 'C:/evil' leads out of the archive"),
        (member("assets/link", stat.S_IFLNK | 0o777), "its member 'assets/link' is a link or a device"),
        (member("assets/secret", flags=1), "its member 'assets/secret' is encrypted"),
        (member("__main__.py"), "its member '__main__.py' is no part of a Keras model"),
        (twice, "'config.json' is in the archive twice"),
        (bomb, "its member 'assets/bomb' unpacks from 32,"),
        (overlapping, "its members claim"),
    ],
)
def test_hostile_archives(
    files: Any, add: Callable[[zipfile.ZipFile], None], said: str, archive: Path, tmp_path: Path
) -> None:
    path = files.write_archive(tmp_path / "model.keras", files.parts_of(archive))
    with zipfile.ZipFile(path, "a") as members:
        add(members)
    assert f" is refused: {said}" in files.refusal(path)


def test_parts_that_are_missing(files: Any, archive: Path, tmp_path: Path) -> None:
    parts = files.parts_of(archive)
    for name in ("config.json", "model.weights.h5"):
        path = files.write_archive(tmp_path / "m.keras", {key: parts[key] for key in parts if key != name})
        assert f"is a zip archive without {name}, thus no Keras model; it holds" in files.refusal(path)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (3,))
    file.create_virtual_dataset("evil", layout)


def filtered(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"evil", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), dcpl=properties)


HOSTILE_HDF5: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "external link": (
        lambda file: file.update({"evil": h5py.ExternalLink("/etc/passwd", "/")}),
        "/evil in it is a link to /etc/passwd:/",
    ),
    "soft link": (lambda file: file.update({"evil": h5py.SoftLink("/vars")}), "/evil in it is a link to /vars"),
    "hard link": (lambda file: file.update({"evil": file["/"]}), "evil in it is a second name"),
    "virtual": (virtual, "/evil in it reads from other files"),
    "external": (
        lambda file: file.create_dataset("evil", (3,), "float32", external=[("/etc/passwd", 0, 12)]),
        "/evil in it reads from other files",
    ),
    "shape": (lambda file: file.create_dataset("evil", (10**15,), "float32", chunks=(1024,)), "/evil in it claims 4,0"),
    "unwritten": (lambda file: file.create_dataset("evil", (10**7,), "float32"), "claims 40,000,000 bytes (10000000,), and stores 0"),
    "compressed": (
        lambda file: file.create_dataset("evil", data=np.zeros(10**7, "uint8"), compression="gzip"),
        "/evil in it claims 10,000,000 bytes (10000000,), and stores ",
    ),
    "pieces": (
        lambda file: file.create_dataset("evil", (3,), "float32", chunks=(10**7,), maxshape=(None,)),
        "/evil in it is stored in pieces of 40,000,000 bytes",
    ),
    "many small": (
        lambda file: [file.create_dataset(f"evil{number}", (250_000,), "float32") for number in range(30)],
        "its arrays claim",
    ),
    "objects": (
        lambda file: file.create_dataset("evil", data=["text"], dtype=h5py.string_dtype()),
        "/evil in it holds object, and weights are numbers",
    ),
    "records": (
        lambda file: file.create_dataset("evil", data=np.zeros(2, [("a", "f4"), ("b", "i4")])),
        "and weights are numbers",
    ),
    "filter": (filtered, "/evil in it is compressed by filter 32015, which is not read"),
    "type": (lambda file: file.update({"evil": np.dtype("f4")}), "/evil in it is neither a group nor an array"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_HDF5)
def test_hostile_weights(files: Any, name: str, good: Path, tmp_path: Path) -> None:
    change, said = HOSTILE_HDF5[name]
    message = files.refusal(files.with_weights(good, tmp_path, change))
    assert " is refused: " in message and said in message
