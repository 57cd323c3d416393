"""Damaged images of all six formats: each becomes pixels of the promised shape, or is refused in words."""

from __future__ import annotations

import functools
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from fuzzing import EVERY_TIME, flip_bit
from hypothesis import Phase, example, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from dlcli.data.decode import BadImageError, decode_file, inspect_file
from dlcli.data.load import load_splits
from dlcli.errors import DataError
from dlcli.recipe.load import load_recipe

# Pillow warns of damage that it could read over; dlcli turns that off where it imports Pillow.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

WAYS: list[tuple[str, str, dict[str, Any]]] = [
    *[("PNG", mode, {}) for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")],
    ("PNG", "P", {"transparency": 3}), ("PNG", "RGB", {"save_all": True}),
    *[("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")],
    ("JPEG", "RGB", {"progressive": True}), ("JPEG", "RGB", {"restart_marker_blocks": 1}), ("JPEG", "RGB", {"exif": 6}),
    *[("BMP", mode, {}) for mode in ("RGB", "L", "P", "1", "RGBA")],
    ("GIF", "P", {}), ("GIF", "L", {"save_all": True}), ("GIF", "P", {"interlace": 0, "transparency": 1}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True}), ("WEBP", "RGB", {"exif": 3}),
    *[("TIFF", mode, {}) for mode in ("RGB", "L", "RGBA", "I;16", "CMYK", "F", "I", "P", "1", "LAB", "YCbCr")],
    *[("TIFF", "RGB", {"compression": way}) for way in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate")],
    ("TIFF", "1", {"compression": "group4"}), ("TIFF", "RGB", {"big_tiff": True}), ("TIFF", "RGB", {"save_all": True}),
]  # fmt: skip


@functools.cache
def sound_image(way: int) -> bytes:
    """A small image, written in one of WAYS."""
    format_name, mode, options = WAYS[way]
    y, x = np.mgrid[:24, :30]
    picture = Image.fromarray(np.stack([x * 8, y * 10, (x + y) * 4], -1).astype(np.uint8))
    if mode == "I;16":
        picture = Image.fromarray((x * 2000).astype(np.uint16))
    elif mode == "LAB":
        picture = Image.merge("LAB", picture.split())
    else:
        picture = picture.convert(mode)
    options = dict(options)
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options["exif"] = exif
    if options.get("save_all"):
        options["append_images"] = [picture.rotate(90), picture.rotate(180)]
    content = io.BytesIO()
    picture.save(content, format_name, **options)
    return content.getvalue()


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    """A sound image after some edits."""
    content = bytearray(sound_image(draw(st.integers(0, len(WAYS) - 1))))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 4]))):
        # Most of what decides stands in the first bytes (of TIFF in the last).
        last = draw(st.sampled_from([32, 128, len(content)]))
        start = draw(st.integers(0, min(last, len(content))))
        start = len(content) - start if draw(st.booleans()) and last < 200 else start
        end = min(len(content), start + draw(st.sampled_from([1, 2, 4, 16, 200])))
        edit = draw(
            st.sampled_from(
                ["flip", "number", "number", "delete", "repeat", "truncate", "splice", "zero", "noise"]
            )
        )
        if edit == "flip":
            flip_bit(draw, content, start)
        elif edit == "number":
            number = draw(
                st.sampled_from([0, 1, 2, 7, 255, 1000, 30_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1])
            )
            form = draw(st.sampled_from(["<I", ">I", "<H", ">H", "<B"]))
            raw = struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
            content[start : start + len(raw)] = raw
        elif edit == "delete":
            del content[start:end]
        elif edit == "repeat":
            content[start:start] = content[start:end] * draw(st.sampled_from([1, 3, 300]))
        elif edit == "truncate":
            del content[start:]
        elif edit == "splice":
            other = sound_image(draw(st.integers(0, len(WAYS) - 1)))
            content[start:end] = other[draw(st.integers(0, len(other))) :]
        elif edit == "zero":
            content[start:end] = bytes(end - start)
        elif edit == "noise":
            content[start:end] = draw(st.binary(max_size=64))
    return _with_checksums(bytes(content)) if draw(st.booleans()) else bytes(content)


def one_damage_each() -> list[bytes]:
    """Every kind of image cut in half, with noise in its middle, and with a smaller number in its head."""
    found = []
    for way in range(len(WAYS)):
        content = sound_image(way)
        middle = len(content) // 2
        noisy = (
            content[:middle]
            + bytes(255 - byte for byte in content[middle : middle + 9])
            + content[middle + 9 :]
        )
        shorter = content[:36] + bytes([content[36] // 2]) + content[37:]  # of a PNG: than its first chunk is
        found += [content[:middle], _with_checksums(noisy), shorter]
    return found


def _with_checksums(content: bytes) -> bytes:
    """A PNG's chunks with checksums that fit, so that damage reaches the decoder."""
    if not content.startswith(b"\x89PNG"):
        return content
    fixed, position = bytearray(content), 8
    while position + 12 <= len(fixed):
        end = position + 8 + int.from_bytes(fixed[position : position + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(fixed)


def check_file(path: Path) -> bool:
    """Whether a file is an image; it is refused in words, or decodes to what its header said."""
    try:
        header = inspect_file(path)
        pixels = decode_file(path, 3)
        assert pixels.shape == (header.height, header.width, 3)
        assert decode_file(path, 1, (5, 6)).shape == (5, 6, 1)
    except BadImageError as error:
        assert str(error).strip()
        return False
    assert pixels.dtype == np.uint8
    return True


def check_images(run_dlcli: Any, limited: Any, root: Path, damaged: list[bytes]) -> None:
    """Decodes files one by one, then checks and loads them as a data set, between more images that are sound."""
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    paths = [root / "ab"[number % 2] / f"{number:03d}.png" for number in range(2 * len(damaged) + 2)]
    for number, path in enumerate(paths):
        path.write_bytes(damaged[number] if number < len(damaged) else sound_image(number % 7))
    with limited(seconds=20, memory=3 * 2**30):
        bad = {str(path) for path in paths if not check_file(path)}
    recipe = root / "recipe.yaml"
    recipe.write_text(
        "task: image_classification\narchitecture: mlp\n"
        f"dataset: {{name: image_folder, path: {root}, image_size: [24, 30], on_bad_file: skip, validation_split: 0}}\n"
    )
    outcome = run_dlcli("data", "check", recipe, "--json", seconds=20)
    outcome.check(0)
    assert set(json.loads(outcome.out)["unreadable"]) == bad
    with limited(seconds=20, memory=None):
        source = load_splits(load_recipe(recipe))
        with mock.patch(
            "dlcli.data.listed_images.memory_budget", return_value=0
        ):  # decoded when they are read
            streamed = load_splits(load_recipe(recipe, ["dataset.image_size=[24, 31]"]))
        streamed.train.read(tf.range(len(streamed.train)))
    expected = [decode_file(path, 3, (24, 30)) for path in sorted(paths) if str(path) not in bad]
    np.testing.assert_array_equal(source.train.inputs, expected)  # also where TensorFlow decoded
    if bad:
        with pytest.raises(DataError, match="cannot be used"):
            load_splits(load_recipe(recipe, ["dataset.on_bad_file=error"]))


some_images = st.lists(damaged_images(), min_size=40, max_size=40)


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("pictures")


@seed(7)
@settings(max_examples=4, phases=[Phase.explicit, Phase.generate, Phase.shrink], **EVERY_TIME)
@given(contents=some_images)
@example(contents=one_damage_each())
def test_damaged_images(run_dlcli, limited, new_folder, contents):
    check_images(run_dlcli, limited, new_folder(), contents)


@pytest.mark.slow
@seed(8)
@settings(max_examples=50, phases=[Phase.explicit, Phase.generate, Phase.shrink], **EVERY_TIME)
@given(contents=some_images)
def test_two_thousand_damaged_images(run_dlcli, limited, new_folder, contents):
    check_images(run_dlcli, limited, new_folder(), contents)
