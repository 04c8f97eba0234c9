"""IDX files, the format of MNIST: `train-images-idx3-ubyte` and its like, gzipped or not.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from luce.datasets.dataset import Dataset, Part, join_parts, printable
from luce.datasets.pixels import as_pictures
from luce.errors import DataError

MAX_BYTES = 1 << 31
_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NAME = re.compile(r"(.*?)(train|t10k|test)-(images|labels)([.-])idx([0-9])-ubyte(\.gz)?")
_CHUNK = 1 << 20
_IMAGES = "train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], and likewise t10k-..."


def is_idx(path: Path) -> bool:
    """Whether this is a file with a standard IDX name, or a folder that holds one."""
    if path.is_dir():
        return any(_NAME.fullmatch(name) for name in os.listdir(path))
    return _NAME.fullmatch(path.name) is not None


def open_idx(path: str | os.PathLike[str], *, name: str | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """Open IDX files with pictures and labels; `t10k` (or `test`) is the test part.

    Args:
        path: a folder with pairs of images and labels under their standard names, or one file of a single pair.
        name: of the data set; by default the path.
        classes: names of the labels 0, 1, …; by default the numbers that occur, in their order.

    Raises:
        DataError: a file is missing, damaged, longer than its header says or over 2 GiB, or the files do not
            belong together.
    """
    given = Path(path)
    return open_pairs(_pairs(given), name or printable(given), classes)


def open_pairs(pairs: Mapping[Part, tuple[Path, Path]], name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Open the files with the pictures and the labels of each part; the rest is as for `open_idx`."""
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    splits: list[Part] = []
    for part, (image_file, label_file) in pairs.items():
        pictures, numbers = _read_pair(image_file, label_file)
        if images and pictures.shape[1:] != images[0].shape[1:]:
            sizes = f"{images[0].shape[1:]} and {pictures.shape[1:]}"
            raise DataError(f"{name}: train and test pictures differ in size: {sizes}")
        images.append(pictures)
        labels.append(numbers)
        splits += [part] * len(numbers)
    return label_numbers(
        name, np.concatenate(images), np.concatenate(labels), classes, splits if len(pairs) > 1 else None
    )


def label_numbers(
    name: str,
    pictures: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    classes: Sequence[str] | None,
    splits: Sequence[Part] | None,
) -> Dataset:
    """Make the data set of pixels (N, …) with labels that are numbers (N,).

    Args:
        name: of the data set.
        pictures: (N, height, width[, 3]).
        numbers: (N,).
        classes: names of the numbers 0, 1, …; by default the numbers that occur, in their order.
        splits: (N,) parts, or `None`.

    Raises:
        DataError: a number has no name, or there are fewer than two classes.
    """
    if classes is None:
        occurring, labels = np.unique(numbers, return_inverse=True)
        names = tuple(str(number) for number in occurring)
    else:
        labels, names = numbers, tuple(classes)
        wrong = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
        if len(wrong):
            i = int(wrong[0])
            raise DataError(f"{name}: label {numbers[i]} of picture {i} must lie in 0 … {len(names) - 1}")
    parts = None if splits is None else tuple(splits)
    return join_parts(Dataset(name, names, pictures, labels.astype(np.int64), parts))


def _pairs(given: Path) -> dict[Part, tuple[Path, Path]]:
    """Find the files of each part."""
    folder = given if given.is_dir() else given.parent
    wanted = None if given.is_dir() else _NAME.fullmatch(given.name)
    files: dict[tuple[Part, str], Path] = {}
    for file in sorted(os.listdir(folder)):  # "x" before "x.gz": the unpacked one wins
        match = _NAME.fullmatch(file)
        if match is None or (wanted and match.group(1, 2) != wanted.group(1, 2)):
            continue
        part: Part = "train" if match[2] == "train" else "test"
        known = files.setdefault((part, match[3]), folder / file)
        if known.name.removesuffix(".gz") != file.removesuffix(".gz"):
            raise DataError(
                f"{printable(folder)}: holds several data sets ({known.name}, {file}): name one of the files"
            )
    pairs: dict[Part, tuple[Path, Path]] = {}
    for part in sorted({part for part, _ in files}, reverse=True):  # train, then test
        for what in ("images", "labels"):
            if (part, what) not in files:
                raise DataError(f"{printable(folder)}: the {what} of the {part} part are missing; expected {_IMAGES}")
        pairs[part] = files[part, "images"], files[part, "labels"]
    if not pairs:
        raise DataError(f"{printable(given)}: no IDX files here; expected {_IMAGES}")
    return pairs


def _read_pair(image_file: Path, label_file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = parse(read_content(image_file), image_file), parse(read_content(label_file), label_file)
    try:
        pictures = as_pictures(images)
    except (TypeError, ValueError) as error:
        raise DataError(f"{printable(image_file)}: {error}") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{printable(label_file)}: labels must be a row of integers, got shape {labels.shape}")
    if len(labels) != len(pictures):
        counts = f"{len(pictures)} pictures but {printable(label_file)} has {len(labels)} labels"
        raise DataError(f"{printable(image_file)}: holds {counts}; the files do not belong together")
    return pictures, labels.astype(np.int64)


def parse(content: bytes, path: Path) -> NDArray[np.generic]:
    """View the content of an IDX file, as `read_content` gives it, as an array (big-endian)."""
    dtype, shape, start = _header(content, path)
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def read_content(path: Path) -> bytes:
    """Read the content of an IDX file, unpacked: exactly its header and what that announces.

    Memory follows the bytes that are there, not those that the header claims.

    Raises:
        DataError: no IDX file, cut short, too long, over `MAX_BYTES`, or damaged.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _read_announced(cast(BinaryIO, unpacked), path)
            return _read_announced(file, path)
    except EOFError:
        raise DataError(f"{printable(path)}: the gzip file is cut short; get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{printable(path)}: the gzip file is damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read: {error.strerror}") from None


def _read_announced(file: BinaryIO, path: Path) -> bytes:
    content = bytearray(file.read(4 + 4 * 8))
    dtype, shape, start = _header(bytes(content), path)
    announced = start + dtype.itemsize * math.prod(shape)
    if announced > MAX_BYTES:
        size = f"{announced / (1 << 30):.3g} GiB"
        raise DataError(f"{printable(path)}: its header announces {size}; the limit is {MAX_BYTES >> 30} GiB")
    while len(content) <= announced and (chunk := file.read(min(_CHUNK, announced + 1 - len(content)))):
        content += chunk
    if len(content) != announced:
        came = f"only {len(content):,} are there" if len(content) < announced else "there are more"
        raise DataError(f"{printable(path)}: its header announces {announced:,} bytes but {came}; get the file again")
    return bytes(content)


def _header(content: bytes, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Read the dtype, the shape and the position of the data."""
    n_axes = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * n_axes
    if len(content) < start or content[:2] != b"\0\0" or content[2] not in _DTYPES or not 1 <= n_axes <= 4:
        raise DataError(f"{printable(path)}: not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}")
    return np.dtype(_DTYPES[content[2]]), struct.unpack_from(f">{n_axes}I", content, 4), start
