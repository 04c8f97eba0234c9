"""JPEG: libjpeg-turbo (simplejpeg) decodes it, and tells every complaint."""

from __future__ import annotations

from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

# libjpeg's complaints that leave every pixel right, or that come from a file that only Pillow can read.
_FOR_PILLOW: Final = ("extraneous bytes before marker", "Could not determine subsampling")


def size_and_colours(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and colour space; `None` where only Pillow can tell.

    Raises:
        ValueError: damaged or cut off.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if _for_pillow(error):
            return None
        raise
    return width, height, colours


def pixels(data: bytes, side: int) -> NDArray[np.uint8] | None:
    """RGB pixels, at the smallest fraction of the size with `side` pixels on both sides; `None` as above.

    Raises:
        ValueError: damaged or cut off.
    """
    try:
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side)
    except ValueError as error:
        if _for_pillow(error):
            return None
        raise
    return decoded


def split_exif(data: bytes) -> tuple[bytes | None, bytes]:
    """EXIF, if any, and the JPEG without it, for its reader would take what else it says to heart."""
    exif, kept, last, start = None, [], 0, 2
    while (start := data.find(b"\xff", start)) >= 0:
        marker = data[start + 1 : start + 2]
        if marker in (b"\xda", b"\xd9", b""):
            break
        if marker in (b"\xff", b"\0"):
            start += 1
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == b"\xe1" and data[start + 4 : start + 10] == b"Exif\0\0":
            exif = data[start + 10 : end] if exif is None else exif
            kept.append(data[last:start])
            last = end
        start = end
    return exif, data if exif is None else b"".join((*kept, data[last:]))


def _for_pillow(error: ValueError) -> bool:
    return any(words in str(error) for words in _FOR_PILLOW)
