"""PNG: what its reader leaves unchecked or gets wrong."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from PIL import Image

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ANIMATION: Final = (b"acTL", b"fcTL", b"fdAT")
_INTERLACED: Final = 28  # place of this byte of the header
_PIECE: Final = 1 << 20
_ADAM7: Final = (  # left, top, step across, step down of each pass
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def still(data: bytes) -> tuple[bytes, bool]:
    """A PNG without its animation, and whether it had one; every chunk is there with its right checksum.

    Raises:
        ValueError: a chunk is damaged or cut off, or the last one is missing.
    """
    view = memoryview(data)
    pieces, start, animated = [view[: len(SIGNATURE)]], len(SIGNATURE), False
    if data[8:16] != b"\0\0\0\rIHDR":
        raise ValueError("it does not start with the IHDR chunk")
    while True:
        if start + 12 > len(data):
            raise ValueError("it ends before the IEND chunk")
        (length,) = struct.unpack_from(">I", data, start)
        name, end = data[start + 4 : start + 8], start + 12 + length
        if end > len(data):
            raise ValueError(f"the chunk {ascii(name)[2:-1]} is cut off")
        if zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"the chunk {ascii(name)[2:-1]} has a wrong checksum")
        if name in _ANIMATION:
            animated = True
        else:
            pieces.append(view[start:end])
        if name == b"IEND":
            return (b"".join(pieces) if animated else data), animated
        start = end


def scale_transparent_colour(info: dict[str | tuple[int, int], Any], depth: int) -> None:
    """Bring the one transparent colour from the file's bits per sample to the 8 of the pixels.

    Pillow compares it with pixels of 8 bits as it stands in the file. 16-bit grey is left alone: its pixels keep
    16 bits.
    """
    key = info.get("transparency")
    if isinstance(key, tuple) and depth == 16:
        info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and depth in (2, 4):
        info["transparency"] = key * 255 // (2**depth - 1)


def exif(info: dict[str | tuple[int, int], Any]) -> bytes | None:
    """EXIF of a loaded PNG: its chunk, or the text that older programs wrote in its place."""
    found, text = info.get("exif"), info.get("Raw profile type exif")
    if found is None and isinstance(text, str):
        with contextlib.suppress(ValueError):
            return bytes.fromhex("".join(text.split("\n")[3:]))
    return found if isinstance(found, bytes) else None


def may_lack_rows(image: Image.Image, data: bytes) -> bool:
    """Whether a loaded picture may have ended before its data were decoded: its last row is as it was made, all 0."""
    width, height = image.size
    last = image.crop((0, height - 1, width, height))
    return data[_INTERLACED] != 0 or last.getbbox(alpha_only=False) is None


def is_complete(data: bytes) -> bool:
    """Whether the compressed data of a PNG without damage hold every row; a reader that runs out leaves black."""
    wanted = _raw_size(data)
    inflate = zlib.decompressobj()
    try:
        for piece in _image_data(data):
            while piece and wanted > 0:
                wanted -= len(inflate.decompress(piece, min(wanted, _PIECE)))
                piece = inflate.unconsumed_tail
    except zlib.error:
        return False
    return wanted <= 0


def _image_data(data: bytes) -> Iterator[bytes]:
    start = len(SIGNATURE)
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        if data[start + 4 : start + 8] == b"IDAT":
            yield data[start + 8 : start + 8 + length]
        start += 12 + length


def _raw_size(data: bytes) -> int:
    """Bytes of all rows, each with its filter byte, before compression."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
        size += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return size
