"""One image file -> uint8 pixels, by stated rules.

| what the file holds               | what becomes of it                                             |
|-----------------------------------|----------------------------------------------------------------|
| wrong or no suffix                | the content decides: JPEG, PNG, BMP, GIF, WebP, TIFF; counted  |
| EXIF orientation                  | applied, so the picture stands upright                         |
| several frames (GIF, WebP, TIFF)  | the first frame                                                |
| alpha (RGBA, grey+alpha, palette) | laid over white                                                |
| palette, CMYK, YCbCr, Lab         | RGB                                                            |
| 1 bit                             | grey, 0 and 255                                                |
| 16 bit a channel                  | scaled, 65535 -> 255 (never clipped)                           |
| 32-bit whole numbers              | as 16 bit when they lie within 0..65535, else refused          |
| floating point                    | refused: no stated range                                       |
| grey in a colour data set         | the one channel three times                                    |
| colour in a grey data set         | luma, 0.299 R + 0.587 G + 0.114 B                              |
| another size                      | bilinear with antialiasing, aspect ratio not kept              |
| more than 64 million pixels, or   | refused by its header, before anything is decoded              |
| 65,500 on a side                  |                                                                |
| empty, truncated, not an image    | refused                                                        |

Only Pillow and NumPy are imported here, so a file can be looked at without TensorFlow.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".apng": "PNG",
    ".bmp": "BMP", ".dib": "BMP", ".gif": "GIF", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_500  # pixels; the most that JPEG decoders take. A longer strip is no picture
_HEAD = 65_536  # a file up to this size is read whole by `inspect_file`
_EXIF_ORIENTATION = 0x0112
# A damaged file can make Pillow's readers raise any of these; all mean "this file cannot be read".
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, MemoryError, struct.error,
)  # fmt: skip
_BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}
_PNG_PLAIN = {(8, 0): "L", (8, 2): "RGB"}  # (bits, colour type)

# Pillow warns of pictures that `_open` refuses by a smaller limit; its words would stand beside ours.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# And of damage to what surrounds the pixels (EXIF, tags), without the file's name.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImageError(ValueError):
    """A file that cannot become pixels; the message is the reason, without the file's name."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before it is decoded."""

    height: int  # of the upright picture
    width: int
    mode: str
    """Pillow's mode, and `+transparency` where a colour or the palette is partly transparent."""
    format: str
    plain: bool = False
    """8-bit grey or RGB without anything special: TensorFlow's decoder gives Pillow's very pixels, faster."""
    rotated: bool = False
    frames: bool = False

    @property
    def grey(self) -> bool:
        """Whether the picture has no colour."""
        return self.mode.split("+")[0] in {"1", "L", "LA", "La", "I"} or self.mode.startswith("I;16")


def sniff(head: bytes) -> str | None:
    """The format that the first bytes announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def inspect_file(path: str | Path) -> Header:
    """Size and kind of an image, from its first and last bytes.

    A file that does not end as its format demands is decoded as a whole, to learn whether it is truncated.

    Raises:
        BadImageError: it is empty, truncated, too large or no image.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open costs as much as the read itself
            head = tail = file.read(_HEAD)
            size = len(head)
            if size == _HEAD:
                size = file.seek(0, io.SEEK_END)
                file.seek(size - 16)
                tail = file.read()
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or error}") from None
    if not head:
        raise BadImageError("is empty (0 bytes)")
    name = sniff(head)
    complete = _ends_well(name, head, tail, size)
    header = plain_header(name, head)
    if header is not None:
        _check_size(header.height, header.width)
    if header is None or not complete:
        return _inspect_with_pillow(path, name, complete)
    return header


def decode_file(path: str | Path, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of an image, converted and resized by the rules of this module.

    Args:
        path: the file.
        channels: 1 for grey, 3 for RGB.
        size: (height, width) to resize to, or None to keep the picture's own.

    Returns:
        uint8 (H, W, channels).

    Raises:
        BadImageError: it cannot be read.
    """
    try:
        with _open(path) as image:
            upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
            converted = _convert(upright, channels)
            if size is not None and converted.size != (size[1], size[0]):
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted)
    except BadImageError:
        raise
    except _DECODER_ERRORS as error:
        raise BadImageError(f"cannot be decoded: {_reason(error)}") from None
    return pixels[..., None] if channels == 1 else pixels


def _ends_well(name: str | None, head: bytes, tail: bytes, size: int) -> bool:
    """Whether the file's end is where its format wants it; False asks for a decode, it is no verdict."""
    if name == "JPEG":
        return tail.endswith(b"\xff\xd9")
    if name == "PNG":
        return b"IEND" in tail[-16:]
    if name == "GIF":
        return tail.endswith(b";")
    if name == "WEBP":
        return size >= int.from_bytes(head[4:8], "little") + 8
    return name == "BMP" and size >= int.from_bytes(head[2:6], "little") > 0


def plain_header(name: str | None, head: bytes) -> Header | None:
    """The header of a JPEG or PNG without anything special, from its first bytes; else None."""
    return _jpeg_header(head) if name == "JPEG" else _png_header(head) if name == "PNG" else None


def _jpeg_header(head: bytes) -> Header | None:
    """The header of a JPEG without anything special, else None."""
    position = 2
    try:
        while True:
            if head[position] != 0xFF:
                return None
            marker = head[position + 1]
            if marker in {0xC0, 0xC1, 0xC2}:  # start of frame
                bits, height, width, components = struct.unpack_from(">BHHB", head, position + 4)
                if bits != 8 or components not in {1, 3} or not height or not width:
                    return None
                return Header(height, width, "L" if components == 1 else "RGB", "JPEG", plain=True)
            # APP1 may hold EXIF, APP2 several pictures, APP14 a colour transform: Pillow looks at those.
            if marker in {0xE1, 0xE2, 0xEE, 0xDA, 0xD9} or not 0xC0 <= marker <= 0xFE:
                return None
            position += 2 + (head[position + 2] << 8) + head[position + 3]
    except (IndexError, struct.error):
        return None


def _png_header(head: bytes) -> Header | None:
    """The header of an 8-bit grey or RGB PNG without anything special, else None."""
    if head[12:16] != b"IHDR" or len(head) < 33:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", head, 16)
    position = 33
    while head[position + 4 : position + 8] not in {b"IDAT", b""}:
        if head[position + 4 : position + 8] in {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"sBIT"}:
            return None
        position += 12 + int.from_bytes(head[position : position + 4], "big")
    mode = _PNG_PLAIN.get((bits, colour))
    return Header(height, width, mode, "PNG", plain=True) if mode and height and width else None


def _inspect_with_pillow(path: str | Path, format_name: str | None, complete: bool) -> Header:
    try:
        with _open(path) as image:
            orientation = _orientation(image)
            height, width = image.height, image.width
            mode = image.mode + ("+transparency" if "transparency" in image.info else "")
            frames = bool(getattr(image, "is_animated", False))
            if not complete:
                image.load()
    except BadImageError:
        raise
    except _DECODER_ERRORS as error:
        raise BadImageError(f"cannot be decoded: {_reason(error)}") from None
    if mode == "F":
        raise BadImageError("has floating-point pixels, which have no stated range; save it as 8 or 16 bit")
    if orientation >= 5:
        height, width = width, height
    return Header(height, width, mode, format_name or "", rotated=orientation != 1, frames=frames)


def _open(path: str | Path) -> Image.Image:
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImageError(_unidentified(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"has more than {MAX_PIXELS:,} pixels; dlcli refuses to decode it") from None
    except _DECODER_ERRORS as error:
        raise BadImageError(f"cannot be read: {_reason(error)}") from None
    try:
        _check_size(image.height, image.width)
    except BadImageError:
        image.close()
        raise
    return image


def _orientation(image: Image.Image) -> int:
    if image.format not in {"JPEG", "MPO", "PNG", "WEBP", "TIFF"}:
        return 1
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """To mode L or RGB."""
    target: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise BadImageError("has floating-point pixels, which have no stated range; save it as 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if target == "L" and image.mode not in {"1", "L"}:
        image = image.convert("RGB")  # CMYK, YCbCr and Lab have no direct way to luma
    return image if image.mode == target else image.convert(target)


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise BadImageError(f"has whole-number pixels from {low} to {high}; save it as 8 or 16 bit")
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _unidentified(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        head = file.read(64)
    if not head:
        return "is empty (0 bytes)"
    if (name := sniff(head)) is not None:
        return f"starts like a {name} file but is damaged or truncated"
    return f"is not an image dlcli reads ({', '.join(FORMATS)}); it starts with {head[:12]!r}"


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadImageError(
            f"claims {height} x {width} pixels; more than {MAX_PIXELS:,} are refused before decoding"
        )
    if max(height, width) > MAX_SIDE:
        raise BadImageError(
            f"claims {height} x {width} pixels; a side of more than {MAX_SIDE:,} is refused before decoding"
        )
    if height < 1 or width < 1:
        raise BadImageError(f"claims {height} x {width} pixels: it has none")


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return text[0] if text else type(error).__name__
