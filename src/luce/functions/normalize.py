"""Plain normalisation: each number over the sum of all. What softmax is often taken for."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, checked_mask, enter, library
from luce.maps.formulas import cast, choose, largest, total, widened


def normalize(
    x: ArrayLike,
    axis: int = -1,
    *,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Divide numbers that are not negative by their sum along an axis.

    Invariant to a common factor, not to a common shift: softmax is the opposite. Sums run in float64; numbers too large
    for it are divided by the largest first.

    Args:
        x: numbers of any shape, none negative; each row has a positive sum.
        axis: of the classes.
        where: booleans that broadcast to `x`; entries that are `False` get 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: a number is negative, a row sums to 0, or a shape or `axis` does not fit.

    >>> normalize([0.7, 3.1, 0.6]).round(4)
    array([0.1591, 0.7045, 0.1364])
    """
    if (xp := library(x)) is not None:
        of_others: NDArray[Any] = _of_others(xp, x, axis, where, out, dtype)
        return of_others
    gate = enter("normalize", x, axis, where=where, out=out, dtype=dtype)
    rows = gate.rows
    if where is not None:
        mask = checked_mask("normalize", where, gate.given).reshape(gate.given or (1,))
        there = np.moveaxis(mask, gate.axis, -1).reshape(rows.shape)
        rows = np.where(there, rows, 0)
    nothing = (rows == 0).all(axis=1) & (rows.shape[1] > 0)
    _refuse(bool((rows < 0).any()), bool((nothing if where is None else nothing & there.any(axis=1)).any()))
    result = _along(np, rows.astype(np.float64), -1) if rows.size else rows
    return gate.restore(result, out)


def _along(xp: Any, z: Any, axis: int) -> Any:
    """Divide by the sum; beside +inf nothing counts, and a row of zeros stays one."""
    top = largest(xp, z, axis)
    infinite = top == inf
    small = z / choose(xp, (top == 0) | infinite, 1.0, top)
    small = xp.where(infinite, cast(xp, z == inf, z.dtype), small)
    s = total(xp, small, axis)
    return small / choose(xp, s == 0, 1.0, s)


def _refuse(negative: bool, nothing: bool) -> None:
    if negative:
        raise ValueError("normalize: the numbers must not be negative; softmax takes any")
    if nothing:
        raise ValueError("normalize: a row sums to 0, so there is nothing to divide by; softmax takes any")


def _of_others(xp: Any, x: Any, axis: int, where: Any, out: Any, dtype: Any) -> Any:
    from luce.maps import foreign

    name = "normalize"
    place = checked_axis(name, axis, x.ndim)
    given = foreign.floating(xp, name, x, dtype)
    if 0 in x.shape:
        return foreign.finished(xp, name, given, out, dtype)
    z = widened(xp, xp.reshape(given, x.shape or (1,)))
    absent = xp.reshape(foreign.masked(xp, name, xp.zeros_like(given), where) < 0, z.shape)
    z = choose(xp, absent, 0.0, z)
    if foreign.visible(xp, z):
        _refuse(bool(xp.any(z < 0)), bool(xp.any(xp.all(z == 0, axis=place) & ~xp.all(absent, axis=place))))
    top = largest(xp, z.detach() if xp.__name__ == "torch" else z, place)  # a common factor changes nothing
    limit = top == inf
    shares = choose(xp, limit, cast(xp, z == inf, z.dtype), z / choose(xp, (top == 0) | limit, 1.0, top))
    s = total(xp, shares, place)
    y = cast(xp, xp.reshape(shares / choose(xp, s == 0, 1.0, s), x.shape), given.dtype)
    return foreign.finished(xp, name, y, out, dtype)
