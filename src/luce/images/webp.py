"""WebP: its size, before its reader takes the memory."""

from __future__ import annotations

from luce.errors import ImageError


def size(data: bytes) -> tuple[int, int]:
    """Width and height as the header has them, for its reader takes the memory when it is opened."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if len(data) < 30:
        raise ImageError("the picture's header is damaged or cut off")
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
