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
_MD5 = {  # of the Python batches
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_AS_PICTURES = "CIFAR-10 as single pictures, whose pixels need not be those of the official files: used as it is"
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
                content = {name: _content(place / name) for name in names}
                return _compared(_join(content, parse, place), content, place)
        archive = folder / (ARCHIVE if kind == "bin" else "cifar-10-python.tar.gz")
        if archive.is_file():
            content = _members(archive, set(names))
            return _compared(_join(content, parse, archive), content, archive)
    if all((folder / part / name).is_dir() for part in ("train", "test") for name in CLASSES):
        return _with(replace(open_folder(folder), name="cifar10"), "not-official", folder, _AS_PICTURES)
    if (folder / _JPEG_ARCHIVE).is_file():
        archive = folder / _JPEG_ARCHIVE
        return _with(_jpegs(archive, progress), "not-official", archive, _AS_PICTURES)
    return None


def _with(dataset: Dataset, kind: str, path: Path, reason: str) -> Dataset:
    return replace(dataset, problems=(*dataset.problems, Problem(kind, printable(path), reason)))


def _compared(dataset: Dataset, content: dict[str, bytes], place: Path) -> Dataset:
    """Say so if batches are not the official ones, or are of a form for which no sum is published."""
    if place.name == ARCHIVE:
        official = not is_official(place)
    elif set(content) == set(_MD5):
        official = all(
            hashlib.md5(data, usedforsecurity=False).hexdigest() == _MD5[name] for name, data in content.items()
        )
    else:
        return _with(dataset, "noted", place, "no sum of these files is published: used without comparing them")
    if official:
        return dataset
    return _with(dataset, "not-official", place, "not the official cifar10 (its sum differs): used as it is")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read: {error.strerror}") from None


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
            OverflowError,
            MemoryError,
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


class _Told:
    """Stands for an array or a dtype of a pickle: keeps what is told about it and does nothing with it.

    NumPy's own would believe it: a dtype with forged flags makes an array of pointers out of bytes.
    """

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads a dict of lists, numbers, bytes and what `_Told` stands for; it never calls anything else."""

    def find_class(self, module: str, name: str) -> Any:
        known = ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")
        if (module, name) in (*known, ("numpy", "ndarray"), ("numpy", "dtype")):
            return _Told
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which it must not")


def _pickled(data: bytes) -> _Batch:
    batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    planes, numbers = _planes(batch[b"data"]), np.asarray(batch[b"labels"])
    if numbers.shape != planes.shape[:1] or numbers.dtype.kind not in "iu":
        raise ValueError(f"labels must be {planes.shape[0]} integers, got {numbers.dtype} {numbers.shape}")
    return planes, numbers.astype(np.int64)


def _planes(told: object) -> NDArray[np.uint8]:
    """Make the array (N, 3072) of which a pickle tells (version, shape, dtype, whether by columns, bytes)."""
    if not isinstance(told, _Told):
        raise ValueError(f"data must be an array, got {type(told).__name__}")
    _, shape, dtype, by_columns, content = told.state
    kind = dtype.arguments[0] if isinstance(dtype, _Told) and dtype.arguments else None
    if kind not in ("u1", b"u1") or not isinstance(content, bytes) or len(shape) != 2 or shape[1] != _RECORD - 1:
        raise ValueError(f"data must be uint8 (N, 3072), got {kind} {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


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
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{printable(archive)}: the archive is damaged ({error}); get it again") from None
    if not images:
        raise DataError(f"{printable(archive)}: holds no train/<class>/ and test/<class>/ with pictures")
    return {
        "images": np.stack(images),
        "labels": np.array(labels),
        "classes": np.array(CLASSES),
        "split": np.array(splits),
    }
