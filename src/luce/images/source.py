"""Where a picture comes from: a file is read, and what is no picture is told from its first bytes."""

from __future__ import annotations

import os
import stat
from typing import Any, BinaryIO, Final, TypeAlias

from numpy.typing import NDArray
from PIL import Image

from luce.errors import ImageError

MAX_FILE_BYTES: Final = 1 << 30

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image

FORMATS: Final = "JPEG, PNG, WebP, GIF, TIFF, BMP and PPM"
_HTML: Final = "an HTML page, perhaps an error page saved under a picture's name: fetch the picture again"
_FOREIGN: Final = (
    (b"version https://git-lfs", "a git-lfs pointer: run `git lfs pull`"),
    (b"<!doctype", _HTML),
    (b"<html", _HTML),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<?xml", "an XML or SVG file: convert it to PNG"),
    (b"pk\x03\x04", "a zip archive: unpack it"),
    (b"pk\x05\x06", "an empty zip archive"),
    (b"%pdf", "a PDF document: convert its page to PNG"),
)
_HEIF: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file.

    Raises:
        ImageError: it is not there, no regular file, too large, or cannot be read.
    """
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
        raise ImageError(f"the file cannot be read ({error.strerror or error})", path) from None
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"this is no path ({error})", path) from None


def what_else(data: bytes) -> str:
    """Why data in no known format are refused: what they are, and the remedy."""
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            return f"not a picture but {what}"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        return f"HEIC and AVIF pictures are not read: convert it to JPEG (known are {FORMATS})"
    if data.startswith(b"MM\0+"):
        return "a BigTIFF of big-endian byte order is not read: convert it to PNG"
    return f"not a picture of a known format ({FORMATS})"
