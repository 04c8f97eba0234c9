"""The one decoding front: anything that is a picture becomes upright RGB pixels, anything else is refused.

The format is read from the content, never from the name. Orientation in EXIF is always applied. JPEG goes through
libjpeg-turbo (simplejpeg), the rest through Pillow's readers, opened one by one: that leaves Pillow's process-wide
settings alone and lets the size be checked before anything is decoded. Nothing is rescued: a file whose data end too
soon is refused.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from luce.errors import ImageError

MAX_PIXELS: Final = 100_000_000  # 300 MB of RGB; above every camera of today, below what hurts
MAX_FILE_BYTES: Final = 1 << 30

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image

# Magic bytes and reader of each format but JPEG. A reader refuses what is not its own.
_READERS: Final[tuple[tuple[str, bytes, Any], ...]] = (
    ("PNG", b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    ("GIF", b"GIF8", GifImagePlugin.GifImageFile),
    ("TIFF", b"II*\0", TiffImagePlugin.TiffImageFile),
    ("TIFF", b"MM\0*", TiffImagePlugin.TiffImageFile),
    ("TIFF", b"II+\0", TiffImagePlugin.TiffImageFile),
    ("BMP", b"BM", BmpImagePlugin.BmpImageFile),
    *(("PPM", b"P%d" % i, PpmImagePlugin.PpmImageFile) for i in range(1, 7)),
)
_FORMATS: Final = "JPEG, PNG, WebP, GIF, TIFF, BMP and PPM"
_FOREIGN: Final = (
    (b"version https://git-lfs", "a git-lfs pointer: run `git lfs pull`"),
    (b"<!doctype", "an HTML page, perhaps an error page saved under a picture's name"),
    (b"<html", "an HTML page, perhaps an error page saved under a picture's name"),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<?xml", "an XML or SVG file: convert it to PNG"),
    (b"pk\x03\x04", "a zip archive: unpack it"),
    (b"%pdf", "a PDF document"),
)
# libjpeg's complaints that leave every pixel right, or that come from a file that only Pillow can read.
_HARMLESS: Final = ("extraneous bytes before marker", "Could not determine subsampling")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (height, width, 3) uint8, upright RGB, C-contiguous.
        size: (width, height) of the original, upright, before any scaled decoding.
        format: "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "array" or "PIL".
        notes: what was odd but harmless, in a few words each.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    format: str
    notes: tuple[str, ...] = ()


def decode(source: Source, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture.

    Colour: CMYK is converted; palettes are resolved; grey becomes three equal channels; 16 bits are scaled to 8, not
    cut; transparent pixels are laid over white; of an animation the first frame counts. Floating TIFF pixels must
    lie in 0 … 1, or else in 0 … 255.

    Args:
        source: a path, the bytes of a file, an open binary file, a PIL image, or an array: uint8, uint16 (scaled) or
            bool, of shape (height, width), (height, width, 1), (height, width, 3) or (height, width, 4).
        min_side: the caller needs no more than this many pixels on the short side: a JPEG may be decoded at a
            fraction of its size, never below.
        max_pixels: larger pictures are refused, before they are decoded.

    Raises:
        ImageError: it is no picture, damaged, cut off, empty, too large, of an unknown format, or cannot be read.
        TypeError, ValueError: the source is an object that is no picture, or an array of the wrong dtype or shape.
    """
    content = read_source(source)
    if not isinstance(content, bytes):
        kind = "PIL" if isinstance(source, Image.Image) else "array"
        height, width = content.shape[:2]
        return Picture(content, (width, height), kind)
    try:
        return _decode_bytes(content, min_side, max_pixels)
    except ImageError as error:
        path = source if isinstance(source, str | os.PathLike) else None
        raise ImageError(error.reason, path) from None


def read_source(source: Source) -> bytes | NDArray[np.uint8]:
    """The content of a source: the bytes of a file, or the RGB pixels (height, width, 3) of an array or PIL image.

    Raises:
        ImageError: a file cannot be read, or is no regular file.
        TypeError, ValueError: as for `decode`.
    """
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _upright(_to_rgb(source, []), _orientation(source, []))
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes):
            return content
    raise TypeError(
        "a picture must be a path, bytes, an open binary file, an array or a PIL image, "
        f"got {type(source).__module__}.{type(source).__qualname__}"
    )


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file"
            raise ImageError(f"it is {kind}, not a picture", path)
        if about.st_size > MAX_FILE_BYTES:
            raise ImageError(f"the file has {about.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}", path)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ImageError("no such file", path) from None
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", path) from None
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"this is no path ({error})", path) from None


def _decode_bytes(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, min_side, max_pixels)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _decode_with_pillow("WEBP", WebPImagePlugin.WebPImageFile, data, max_pixels)
    for name, magic, reader in _READERS:
        if data.startswith(magic):
            return _decode_with_pillow(name, reader, data, max_pixels)
    raise ImageError(_what_else(data))


def _what_else(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            return f"not a picture but {what}"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return f"HEIC and AVIF pictures are not read: convert it to JPEG (known are {_FORMATS})"
    return f"not a picture of a known format ({_FORMATS})"


def _decode_jpeg(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    notes: list[str] = []
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colours in ("CMYK", "YCCK"):
            return _decode_with_pillow("JPEG", JpegImagePlugin.JpegImageFile, data, max_pixels)
        side = 0 if min_side is None or min_side > min(height, width) else min_side
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side)
    except ValueError as error:
        if any(words in str(error) for words in _HARMLESS):
            return _decode_with_pillow("JPEG", JpegImagePlugin.JpegImageFile, data, max_pixels)
        raise ImageError(f"the JPEG data are damaged or cut off ({error})") from None
    orientation = 1
    if b"Exif\0\0" in data[: 1 << 17]:
        orientation = _orientation(_open(JpegImagePlugin.JpegImageFile, data), notes)
    size = (height, width) if orientation > 4 else (width, height)
    return Picture(_upright(pixels, orientation), size, "JPEG", tuple(notes))


def _decode_with_pillow(name: str, reader: Any, data: bytes, max_pixels: int) -> Picture:
    notes: list[str] = []
    image = _open(reader, data)
    width, height = image.size
    _check_size(width, height, max_pixels)
    try:
        if getattr(image, "is_animated", False):
            notes.append("the first frame of several")
        image.load()
        pixels = _to_rgb(image, notes)
    except ImageError:
        raise
    except Exception as error:  # hostile data provoke every kind of error in a reader
        raise ImageError(f"the {name} data are damaged or cut off ({_words(error)})") from None
    orientation = _orientation(image, notes)
    size = (height, width) if orientation > 4 else (width, height)
    return Picture(_upright(pixels, orientation), size, name, tuple(notes))


def _open(reader: Any, data: bytes) -> ImageFile.ImageFile:
    try:
        image: ImageFile.ImageFile = reader(io.BytesIO(data))
    except Exception as error:  # hostile data provoke every kind of error in a reader
        raise ImageError(f"the picture's header is damaged or cut off ({_words(error)})") from None
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the picture is {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"the picture is {width:,} x {height:,} pixels, more than the limit of {max_pixels:,} (max_pixels raises it)"
        )


def _to_rgb(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of a loaded image in any mode."""
    mode = image.mode
    if mode == "F":
        return _stacked(_scale_float(np.asarray(image)))
    if mode.startswith("I"):
        notes.append("16 bits scaled to 8")
        return _stacked(_scale_16(np.asarray(image)))
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")), notes)
    return np.array(image.convert("RGB"))


def _over_white(rgba: NDArray[np.uint8], notes: list[str]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    notes.append("transparent pixels laid over white")
    mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _scale_16(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("its pixels are 32-bit integers; save it with 8 or 16 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _scale_float(values: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise ImageError("its floating pixels do not lie in 0 … 1 or 0 … 255; save it with 8 bits")
    scale = 255.0 if values.max() <= 1 else 1.0
    return np.rint(values * scale).astype(np.uint8)


def _stacked(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = _scale_16(array) if array.size else array.astype(np.uint8)
    elif array.dtype != np.uint8:
        raise TypeError(
            f"a picture array must be uint8, uint16 or bool, got {array.dtype}; "
            "convert it first, for example (255 * x).round().astype('uint8') if it lies in 0 … 1"
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"a picture array must have shape (height, width), or (height, width, 1, 3 or 4), got {array.shape}"
            + ("; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else "")
        )
    if channels == 4:
        return _over_white(array, [])
    if channels == 1:
        return _stacked(array.reshape(array.shape[:2]))
    return np.ascontiguousarray(array)


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """EXIF orientation 1 … 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF provokes every kind of error
        notes.append("broken EXIF ignored")
        return 1
    if value in (1, 2, 3, 4, 5, 6, 7, 8):
        return int(value)
    notes.append("EXIF orientation out of range ignored")
    return 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation: 5 … 8 transpose; then mirrored columns or rows."""
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _words(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
