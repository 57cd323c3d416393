"""What SECURITY.md promises of the source as a whole, of images, of archives and of saved vocabularies."""

import ast
import io
import re
import struct
import tarfile
import tomllib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import ImageFile

import dlcli
from dlcli.data import archives, image_files
from dlcli.data.decode import BadImageError, decode_file, inspect_file
from dlcli.data.image_listing import list_class_folders
from dlcli.errors import DataError, DlcliError
from dlcli.layers.tokens import saved_tokenizer

ROOT = Path(dlcli.__file__).parents[1]
SETTINGS = ("allow_pickle", "safe_mode", "formats", "shell")
SOURCES = sorted((ROOT / "dlcli").rglob("*.py"))


@pytest.fixture(scope="module")
def nodes():
    """(file, node) of the whole package: its calls and its imports."""
    kinds = (ast.Call, ast.Import, ast.ImportFrom)
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


@pytest.fixture(scope="module")
def calls(nodes):
    """(file, the function as text, its named arguments) of every call."""
    return [
        (
            path,
            ast.unparse(node.func),
            {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg in SETTINGS},
        )
        for path, node in nodes
        if isinstance(node, ast.Call)
    ]


# The whole source


@pytest.mark.parametrize(
    ("package", "floor", "hole"),
    [
        ("keras", "3.15.1", "before it, models could read and write files of their choice"),
        ("pillow", "12.3", "before it, decoders wrote out of bounds (CVE-2026-55379 and others)"),
    ],
)
def test_versions_with_known_holes_cannot_be_installed(package, floor, hole):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [asked] = [each for each in map(Requirement, project["dependencies"]) if each.name == package]
    at_least = [Version(each.version) for each in asked.specifier if each.operator in (">=", "==", "~=")]
    assert at_least and max(at_least) >= Version(floor), hole


def test_no_pickle_is_read_anywhere(nodes, calls):
    for path, node in nodes:
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] not in {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}, (
                path
            )
    for path, name, settings in calls:
        if name in ("np.load", "numpy.load"):
            assert settings.get("allow_pickle") == "False", path
        assert settings.get("allow_pickle") in (None, "False"), path
        assert settings.get("safe_mode") in (None, "True"), path


def test_images_are_opened_by_named_decoders_only(calls):
    found = [path for path, name, settings in calls if name == "Image.open" and "formats" not in settings]
    assert not found


def test_no_text_becomes_a_program_and_no_archive_is_unpacked_to_disk(calls):
    forbidden = {
        "eval",
        "exec",
        "compile",
        "os.system",
        "os.popen",
        "yaml.load",
        "yaml.unsafe_load",
        "__import__",
    }
    for path, name, settings in calls:
        assert name not in forbidden or path == "dlcli/recipe/signatures.py", (
            path
        )  # its own source's annotations
        assert not name.endswith((".extractall", ".extract", "unpack_archive")), path
        assert settings.get("shell") in (None, "False"), path


def test_only_one_file_downloads_and_only_by_https(calls):
    openers = {path for path, name, _ in calls if name.endswith(("urlopen", "urlretrieve", "https_opener"))}
    assert openers == {"dlcli/downloads.py"}
    for path in SOURCES:
        assert not re.search(r"""["'(]http://""", path.read_text(encoding="utf-8")), path


# Images: refused by their headers


def png(width, height, pixels=b""):
    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(pixels or b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(width, height):
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8" + frame + b"\xff\xda\0\x08\x01\x01\0\0?\0" + b"\0" * 100 + b"\xff\xd9"


def gif(width, height):
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


def bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + b"\0" * 900


def webp(width, height):
    content = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + b"\0" * 21
    body = b"WEBPVP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(width, height):
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height), (279, 400))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 400


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(30_000, 30_000), "pixels"),
        (jpeg(65_000, 65_000), "pixels"),
        (gif(65_535, 65_535), "pixels"),
        (bmp(100_000, 100_000), "pixels"),
        (webp(16_384, 16_384), "pixels"),
        (tiff(10**6, 10**6), "pixels"),
        (png(10**6, 1), "a side of more"),
        (png(1, 10**6), "a side of more"),
        (bmp(10**6, 1), "a side of more"),
        (tiff(10**6, 1), "a side of more"),
        (jpeg(65_501, 2), "a side of more"),
        (png(0, 10), "damaged"),
        (png(10, 0), "damaged"),
        (jpeg(0, 0), "damaged"),
        (gif(0, 0), "damaged"),
        (bmp(0, 0), "damaged"),
        (tiff(0, 0), "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image"),
        (b"SIMPLE  =                    T" + b" " * 50, "is not an image"),  # FITS
        (b"8BPS\0\x01" + b"\0" * 20, "is not an image"),  # Photoshop
        (b"\0\0\x01\0\x01\0" + b"\0" * 20, "is not an image"),  # an icon
        (b"P6 1 1 255\n\0\0\0", "is not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:4].hex(),
)
def test_images_are_refused_before_anything_is_decoded(content, reason, tmp_path, monkeypatch):
    # The step of every decoder that takes the memory.
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", lambda _: pytest.fail("decoded"))
    (tmp_path / "x.png").write_bytes(content)
    for look in (inspect_file, lambda path: decode_file(path, 3, (8, 8))):
        with pytest.raises(BadImageError, match=reason):
            look(tmp_path / "x.png")


def test_a_file_that_becomes_a_bomb_behind_the_first_look_is_not_given_to_tensorflow(
    class_folders, monkeypatch
):
    listing = list_class_folders(class_folders(size=12))
    pixels = np.zeros((len(listing), 12, 12, 3), np.uint8)
    indices = list(range(len(listing)))
    assert image_files._decode_natively("PNG", listing, indices, (12, 12, 3), pixels) == []
    Path(listing.path(3)).write_bytes(png(8_000, 9_000))
    monkeypatch.setattr(image_files, "_decode_contents", None)
    assert image_files._decode_natively("PNG", listing, indices, (12, 12, 3), pixels) == indices


# Archives of data sets (more in data/test_keras_sets.py, data/test_npz.py)


def tar(path, *members):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path):
    return archives.read_cifar(path, ("data_batch_1",), "test_batch", b"labels")


def test_a_tar_that_swells_is_refused_wherever_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_UNPACKED", 1 << 20)
    zeros = bytes(1 << 21)
    with pytest.raises(DataError, match="unpacks to more than 1,048,576 bytes"):
        read(tar(tmp_path / "content.tar.gz", (tarfile.TarInfo("other"), zeros)))
    long = tarfile.TarInfo("x")
    long.pax_headers = {"comment": "0" * (1 << 21)}
    with pytest.raises(DataError, match="unpacks to more than 1,048,576 bytes"):
        read(tar(tmp_path / "header.tar.gz", (long, b"")))


def test_any_name_that_is_there_twice_is_refused(tmp_path):
    path = tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("readme"), b"1"), (tarfile.TarInfo("readme"), b"2"))
    with pytest.raises(DataError, match="readme is in the archive twice"):
        read(path)


@pytest.mark.parametrize(
    "kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE]
)
def test_links_and_devices_are_refused_whatever_their_name(kind, tmp_path):
    member = tarfile.TarInfo("data_batch_1")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="data_batch_1 is a link or a device"):
        read(tar(tmp_path / "a.tar.gz", (member, b"")))


def test_junk_in_the_place_of_an_archive_is_named(tmp_path):
    content = tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("x"), b"1" * 3000)).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), 4):
            damaged[position] = random.integers(256)
        (tmp_path / "b.tar.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"b\.tar\.gz: "):
            read(tmp_path / "b.tar.gz")


# A vocabulary inside a model file


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "zip archive without"),
        ({"config.json": "{}"}, "without model.weights.h5"),
        ({"config.json": "[", "model.weights.h5": ""}, "."),
        ({"config.json": "{}", "model.weights.h5": "", "../../x": ""}, "leads out of the archive"),
    ],
)
def test_a_vocabulary_is_read_from_a_checked_archive(members, message, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DlcliError, match=message) as caught:
        saved_tokenizer(path)
    assert str(caught.value).startswith(str(path))
