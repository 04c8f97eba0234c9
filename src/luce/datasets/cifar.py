"""CIFAR-10 in the forms in which people keep it.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from luce.datasets.dataset import Dataset, Part, Problem, Progress, printable
from luce.datasets.download import has_sha256, new_file
from luce.datasets.folder import open_folder
from luce.datasets.idx import label_numbers
from luce.datasets.pixels import open_npz
from luce.errors import DataError, ImageError
from luce.paths import cache_dir

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ADDRESS = "https://www.cs.toronto.edu/~kriz"
ARCHIVE = "cifar-10-binary.tar.gz"
is_official = has_sha256("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
_JPEG_ARCHIVE = "cifar10-jpeg.tar.xz"
_BATCHES: tuple[tuple[str, Part], ...] = (
    *((f"data_batch_{i}", "train") for i in range(1, 6)),
    ("test_batch", "test"),
)
_RECORD = 1 + 3 * 32 * 32
_MAX_MEMBER = 1 << 26
_Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # planes (N, 3072) and labels (N,)


def find(folder: Path, progress: Progress | None) -> Dataset | None:
    """Open the CIFAR-10 in a folder, or return `None` when there is none.

    Known forms, the first that is there: the official binary or Python batches, in the folder itself or in
    `cifar-10-batches-bin` or `cifar-10-batches-py`; their archives; `train/<class>/` and `test/<class>/` with
    pictures; `cifar10-jpeg.tar.xz` with such folders, which is decoded once into the cache.

    Raises:
        DataError: it is there but damaged.
    """
    for suffix, kind, parse in ((".bin", "bin", _binary), ("", "py", _pickled)):
        names = [f"{batch}{suffix}" for batch, _ in _BATCHES]
        for place in (folder, folder / f"cifar-10-batches-{kind}"):
            if all((place / name).is_file() for name in names):
                return _join({name: (place / name).read_bytes() for name in names}, parse, place)
        archive = folder / (ARCHIVE if kind == "bin" else "cifar-10-python.tar.gz")
        if archive.is_file():
            return _join(_members(archive, set(names)), parse, archive)
    if all((folder / part / name).is_dir() for part in ("train", "test") for name in CLASSES):
        return _not_official(replace(open_folder(folder), name="cifar10"), folder)
    if (folder / _JPEG_ARCHIVE).is_file():
        return _not_official(_jpegs(folder / _JPEG_ARCHIVE, progress), folder / _JPEG_ARCHIVE)
    return None


def _not_official(dataset: Dataset, path: Path) -> Dataset:
    reason = "CIFAR-10 as single pictures, whose pixels need not be those of the official files: used as it is"
    return replace(dataset, problems=(*dataset.problems, Problem("not-official", printable(path), reason)))


def _members(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Read the members of a tar archive with these file names."""
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in names and member.isfile() and member.size <= _MAX_MEMBER:
                    file = tar.extractfile(member)
                    found[name] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{printable(archive)}: the archive is damaged ({error}); get it again") from None
    missing = sorted(names - set(found))
    if missing:
        raise DataError(f"{printable(archive)}: {missing[0]} is not in it; get it again")
    return found


def _join(content: dict[str, bytes], parse: Callable[[bytes], _Batch], place: Path) -> Dataset:
    images, labels, splits = [], [], list[Part]()
    for (_, part), (name, data) in zip(_BATCHES, sorted(content.items()), strict=True):
        try:
            planes, numbers = parse(data)
        except (
            ValueError,
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            raise DataError(f"{printable(place)}: {name} is damaged ({error}); get it again") from None
        images.append(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(numbers)
        splits += [part] * len(numbers)
    pixels = np.ascontiguousarray(np.concatenate(images))
    return label_numbers("cifar10", pixels, np.concatenate(labels), CLASSES, splits)


def _binary(data: bytes) -> _Batch:
    """Parse records of a label byte and 3072 bytes of red, green and blue."""
    if not data or len(data) % _RECORD:
        raise ValueError(f"{len(data):,} bytes are no whole number of records of {_RECORD:,}")
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0].astype(np.int64)


class _Unpickler(pickle.Unpickler):
    """Reads a dict of arrays, lists and bytes; an empty array and a dtype are all that it ever makes."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        if module == "numpy" and name == "ndarray":
            return None  # only ever an argument of _reconstruct
        if module == "numpy" and name == "dtype":
            return np.dtype
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which it must not")


def _empty_array(subtype: object, shape: object, dtype: object) -> NDArray[np.uint8]:
    """Make the empty array whose state follows in the pickle, whatever else is asked for."""
    return np.empty(0, np.uint8)


def _pickled(data: bytes) -> _Batch:
    batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    planes, numbers = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != _RECORD - 1:
        raise ValueError(f"data must be uint8 (N, 3072), got {planes.dtype} {planes.shape}")
    if numbers.shape != planes.shape[:1] or numbers.dtype.kind not in "iu":
        raise ValueError(f"labels must be {planes.shape[0]} integers, got {numbers.dtype} {numbers.shape}")
    return planes, numbers.astype(np.int64)


def _jpegs(archive: Path, progress: Progress | None) -> Dataset:
    """Decode the archive, or take what was decoded before."""
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cached = cache_dir() / "datasets" / "cifar10" / f"decoded-{digest[:32]}.npz"
    try:
        return replace(open_npz(cached), name="cifar10")
    except DataError:
        arrays = _decode(archive, progress)
    try:
        with new_file(cached) as temporary, open(temporary, "wb") as file:
            np.savez(file, **cast(Any, arrays))
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return label_numbers("cifar10", arrays["images"], arrays["labels"], CLASSES, arrays["split"].tolist())


def _decode(archive: Path, progress: Progress | None) -> dict[str, NDArray[Any]]:
    from luce.images import decode

    images, labels, splits = [], [], []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts[-3:]
                if not member.isfile() or len(parts) < 3 or parts[1] not in CLASSES or member.size > _MAX_MEMBER:
                    continue
                file = tar.extractfile(member)
                pixels = decode(file.read() if file else b"").pixels
                if pixels.shape != (32, 32, 3) or parts[0] not in ("train", "test"):
                    raise DataError(f"{printable(archive)}: {member.name} does not belong to CIFAR-10")
                images.append(pixels)
                labels.append(CLASSES.index(parts[1]))
                splits.append(parts[0])
                if progress is not None and len(images) % 500 == 0:
                    progress("Unpacking cifar10", len(images), max(60_000, len(images)))
    except ImageError as error:
        raise DataError(f"{printable(archive)}: {member.name} is damaged: {error.reason}") from None
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{printable(archive)}: the archive is damaged ({error}); get it again") from None
    if not images:
        raise DataError(f"{printable(archive)}: holds no train/<class>/ and test/<class>/ with pictures")
    return {
        "images": np.stack(images),
        "labels": np.array(labels),
        "classes": np.array(CLASSES),
        "split": np.array(splits),
    }
