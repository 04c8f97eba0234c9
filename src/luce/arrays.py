"""The gate: arrays are checked here once, with messages for people; the code behind it trusts them.

What comes in decides what comes out: float32 stays float32 and float64 float64; float16 and bfloat16 are computed in
float32 and rounded once; integers become float64. A single number is a row of one class. Kernels see rows: contiguous
(N, K) arrays with the classes last; or slabs (M, K, S) where the classes lie S numbers apart.
"""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Floats = NDArray[np.floating[Any]]
_NOT_FOREIGN = (np.ndarray, np.generic, float, int, list, tuple)  # a tuple, which torch.compile can follow
NATIVE = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Gate:
    """A checked input, as rows for the kernels.

    Attributes:
        rows: (N, K) contiguous float32 or float64; masked entries are -inf. Not to be written to.
        shape: of the input with `axis` moved to the end.
        given: shape of the input.
        axis: not negative.
        dtype: of the result.
    """

    rows: Floats
    shape: tuple[int, ...]
    given: tuple[int, ...]
    axis: int
    dtype: np.dtype[Any]

    def restore(self, rows: Floats, out: NDArray[Any] | None) -> NDArray[Any]:
        """Bring a result (N, K) into the form of the input: its shape, `dtype`, and `out` if given."""
        result = np.moveaxis(rows.reshape(self.shape), -1, self.axis).reshape(self.given)
        with np.errstate(over="ignore"):  # beyond the largest float16 lies infinity
            if out is None:
                return plain(result.astype(self.dtype, copy=False))
            np.copyto(out, result, casting="unsafe")  # `enter` has checked that it is of `dtype`
        return out

    def restore_reduced(self, values: Floats, *, keepdims: bool) -> NDArray[Any]:
        """Bring one value per row (N,) into the form of the input without `axis`, or with it as length 1."""
        with np.errstate(over="ignore"):
            result = values.reshape(self.shape[:-1]).astype(self.dtype, copy=False)
        return plain(np.expand_dims(result, self.axis) if keepdims and self.given else result)


def plain(result: NDArray[Any]) -> NDArray[Any]:
    """What NumPy returns where nothing is left to index: a number."""
    number: NDArray[Any] = result[()]
    return number


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
        x: real numbers of any shape.
        axis: of the classes.
        where: booleans that broadcast to `x`; `False` takes an entry out, as if it were -inf.
        out: where the result will go: the shape of `x`, the dtype of the result.
        dtype: of the result, instead of the one that follows from `x`.

    Raises:
        TypeError: `x` is not of real numbers, or `out`, `axis` or `dtype` has the wrong type.
        ValueError: a shape or `axis` does not fit.
    """
    array = as_array(name, x)
    result_dtype = _result_dtype(name, array.dtype, dtype)
    given = array.shape
    place = checked_axis(name, axis, array.ndim)
    if out is not None:
        _check_out(name, out, given, result_dtype)
    narrow = _is_floating(array.dtype) and array.dtype.itemsize <= 4 and result_dtype != np.float64
    compute: type[np.floating[Any]] = np.float32 if narrow else np.float64
    moved = np.moveaxis(array if given else array.reshape(1), place, -1)
    rows = np.require(moved, compute, ["C", "A"]).reshape(math.prod(moved.shape[:-1]), moved.shape[-1])
    if out is not None and np.may_share_memory(rows, out) and rows.ctypes.data != out.ctypes.data:
        rows = rows.copy()  # `out` overlaps `x` without being `x`: writing one would change the other
    if where is not None:
        mask = np.moveaxis(checked_mask(name, where, given).reshape(given or (1,)), place, -1)
        rows = np.where(mask.reshape(rows.shape), rows, compute(-np.inf))
    return Gate(rows, moved.shape, given, place, result_dtype)


def as_rows(x: object, axis: int, out: object) -> tuple[Floats, Floats] | None:
    """The short way in: `x` and `out` (a new array if `None`) as rows or slabs, when nothing has to be converted.

    `None` for anything but float32 or float64 arrays that are contiguous (in C's or Fortran's order), `out` being `x`
    itself or apart from it; `enter` is the way in for everything, and says what is wrong.
    """
    if type(x) is not np.ndarray or x.dtype not in NATIVE or type(axis) is not int:
        return None
    flags, ndim = x.flags, x.ndim
    if ndim == 0 or x.size == 0 or not flags.aligned or not -ndim <= axis < ndim:
        return None
    if out is None:
        out = np.empty_like(x)
    elif out is not x:
        if type(out) is not np.ndarray or out.dtype is not x.dtype or out.shape != x.shape:
            return None
        if not out.flags.behaved or out.strides != x.strides or np.may_share_memory(x, out):
            return None
    elif not flags.writeable:
        return None
    if not flags.c_contiguous:
        if not flags.f_contiguous:
            return None
        x, out, axis = x.T, out.T, ~axis
    if axis in (-1, ndim - 1):
        shape: tuple[int, ...] = (-1, x.shape[-1])
    else:
        shape = (math.prod(x.shape[:axis]), x.shape[axis], -1)
    return x.reshape(shape), out.reshape(shape)


def library(x: object) -> Any:
    """The array library that `x` belongs to, where that is not NumPy: torch, or the namespace of the array API."""
    if isinstance(x, _NOT_FOREIGN):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch
    namespace = None if isinstance(x, type) else getattr(x, "__array_namespace__", None)
    return None if namespace is None else namespace()


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


def not_negative(name: str, parameter: str, value: float) -> float:
    """Check a parameter that must be a finite number of at least 0.

    Raises:
        TypeError: not a real number.
        ValueError: negative or not finite.
    """
    result = number(name, parameter, value)
    if not 0 <= result < np.inf:
        raise ValueError(f"{name}: {parameter} must be finite and not negative, got {value!r}")
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
    except OverflowError:
        raise ValueError(f"{name}: {parameter} is too large a number") from None


def as_array(name: str, x: ArrayLike) -> NDArray[Any]:
    """Real numbers as an array of their dtype.

    Raises:
        TypeError, ValueError: they are not.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: takes no masked array; pass x.data and where=~x.mask")
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{name}: needs an array of numbers; are all rows equally long?") from None
    if array.dtype.kind not in "iu" and not _is_floating(array.dtype):
        hint = "; convert the booleans to numbers first" if array.dtype.kind == "b" else ""
        raise TypeError(f"{name}: needs real numbers, got dtype {array.dtype}{hint}")
    return array


def shape_of(name: str, x: Any) -> tuple[int, ...]:
    """The shape of what is to be an array.

    Raises:
        TypeError, ValueError: it is none of real numbers.
    """
    return tuple(x.shape) if library(x) is not None else as_array(name, x).shape


def checked_axis(name: str, axis: int, ndim: int) -> int:
    """An axis as a number that is not negative; a single number has one axis.

    Raises:
        TypeError: it is no whole number.
        ValueError: it lies outside.
    """
    ndim = max(ndim, 1)
    try:
        place = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name}: axis must be a whole number, got {axis!r}") from None
    if not -ndim <= place < ndim:
        raise ValueError(f"{name}: axis must lie in [{-ndim}, {ndim}) for {ndim} dimensions, got {axis}")
    return place % ndim


def checked_mask(name: str, where: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Booleans, broadcast to a shape.

    Raises:
        TypeError: they are none.
        ValueError: they do not broadcast.
    """
    try:
        mask = np.asarray(where)
    except ValueError:
        raise ValueError(f"{name}: where must be an array of booleans; are all rows equally long?") from None
    if mask.dtype != np.bool_:
        raise TypeError(f"{name}: where must be booleans, got dtype {mask.dtype}")
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(f"{name}: where of shape {mask.shape} does not broadcast to {shape}") from None


def rows_of_numbers(
    name: str, parameter: str, values: NDArray[Any], shape: tuple[int, ...], axis: int, *, least: float
) -> NDArray[np.float64]:
    """One number for each row (N,) of an array, from what broadcasts to it with the axis of length 1.

    Raises:
        ValueError: it does not, or a number is below `least` or not finite.
    """
    reduced = [1 if i == axis % max(len(shape), 1) else n for i, n in enumerate(shape or (1,))]
    try:
        full = np.broadcast_to(values, reduced)
    except ValueError:
        raise ValueError(
            f"{name}: {parameter} of shape {values.shape} does not broadcast to {tuple(reduced)}"
        ) from None
    if not ((full >= least) & (full < np.inf)).all():
        raise ValueError(f"{name}: {parameter} must be at least {least:g} and finite")
    return np.ascontiguousarray(full, np.float64).reshape(-1)


def _is_floating(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"  # NumPy does not know the kind of ml_dtypes' types


def _result_dtype(name: str, given: np.dtype[Any], wanted: DTypeLike | None) -> np.dtype[Any]:
    if wanted is None:
        dtype = np.dtype(np.float64) if given.kind in "iu" else given
    elif isinstance(wanted, str) and wanted == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        try:
            dtype = np.dtype(wanted)
        except TypeError:
            raise TypeError(f"{name}: dtype must be float16, bfloat16, float32 or float64, got {wanted!r}") from None
    if dtype.name == "bfloat16":
        return dtype
    dtype = dtype.newbyteorder("=")
    if dtype not in (np.float16, np.float32, np.float64):
        what = "dtype must be" if wanted is not None else "needs"
        raise TypeError(f"{name}: {what} float16, bfloat16, float32 or float64, got {dtype}")
    return dtype


def _check_out(name: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out must be a NumPy array, got {type(out).__name__}")
    same = out.dtype == dtype or (dtype.kind == "f" and out.dtype.newbyteorder("=") == dtype)
    if out.shape != shape or not same:
        raise ValueError(
            f"{name}: out must have shape {shape} and dtype {dtype}, got shape {out.shape} and dtype {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError(f"{name}: out is read-only")
