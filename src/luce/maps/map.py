"""Maps: one function of the family on any array there is.

A `Map` is a native kernel for NumPy arrays, the same function as a formula for arrays of other libraries, and the
product with its Jacobian for automatic differentiation. `apply` takes an array in, has it checked, and gives back one
of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import as_rows, enter, library, positive
from luce.threads import default_threads

ARGMAX = "; for the limit 0 use argmax"
SMALL = 1 << 14  # numbers up to which `_native.small` may be asked
SERIAL = 1 << 16  # numbers below which the kernels stay on the caller's thread anyway

MAPS: dict[str, Map] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A function along an axis.

    Attributes:
        name: of the public function, for messages.
        kernel: `(x, out, beta, n_threads, shape)` on rows (N, K) or slabs (M, K, S); `shape` is the member's parameter.
        formula: `(xp, z, axis, shape)`: the same by the array API's functions; z is already divided by the temperature.
        vjp: `(xp, y, z, g, axis, shape)`: g times the Jacobian in z, from the result y. Entries of z that are not
            there are 0, and so are their g and y.
        elementwise: every entry is for itself; there is no axis.
        member: the place of the member in `_native.small`, which serves small arrays, if it has one.
        log: whether it is the logarithm.
    """

    name: str
    kernel: Callable[..., None]
    formula: Callable[..., Any]
    vjp: Callable[..., Any]
    elementwise: bool = False
    member: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        MAPS[self.name] = self


def elementwise(kernel: Callable[..., None]) -> Callable[..., None]:
    """A kernel of single numbers in the form of one along an axis."""

    def run(x: NDArray[Any], out: NDArray[Any], beta: float, n_threads: int, _: float) -> None:
        kernel(x.reshape(-1), out.reshape(-1), beta, n_threads)

    return run


def apply(
    m: Map,
    x: ArrayLike,
    axis: int,
    *,
    name: str | None = None,
    shape: Any = 0.0,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    **options: Any,
) -> NDArray[Any]:
    """Apply a map to an array of any kind.

    Args:
        m: the map.
        x: logits.
        axis: of the classes.
        name: of the public function, for messages, where it is not the map's.
        shape: the member's parameter, checked.
        temperature: divides the logits.
        where: booleans that broadcast to `x`; `False` takes an entry out.
        out: where the result goes.
        dtype: of the result.
        options: further arguments of the kernel, for NumPy arrays only: they need rows.

    Raises:
        TypeError, ValueError: the message names the argument.
    """
    if (
        type(x) is np.ndarray
        and x.size <= SMALL
        and type(axis) is int
        and axis == -1
        and where is None
        and dtype is None
        and not options
        and m.member is not None
        and type(temperature) is float
    ):
        small: NDArray[Any] | None = _native.small(m.member, m.log, x, out, temperature, shape)
        if small is not None:
            return small
    if type(temperature) is not float or temperature != 1.0:
        temperature = positive(name or m.name, "temperature", temperature, ARGMAX)
    if (
        where is None
        and dtype is None
        and (rows := as_rows(x, axis, out)) is not None
        and not (options and rows[0].ndim == 3)
    ):
        given, result = rows
        threads = 1 if given.size < SERIAL else default_threads()
        m.kernel(given, result, inverse_temperature(temperature, given.dtype), threads, shape, **options)
        return out if out is not None else _like(x, result)
    if type(x) is not np.ndarray and (xp := library(x)) is not None:
        from luce.maps import foreign

        y: NDArray[Any] = foreign.apply(xp, m, name or m.name, x, axis, shape, temperature, where, out, dtype)
        return y
    gate = enter(name or m.name, x, axis, where=where, out=out, dtype=dtype)
    direct = (
        out is not None
        and gate.axis == out.ndim - 1
        and out.flags.carray
        and out.dtype == gate.rows.dtype
        and out.dtype.isnative
    )
    result = out.reshape(gate.rows.shape) if direct and out is not None else np.empty_like(gate.rows)
    if gate.rows.size:
        threads = 1 if gate.rows.size < SERIAL else default_threads()
        m.kernel(gate.rows, result, inverse_temperature(temperature, gate.rows.dtype), threads, shape, **options)
    return out if direct and out is not None else gate.restore(result, out)


def _like(x: Any, result: NDArray[Any]) -> NDArray[Any]:
    """Rows or slabs in the shape and the order of axes of what they came from."""
    if x.flags.c_contiguous:
        return result.reshape(x.shape)
    return result.reshape(x.shape[::-1]).T


def inverse_temperature(temperature: float, dtype: np.dtype[Any]) -> float:
    """1 / temperature within what `dtype` holds: past its ends 0 times infinity would give NaN."""
    if temperature == 1:
        return 1.0
    limits = np.finfo(dtype)
    return min(max(1 / temperature, float(limits.smallest_subnormal)), float(limits.max))
