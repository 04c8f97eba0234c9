"""The gate: arrays are checked here once, with messages for people; the code behind it trusts them.

What comes in decides what comes out: float32 stays float32 and float64 float64; float16 is computed in float32 and
rounded once; integers become float64. Kernels see rows: contiguous (N, K) arrays with the classes last.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Floats = NDArray[np.floating[Any]]
_NATIVE = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Gate:
    """A checked input, as rows for the kernels.

    Attributes:
        rows: (N, K) contiguous float32 or float64; masked entries are -inf. Not to be written to.
        shape: of the input with `axis` moved to the end.
        axis: not negative.
        dtype: of the result.
    """

    rows: Floats
    shape: tuple[int, ...]
    axis: int
    dtype: np.dtype[np.floating[Any]]

    def restore(self, rows: Floats, out: NDArray[Any] | None) -> NDArray[Any]:
        """Bring a result (N, K) into the form of the input: its shape, `dtype`, and `out` if given."""
        result = np.moveaxis(rows.reshape(self.shape), -1, self.axis)
        with np.errstate(over="ignore"):  # beyond the largest float16 lies infinity
            if out is None:
                return result.astype(self.dtype, copy=False)
            np.copyto(out, result, casting="same_kind")
        return out

    def restore_reduced(self, values: Floats, *, keepdims: bool) -> NDArray[Any]:
        """Bring one value per row (N,) into the form of the input without `axis`, or with it as length 1."""
        result = values.reshape(self.shape[:-1]).astype(self.dtype, copy=False)
        return np.expand_dims(result, self.axis) if keepdims else result


def enter(
    name: str,
    x: ArrayLike,
    axis: int,
    *,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> Gate:
    """Check an input and bring it into rows.

    Args:
        name: of the function, for messages.
        x: real numbers of any shape with at least one dimension.
        axis: of the classes.
        where: booleans that broadcast to `x`; `False` takes an entry out, as if it were -inf.
        out: where the result will go: the shape of `x`, the dtype of the result.
        dtype: of the result, instead of the one that follows from `x`.

    Raises:
        TypeError: `x` is not of real numbers, or `out`, `axis` or `dtype` has the wrong type.
        ValueError: a shape or `axis` does not fit.
    """
    array = _array(name, x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: needs real numbers, got dtype {array.dtype}{_hint(array)}")
    if array.ndim == 0:
        raise ValueError(f"{name}: needs an array with at least one dimension, got a single number")
    result_dtype = _result_dtype(name, array.dtype, dtype)
    place = _axis(name, axis, array.ndim)
    if out is not None:
        _check_out(name, out, array.shape, result_dtype)
    narrow = array.dtype.kind == "f" and array.dtype.itemsize <= 4 and result_dtype != np.float64
    compute: type[np.floating[Any]] = np.float32 if narrow else np.float64
    moved = np.moveaxis(array, place, -1)
    rows = np.ascontiguousarray(moved, compute).reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    if out is not None and np.may_share_memory(rows, out) and rows.ctypes.data != out.ctypes.data:
        rows = rows.copy()  # `out` overlaps `x` without being `x`: writing one would change the other
    if where is not None:
        rows = np.where(_mask(name, where, array.shape, place), rows, compute(-np.inf))
    return Gate(rows, moved.shape, place, result_dtype)


def as_rows(x: object, axis: int, out: object) -> tuple[Floats, Floats] | None:
    """The short way in: `x` and `out` (a new array if `None`) as rows (N, K), when nothing has to be converted.

    `None` for anything but contiguous float32 or float64 arrays with the classes last, `out` being `x` itself or apart
    from it; `enter` is the way in for everything, and says what is wrong.
    """
    if type(x) is not np.ndarray or x.dtype not in _NATIVE or not (x.flags.c_contiguous and x.flags.aligned):
        return None
    if x.ndim == 0 or x.size == 0 or type(axis) is not int or axis not in (-1, x.ndim - 1):
        return None
    if out is None:
        out = np.empty_like(x)
    elif out is not x:
        if type(out) is not np.ndarray or out.dtype is not x.dtype or out.shape != x.shape:
            return None
        if not out.flags.carray or np.may_share_memory(x, out):
            return None
    elif not x.flags.writeable:
        return None
    shape = (-1, x.shape[-1])
    return x.reshape(shape), out.reshape(shape)


def positive(name: str, parameter: str, value: float, hint: str = "") -> float:
    """Check a parameter that must be a positive finite number.

    Raises:
        TypeError: not a real number.
        ValueError: not positive or not finite.
    """
    result = number(name, parameter, value)
    if not 0 < result < np.inf:
        raise ValueError(f"{name}: {parameter} must be positive and finite, got {value!r}{hint}")
    return result


def number(name: str, parameter: str, value: float) -> float:
    """Check a parameter that must be a real number.

    Raises:
        TypeError: it is not.
    """
    if isinstance(value, bool | str | bytes | complex):
        raise TypeError(f"{name}: {parameter} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {parameter} must be a number, got {value!r}") from None


def _array(name: str, x: ArrayLike) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: takes no masked array; pass x.data and where=~x.mask")
    try:
        return np.asarray(x)
    except ValueError:
        raise ValueError(f"{name}: needs an array of numbers; are all rows equally long?") from None


def _result_dtype(name: str, given: np.dtype[Any], wanted: DTypeLike | None) -> np.dtype[Any]:
    if wanted is None:
        dtype = np.dtype(np.float64) if given.kind in "iu" else given.newbyteorder("=")
    else:
        dtype = np.dtype(wanted)
    if dtype not in (np.float16, np.float32, np.float64):
        what = "dtype must be" if wanted is not None else "needs"
        raise TypeError(f"{name}: {what} float16, float32 or float64, got {dtype}")
    return dtype


def _axis(name: str, axis: int, ndim: int) -> int:
    try:
        place = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name}: axis must be a whole number, got {axis!r}") from None
    if not -ndim <= place < ndim:
        raise ValueError(f"{name}: axis must lie in [{-ndim}, {ndim}) for {ndim} dimensions, got {axis}")
    return place % ndim


def _check_out(name: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype.newbyteorder("=") != dtype:
        raise ValueError(
            f"{name}: out must have shape {shape} and dtype {dtype}, got shape {out.shape} and dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{name}: out is read-only")


def _mask(name: str, where: ArrayLike, shape: tuple[int, ...], place: int) -> NDArray[np.bool_]:
    mask = np.asarray(where)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name}: where must be booleans, got dtype {mask.dtype}")
    try:
        full = np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(f"{name}: where of shape {mask.shape} does not broadcast to {shape}") from None
    moved = np.moveaxis(full, place, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def _hint(array: NDArray[Any]) -> str:
    return "; convert the booleans to numbers first" if array.dtype.kind == "b" else ""
