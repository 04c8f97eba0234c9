"""TIFF directories: the orientation in EXIF, and a TIFF file reduced to its first picture.

EXIF is a TIFF file without pixels. A TIFF file is handed to its reader with one directory of the tags that make the
picture: what a reader thinks of the other tags, and of further pictures, cannot change or stop the first one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
from dataclasses import dataclass
from typing import Final

from PIL import _imaging

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
ORIENTATION: Final = 274
_SAMPLES: Final = 277
_MOST_SAMPLES: Final = 6
_SINGLE: Final = frozenset(
    {256, 257, 259, 262, 266, _SAMPLES, 278, 284, 292, 293, 317, 322, 323, 512, 513, 514, 515, 531}
)
_SEVERAL: Final = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 519, 520, 521, 529, 530, 532})


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a TIFF structure.

    Attributes:
        order: "<" or ">".
        start: its place in the data.
        big: whether it is a BigTIFF, with offsets of 8 bytes.
        entries: type, count and the field of 4 (8) bytes that holds the values or their place, by tag.
        further: whether another directory follows.
    """

    order: str
    start: int
    big: bool
    entries: dict[int, tuple[int, int, bytes]]
    further: bool

    def whole_number(self, tag: int) -> int | None:
        """The single value of a tag; `None` without the tag, 0 where it is no whole number."""
        if tag not in self.entries:
            return None
        kind, count, field = self.entries[tag]
        if count != 1 or kind not in _INTEGERS or _SIZES[kind] > len(field):
            return 0
        return int(struct.unpack_from(self.order + _INTEGERS[kind], field)[0])


def read_directory(data: bytes) -> Directory:
    """The first directory of a TIFF file or of EXIF.

    Raises:
        ValueError: there is none, or it does not lie within the data.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    version = int.from_bytes(data[2:4], "little" if order == "<" else "big")
    if order is None or version not in (42, 43):
        raise ValueError("no TIFF header")
    big = version == 43
    place, number, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    try:
        (start,) = struct.unpack_from(order + place, data, 8 if big else 4)
        start = min(start, len(data))
        (count,) = struct.unpack_from(order + number, data, start)
        first, step = start + struct.calcsize(order + number), struct.calcsize(order + entry)
        end = first + count * step
        (following,) = struct.unpack_from(order + place, data, min(end, len(data)))
    except struct.error:
        raise ValueError("its directory is cut off") from None
    entries: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, values, field in struct.iter_unpack(order + entry, data[first:end]):
        entries.setdefault(tag, (kind, values, field))
    return Directory(order, start, big, entries, following != 0)


def exif_orientation(exif: bytes, notes: list[str]) -> int:
    """Orientation 1 … 8 in the bytes of EXIF; 1 where there is none or it cannot be read, which is noted."""
    while exif.startswith(b"Exif\0\0"):  # some writers, and some readers, put it there once more
        exif = exif[6:]
    try:
        value = read_directory(exif).whole_number(ORIENTATION)
    except ValueError:
        notes.append("broken EXIF ignored")
        return 1
    return checked_orientation(value, notes)


def checked_orientation(value: object, notes: list[str]) -> int:
    """An orientation that is 1 … 8; without one it is 1, and so for any other value, which is noted."""
    if value is None:
        return 1
    if isinstance(value, int) and 1 <= value <= 8:
        return int(value)
    notes.append("EXIF orientation out of range ignored")
    return 1


def first_picture(data: bytes, directory: Directory) -> bytes:
    """The TIFF file with one directory, of the tags that make the picture, upright as stored.

    Raises:
        ValueError: a tag's values do not lie within the file, or cannot be.
    """
    order, big = directory.order, directory.big
    samples = directory.whole_number(_SAMPLES)
    if samples is not None and not 1 <= samples <= _MOST_SAMPLES:
        raise ValueError(f"{samples} samples per pixel")
    kept = []
    for tag, (kind, count, field) in sorted(directory.entries.items()):
        if tag not in _SINGLE | _SEVERAL or count == 0:
            continue
        if kind not in _SIZES or (tag in _SINGLE and count != 1):
            raise ValueError(f"tag {tag} has {count} values of type {kind}")
        size = count * _SIZES[kind]
        if size > len(field) and struct.unpack(order + ("Q" if big else "I"), field)[0] + size > len(data):
            raise ValueError(f"the values of tag {tag} are cut off")
        kept.append(struct.pack(order + ("HHQ8s" if big else "HHI4s"), tag, kind, count, field))
    head = struct.pack(order + ("Q" if big else "H"), len(kept))
    return _overwritten(data, directory.start, b"".join((head, *kept, bytes(8 if big else 4))))


def _overwritten(data: bytes, start: int, new: bytes) -> bytes:
    """The data with some bytes replaced: nothing moves, and an end that comes too soon still does."""
    return b"".join((memoryview(data)[:start], new, memoryview(data)[start + len(new) :]))


@functools.cache
def silence_libtiff() -> None:
    """Stop libtiff from printing its errors past `sys.stderr`: Pillow raises an exception for each of them.

    Pillow does the same for libtiff's warnings, and for the whole process too. Where Pillow holds libtiff in another
    way than as a shared library, nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
