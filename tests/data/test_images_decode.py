from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from dlcli.data.decode import MAX_PIXELS, BadImageError, decode_file, inspect_file

RED = (255, 0, 0)


def gradient(mode: str = "RGB", size: tuple[int, int] = (9, 6)) -> Image.Image:
    width, height = size
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 9 % 256], -1).astype(
        np.uint8
    )
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".webp", ".tiff"])
def test_every_format_decodes_to_pillows_pixels(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    gradient().save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_file(path, 3), expected)
    header = inspect_file(path)
    assert (header.height, header.width) == (6, 9)


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    gradient().save(path, format="PNG")
    assert inspect_file(path).format == "PNG"
    np.testing.assert_array_equal(decode_file(path, 3), np.asarray(gradient()))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image = image.convert("LA") if mode != "RGBA" else image
    path = tmp_path / ("x.tiff" if mode == "PA" else "x.png")
    image.save(path)
    pixels = decode_file(path, 3)
    np.testing.assert_array_equal(pixels[0, 1], 255)
    assert pixels[0, 0, 1] < 100


def test_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=1)
    assert decode_file(tmp_path / "x.png", 3)[0].tolist() == [list(RED), [255, 255, 255]]
    assert inspect_file(tmp_path / "x.png").mode == "P+transparency"


def test_cmyk_becomes_rgb(tmp_path):
    gradient("CMYK").save(tmp_path / "x.jpg", quality=95)
    header = inspect_file(tmp_path / "x.jpg")
    assert header.mode == "CMYK"
    assert not header.plain
    assert np.abs(decode_file(tmp_path / "x.jpg", 3).astype(int) - np.asarray(gradient())).mean() < 15


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert decode_file(tmp_path / "x.png", 1).ravel().tolist() == [0, 1, 128, 255]
    assert inspect_file(tmp_path / "x.png").grey


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    assert decode_file(tmp_path / "x.png", 1).ravel().tolist() == [255, 0]


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "x.tiff")
    for look in (inspect_file, lambda path: decode_file(path, 3)):
        with pytest.raises(BadImageError, match="no stated range"):
            look(tmp_path / "x.tiff")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    gradient().save(tmp_path / f"x{suffix}", exif=exif, **({"quality": 100} if suffix == ".jpg" else {}))
    header = inspect_file(tmp_path / f"x{suffix}")
    assert (header.height, header.width, header.rotated) == (9, 6, True)
    expected = np.rot90(np.asarray(gradient()), -1)
    pixels = decode_file(tmp_path / f"x{suffix}", 3)
    assert pixels.shape == (9, 6, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 8  # JPEG of a steep gradient


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert inspect_file(tmp_path / "x.gif").frames
    assert decode_file(tmp_path / "x.gif", 3)[0, 0].tolist() == list(RED)


def test_resizing_is_pillows_antialiased_bilinear(tmp_path):
    gradient(size=(40, 30)).save(tmp_path / "x.png")
    expected = gradient(size=(40, 30)).resize((8, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_file(tmp_path / "x.png", 3, (5, 8)), np.asarray(expected))


def test_grey_and_colour_on_demand(tmp_path):
    gradient().save(tmp_path / "colour.png")
    gradient("L").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode_file(tmp_path / "colour.png", 1)[..., 0], np.asarray(gradient("L")))
    grey = decode_file(tmp_path / "grey.png", 3)
    assert grey.shape == (6, 9, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".webp", ".tiff"])
def test_truncated_files_are_found_by_the_header_check(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    gradient(size=(64, 48)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BadImageError):
        inspect_file(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"no image, just text", "is not an image"), (b"\x89PNG\r\n\x1a\nbroken", "PNG")],
)
def test_what_is_no_image_says_so(tmp_path, content, reason):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BadImageError, match=reason):
        inspect_file(tmp_path / "x.png")


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (MAX_PIXELS + 1, 1), (10_000, 9_500)])
def test_decompression_bombs_are_refused_by_their_header(tmp_path, width, height):
    (tmp_path / "x.png").write_bytes(png_that_claims(width, height))
    for look in (inspect_file, lambda path: decode_file(path, 3)):
        with pytest.raises(BadImageError, match="pixels"):
            look(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of what it mends
def test_random_damage_never_escapes_as_another_error(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "x"
    for suffix in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        gradient().save(path, format=suffix)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = content.copy()
            damaged[random.integers(0, len(damaged), 6)] = random.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            for look in (inspect_file, lambda file: decode_file(file, 3, (8, 8))):
                try:
                    look(path)
                except BadImageError as error:
                    assert str(error)


def test_pillow_does_not_warn_beside_our_refusal(tmp_path):
    """In a process of its own, because pytest makes every warning an error."""
    path = tmp_path / "large.png"
    Image.new("1", (12_000, 12_000)).save(path)
    code = f"from dlcli.data.decode import decode_file; decode_file({str(path)!r}, 3)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "claims 12000 x 12000 pixels" in ended.stderr
    assert "DecompressionBombWarning" not in ended.stderr


def test_pillow_does_not_warn_of_what_stands_around_the_pixels(tmp_path):
    path = tmp_path / "broken_exif.jpg"
    gradient().save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    code = f"from dlcli.data.decode import decode_file; decode_file({str(path)!r}, 3)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
