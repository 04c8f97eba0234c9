"""Read the tensors of a PyTorch weights file without PyTorch and without running anything the file says.

The file format is a sequence of pickles followed by raw numbers. Pickles can call any function; this reader lets
them name five things only, each replaced by an inert stand-in of ours, and refuses the file otherwise.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from luce.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class _Storage:
    """A named run of numbers, known before the numbers themselves are read."""

    key: str
    dtype: np.dtype[np.generic]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, numbers: NDArray[np.generic]) -> NDArray[np.generic]:
        """The tensor as a row-major array; NumPy refuses (ValueError) what reaches outside `numbers`."""
        size = numbers.itemsize
        strides = tuple(n * size for n in self.stride)
        return np.ascontiguousarray(np.ndarray(self.shape, numbers.dtype, numbers.data, self.offset * size, strides))


def _rebuild_tensor(storage: object, offset: object, shape: object, stride: object, *_unused: object) -> _Tensor:
    if not (isinstance(storage, _Storage) and isinstance(offset, int) and isinstance(shape, tuple)):
        raise pickle.UnpicklingError("a tensor is described in an unknown way")
    if not all(isinstance(n, int) and n >= 0 for n in shape) or offset < 0:
        raise pickle.UnpicklingError("a tensor has a negative size or offset")
    if not (isinstance(stride, tuple) and len(stride) == len(shape) and all(isinstance(n, int) for n in stride)):
        raise pickle.UnpicklingError("a tensor's strides do not fit its shape")
    if prod(shape) > storage.count:
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return _Tensor(storage, offset, shape, stride)


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "DoubleStorage"): np.dtype("<f8"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that can name nothing but the entries of `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}") from None

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as count, None) if count >= 0:
                return _Storage(key, dtype, count)
        raise pickle.UnpicklingError("it refers to an unknown kind of object")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    """Read the state dict of a PyTorch weights file in the sequential format (PyTorch up to 1.5).

    Args:
        path: the `.pth` file.

    Returns:
        Name to array, little-endian float32, float64 or int64, in the order of the file.

    Raises:
        ModelError: the file is damaged, of another format, or asks for anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except ModelError as error:
        raise ModelError(f"{os.fspath(path)}: refused as a weights file: {error}") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as error:
        # What a hostile pickle can provoke; MemoryError and OSError stay what they are.
        reason = str(error) or type(error).__name__
        raise ModelError(f"{os.fspath(path)}: refused as a weights file: {reason}") from None


def _read(file: BinaryIO, size: int) -> dict[str, NDArray[np.generic]]:
    if file.read(4) == b"PK\x03\x04":
        raise ModelError("it is in PyTorch's zip format; only the older sequential format is read")
    file.seek(0)
    if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
        raise ModelError("it does not begin like a PyTorch weights file")
    system = _load(file)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise ModelError("its byte order is not little-endian")
    state = _load(file)
    keys = _load(file)
    if not (isinstance(state, dict) and isinstance(keys, list)):
        raise ModelError("it does not hold a dict of tensors")
    tensors = {name: t for name, t in state.items() if isinstance(name, str) and isinstance(t, _Tensor)}
    if len(tensors) != len(state):
        raise ModelError("it holds something else than named tensors")
    storages = {t.storage.key: t.storage for t in tensors.values()}
    data = {key: _read_storage(file, storages[key], size) for key in keys}
    return {name: t.view(data[t.storage.key]) for name, t in tensors.items()}


def _load(file: BinaryIO) -> object:
    return _TensorUnpickler(file).load()


def _read_storage(file: BinaryIO, storage: _Storage, size: int) -> NDArray[np.generic]:
    count = int.from_bytes(file.read(8), "little")
    n_bytes = storage.count * storage.dtype.itemsize
    if count != storage.count or file.tell() + n_bytes > size:
        raise ModelError("it is truncated or its sizes disagree")
    return np.frombuffer(file.read(n_bytes), storage.dtype)
