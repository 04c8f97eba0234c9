"""Data sets of pixels: arrays in memory and `.npz` files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.datasets.dataset import Dataset, Part, join_parts, name_classes, number_groups, printable
from luce.datasets.folder import PART_NAMES
from luce.errors import DataError

MAX_BYTES = 1 << 31
_KERAS = ("x_train", "y_train", "x_test", "y_test")
_OWN = ("images", "labels", "classes", "split", "group", "weight")


def as_pictures(array: ArrayLike) -> NDArray[np.uint8]:
    """Check pixels.

    Args:
        array: uint8 (N, height, width), (N, height, width, 1) or (N, height, width, 3).

    Returns:
        (N, height, width) or (N, height, width, 3), a view where possible.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, or no pixels.
    """
    pixels = np.asarray(array)
    if pixels.dtype != np.uint8:
        remedy = "; bring them to 0 … 255 first" if pixels.dtype.kind in "fui" else ""
        raise TypeError(f"pictures must be uint8, got {pixels.dtype}{remedy}")
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 4 and pixels.shape[3] != 3 and pixels.shape[1] in (1, 3):
        raise ValueError(f"pictures must have the channels last, got {pixels.shape}; transpose them to (N, H, W, 3)")
    if not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)):
        raise ValueError(f"pictures must be (N, height, width) or (N, height, width, 3), got {pixels.shape}")
    if 0 in pixels.shape[1:]:
        raise ValueError(f"pictures must have pixels, got {pixels.shape}")
    return pixels


def from_arrays(
    pictures: Any,
    labels: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    split: ArrayLike | None = None,
    group: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    name: str = "pictures",
) -> Dataset:
    """Make a data set of pixels, or of paths, and labels.

    Args:
        pictures: uint8 (N, height, width[, 1 or 3]), or N paths.
        labels: (N,) integers or class names; (N, 1) as Keras gives them will do.
        classes: names of the labels 0, 1, …; by default the numbers that occur.
        split: (N,) train, val or test.
        group: (N,) pictures of one group never part.
        weight: (N,) positive.
        name: for messages.

    Raises:
        TypeError, ValueError: an array is not as above.
        DataError: fewer than two classes.
    """
    content = tuple(pictures) if _are_paths(pictures) else as_pictures(pictures)
    n = len(content)
    target = np.asarray(labels)
    target = target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target
    if target.dtype == object and all(isinstance(name, str) for name in target.flat):
        target = target.astype(str)
    if target.shape != (n,):
        raise ValueError(f"labels must be ({n},), one for each picture, got {target.shape}")
    numbers, names, problems = _names(target, classes)
    dataset = Dataset(
        name,
        names,
        content,
        numbers,
        _parts(split, n),
        None if group is None else number_groups(_row("group", group, n).astype(str).tolist()),
        _weights(weight, n),
        tuple(problems),
    )
    return join_parts(dataset)


def _are_paths(pictures: Any) -> bool:
    return not isinstance(pictures, np.ndarray) and len(pictures) > 0 and all(isinstance(p, Path) for p in pictures)


def _row(what: str, values: ArrayLike, n: int) -> NDArray[Any]:
    row = np.asarray(values)
    if row.shape != (n,):
        raise ValueError(f"{what} must be ({n},), one for each picture, got {row.shape}")
    return row


def _names(target: NDArray[Any], classes: ArrayLike | None) -> tuple[NDArray[np.int64], tuple[str, ...], list[Any]]:
    """Labels as numbers, the class names, and problems with the names."""
    if target.dtype.kind in "US":
        return name_classes(np.strings.decode(target).tolist() if target.dtype.kind == "S" else target.tolist())
    if target.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers or class names, got {target.dtype}")
    if classes is None:
        occurring, numbers = np.unique(target, return_inverse=True)
        return numbers.astype(np.int64), tuple(str(number) for number in occurring), []
    listed = np.asarray(classes)
    if listed.ndim != 1 or listed.dtype.kind not in "US":
        raise TypeError(f"classes must be a row of names, got {listed.dtype} {listed.shape}")
    names = tuple(str(name) for name in (np.strings.decode(listed) if listed.dtype.kind == "S" else listed))
    wrong = np.flatnonzero((target < 0) | (target >= len(names)))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"label {target[i]} of row {i} must lie in 0 … {len(names) - 1}, there are {len(names)} classes"
        )
    return target.astype(np.int64), names, []


def _parts(split: ArrayLike | None, n: int) -> tuple[Part, ...] | None:
    if split is None:
        return None
    words = [str(word) for word in _row("split", split, n)]
    for i, word in enumerate(words):
        if word.lower() not in PART_NAMES:
            raise ValueError(f"split must be train, val or test, got {word!r} in row {i}")
    return tuple(PART_NAMES[word.lower()] for word in words)


def _weights(weight: ArrayLike | None, n: int) -> NDArray[np.float64] | None:
    if weight is None:
        return None
    weights = _row("weight", weight, n)
    if weights.dtype.kind not in "fiu":
        raise TypeError(f"weight must be numbers, got {weights.dtype}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        raise ValueError(f"weight must be positive, got {weights[wrong[0]]} in row {wrong[0]}")
    return weights.astype(np.float64)


def open_npz(path: str | os.PathLike[str]) -> Dataset:
    """Open an `.npz` file of pixels.

    It holds `x_train, y_train, x_test, y_test`, or `images, labels[, classes, split, group, weight]`.

    Arrays are as for `from_arrays`. Nothing is unpickled. Other arrays are ignored.

    Args:
        path: of the file.

    Raises:
        DataError: damaged, over 2 GiB unpacked, without these arrays, or with arrays that are not as they
            must be.
    """
    shown = printable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_arrays(archive, shown)
        return _from_mapping(arrays, shown)
    except (TypeError, ValueError) as error:
        raise DataError(f"{shown}: {error}") from None
    except OSError as error:
        raise DataError(f"{shown}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{shown}: not an .npz file, or damaged ({error})") from None


def _from_mapping(arrays: Mapping[str, NDArray[Any]], shown: str) -> Dataset:
    if "images" in arrays and "labels" in arrays:
        fields = {name: arrays[name] for name in _OWN[2:] if name in arrays}
        return from_arrays(arrays["images"], arrays["labels"], **fields, name=shown)
    train, test = (as_pictures(arrays[name]) for name in ("x_train", "x_test"))
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"x_train and x_test differ in size: {train.shape[1:]} and {test.shape[1:]}")
    for part in ("train", "test"):
        if len(arrays[f"x_{part}"]) != len(arrays[f"y_{part}"]):
            raise ValueError(f"y_{part} has {len(arrays[f'y_{part}'])} rows, x_{part} has {len(arrays[f'x_{part}'])}")
    labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
    split = ["train"] * len(train) + ["test"] * len(test)
    return from_arrays(np.concatenate([train, test]), labels, split=split, name=shown)


def _read_arrays(archive: zipfile.ZipFile, shown: str) -> dict[str, NDArray[Any]]:
    """Read the arrays with the names that count. Sizes are checked before anything is unpacked."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    wanted = _OWN if {"images", "labels"} <= set(members) else _KERAS
    if wanted is _KERAS and not set(_KERAS) <= set(members):
        came = ", ".join(sorted(members)[:10]) or "none"
        raise DataError(
            f"{shown}: it must hold the arrays images, labels[, classes, split, group, weight] or "
            f"{', '.join(_KERAS)}; it holds: {came}"
        )
    infos = {name: members[name] for name in wanted if name in members}
    total = sum(info.file_size for info in infos.values())
    if total > MAX_BYTES:
        raise DataError(f"{shown}: unpacks to {total / (1 << 30):.3g} GiB; the limit is {MAX_BYTES >> 30} GiB")
    return {name: _read_array(archive, info) for name, info in infos.items()}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        shape, dtype, start = _array_header(file)
        n_bytes = info.file_size - start
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds pickled objects, which could run code; save plain arrays")
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != n_bytes:
            raise ValueError(f"{info.filename} announces {shape} {dtype} but holds {n_bytes:,} bytes")
    with archive.open(info) as file:
        array = np.lib.format.read_array(cast(Any, file), allow_pickle=False)
    return array


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Read the shape and dtype that the header announces, and its length."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format is not supported")
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()
