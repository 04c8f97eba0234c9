"""The one decoding front: anything that is a picture becomes upright RGB pixels, anything else is refused.

The format is read from the content, never from the name. Orientation in EXIF is always applied. JPEG goes through
libjpeg-turbo (simplejpeg), the rest through Pillow's readers, opened one by one: that leaves Pillow's process-wide
settings alone and lets the size be checked before anything is decoded. Nothing is rescued: a file whose data end too
soon is refused.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
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
from luce.images import colour, jpeg, png, tiff, webp
from luce.images.source import Source, read_file, what_else

_ANIMATED: Final = "the first frame of several"
MAX_PIXELS: Final = 100_000_000  # 300 MB of RGB; above every camera of today, below what hurts

_READERS: Final[dict[str, Any]] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (height, width, 3) uint8, upright RGB, C-contiguous.
        size: (width, height) of the original, upright, before any scaled decoding.
        format: "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "array" or "PIL".
        notes: what was odd but harmless, in a few words each.
        part: (left, top, right, bottom) that the picture fills of the pixels, `None` for all: a side that a scaled
            decoding does not divide ends within a pixel.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    format: str
    notes: tuple[str, ...] = ()
    part: tuple[float, float, float, float] | None = None


def decode(source: Source, *, min_side: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture.

    Colour: CMYK is converted; palettes are resolved; grey becomes three equal channels; 16-bit grey is scaled to 8
    bits, of 16-bit colours the upper 8 count (Pillow reads no more); transparent pixels are laid over white; of an
    animation the first frame counts. Floating TIFF pixels must lie in 0 … 1, or else in 0 … 255.

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
    path = source if isinstance(source, str | os.PathLike) else None
    try:
        if isinstance(source, Image.Image):
            return _decode_image(source, max_pixels)
        content = read_source(source)
        if isinstance(content, bytes):
            return _decode_bytes(content, min_side, max_pixels)
        height, width = content.shape[:2]
        _check_size(width, height, max_pixels)
        return Picture(content, (width, height), "array")
    except ImageError as error:
        raise ImageError(error.reason, path) from None


def read_source(source: Source) -> bytes | NDArray[np.uint8]:
    """The content of a source: the bytes of a file, or the RGB pixels (height, width, 3) of an array or PIL image.

    Raises:
        ImageError: a file cannot be read, or is no regular file; a PIL image cannot be loaded or is too large.
        TypeError, ValueError: as for `decode`.
    """
    if isinstance(source, str | os.PathLike):
        return read_file(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, np.ndarray):
        return colour.from_array(source)
    if isinstance(source, Image.Image):
        return _decode_image(source, MAX_PIXELS).pixels
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes):
            return content
    raise TypeError(
        "a picture must be a path, bytes, an open binary file, an array or a PIL image, "
        f"got {type(source).__module__}.{type(source).__qualname__}"
    )


def _decode_image(image: Image.Image, max_pixels: int) -> Picture:
    notes: list[str] = []
    _check_size(*image.size, max_pixels)
    pixels = _loaded(image, "PIL", notes)
    try:
        value = image.getexif().get(tiff.ORIENTATION)
    except Exception:  # broken EXIF provokes every kind of error
        notes.append("broken EXIF ignored")
        value = None
    return _picture(pixels, image.size, tiff.checked_orientation(value, notes), "PIL", notes)


def _decode_bytes(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, min_side, max_pixels)
    if data.startswith(png.SIGNATURE):
        return _decode_png(data, max_pixels)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0")):
        return _decode_tiff(data, max_pixels)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_size(*webp.size(data), max_pixels)
        return _decode_other("WEBP", data, max_pixels)
    if data.startswith(b"GIF8"):
        return _decode_other("GIF", data, max_pixels)
    if data.startswith(b"BM"):
        return _decode_other("BMP", data, max_pixels)
    if data.startswith((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")):
        return _decode_other("PPM", data, max_pixels)
    raise ImageError(what_else(data))


def _decode_jpeg(data: bytes, min_side: int | None, max_pixels: int) -> Picture:
    notes: list[str] = []
    size, pixels = None, None
    try:
        header = jpeg.size_and_colours(data)
        if header is not None:
            size = header[:2]
            _check_size(*size, max_pixels)
            if header[2] not in ("CMYK", "YCCK"):
                pixels = jpeg.pixels(data, 0 if min_side is None or min_side > min(size) else min_side)
                notes += ["stray bytes in the JPEG data skipped"] if pixels is None else []
    except ValueError as error:
        raise _damaged("JPEG", error) from None
    exif, bare = jpeg.split_exif(data)
    if pixels is None or size is None:
        image = _open("JPEG", bare, max_pixels)
        size, pixels = image.size, _loaded(image, "JPEG", notes)
    return _picture(pixels, size, exif, "JPEG", notes)


def _decode_png(data: bytes, max_pixels: int) -> Picture:
    notes: list[str] = []
    try:
        still, animated = png.still(data)
    except ValueError as error:
        raise _damaged("PNG", error) from None
    image = _open("PNG", still, max_pixels)
    png.scale_transparent_colour(image.info, depth=data[24])
    pixels = _loaded(image, "PNG", notes)
    if png.may_lack_rows(image, data) and not png.is_complete(data):
        raise ImageError("the PNG data are damaged or cut off: rows are missing")
    notes += [_ANIMATED] if animated else []
    return _picture(pixels, image.size, png.exif(image.info), "PNG", notes)


def _decode_tiff(data: bytes, max_pixels: int) -> Picture:
    tiff.silence_libtiff()
    notes: list[str] = []
    try:
        directory = tiff.read_directory(data)
        first = tiff.first_picture(data, directory)
    except ValueError as error:
        raise _damaged("TIFF", error) from None
    image = _open("TIFF", first, max_pixels)
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise ImageError("a TIFF larger than Pillow reads without a warning (PIL.Image.MAX_IMAGE_PIXELS raises it)")
    pixels = _loaded(image, "TIFF", notes)
    notes += [_ANIMATED] if directory.further else []
    orientation = tiff.checked_orientation(directory.whole_number(tiff.ORIENTATION), notes)
    return _picture(pixels, image.size, orientation, "TIFF", notes)


def _decode_other(name: str, data: bytes, max_pixels: int) -> Picture:
    notes: list[str] = []
    image = _open(name, data, max_pixels)
    pixels, size = _loaded(image, name, notes), image.size
    with contextlib.suppress(Exception):  # damage in the second picture does not concern the first
        notes += [_ANIMATED] if getattr(image, "is_animated", False) else []
    return _picture(pixels, size, image.info.get("exif"), name, notes)


def _picture(
    pixels: NDArray[np.uint8], size: tuple[int, int], turn: bytes | int | None, name: str, notes: list[str]
) -> Picture:
    """The picture upright: `turn` is the orientation, or the EXIF that may hold it; size is that of the file."""
    orientation = tiff.exif_orientation(turn, notes) if isinstance(turn, bytes) else turn or 1
    part = _filled(pixels.shape[:2], size, orientation)
    return Picture(_upright(pixels, orientation), size[::-1] if orientation > 4 else size, name, tuple(notes), part)


def _filled(
    shape: tuple[int, int], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float] | None:
    """`Picture.part` of pixels decoded at an eighth to seven eighths, where the last pixel is begun, not filled."""
    height, width = shape
    fractions = (k / 8 for k in range(8, 0, -1) if (-(-size[1] * k // 8), -(-size[0] * k // 8)) == shape)
    fraction = next(fractions, 1.0)
    across, down = size[0] * fraction, size[1] * fraction
    if (across, down) == (width, height):
        return None
    if orientation > 4:
        width, height, across, down = height, width, down, across
    left = width - across if orientation in (2, 3, 6, 7) else 0.0
    top = height - down if orientation in (3, 4, 7, 8) else 0.0
    return left, top, left + across, top + down


def _open(name: str, data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    try:
        image: ImageFile.ImageFile = _READERS[name](io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture is larger than Pillow reads ({_words(error)})") from None
    except Exception as error:  # hostile data provoke every kind of error in a reader
        raise ImageError(f"the picture's header is damaged or cut off ({_words(error)})") from None
    _check_size(*image.size, max_pixels)
    return image


def _loaded(image: Image.Image, name: str, notes: list[str]) -> NDArray[np.uint8]:
    try:
        image.load()
        return colour.to_rgb(image, notes)
    except ImageError:
        raise
    except Exception as error:  # hostile data provoke every kind of error in a reader
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"the {name} data are damaged or cut off ({_words(error)})")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the picture is {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"the picture is {width:,} x {height:,} pixels, more than the limit of {max_pixels:,} "
            "(max_pixels raises it)"
        )


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
