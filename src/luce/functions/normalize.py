"""Plain normalisation: each number over the sum of all. What softmax is often taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import enter, library


def normalize(
    x: ArrayLike,
    axis: int = -1,
    *,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """x / sum(x) along an axis, for numbers that are not negative.

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
        return _of_others(xp, x, axis, where, out, dtype)
    gate = enter("normalize", x, axis, where=where, out=out, dtype=dtype)
    rows = gate.rows
    absent = np.isneginf(rows) if where is not None else np.zeros((), bool)
    rows = np.where(absent, 0, rows) if where is not None else rows
    _refuse(bool((rows < 0).any()), bool(((rows == 0).all(axis=1) & ~np.broadcast_to(absent, rows.shape).all(1)).any()))
    top = rows.max(axis=1, keepdims=True, initial=0)
    infinite = np.isinf(top)
    small = np.where(infinite, np.isinf(rows), rows / np.where((top == 0) | infinite, 1, top))
    sums = small.sum(axis=1, keepdims=True, dtype=np.float64)
    return gate.restore((small / np.where(sums == 0, 1, sums)).astype(rows.dtype), out)


def _refuse(negative: bool, nothing: bool) -> None:
    if negative:
        raise ValueError("normalize: the numbers must not be negative; softmax takes any")
    if nothing:
        raise ValueError("normalize: a row sums to 0, so there is nothing to divide by; softmax takes any")


def _of_others(xp: Any, x: Any, axis: int, where: Any, out: Any, dtype: Any) -> Any:
    from luce import foreign
    from luce.formulas import choose, total

    z = foreign.floating(xp, "normalize", x)
    if where is not None:
        z = choose(xp, foreign.masked(xp, "normalize", xp.zeros_like(z), where) < 0, 0.0, z)
    s = total(xp, z, axis)
    if not (xp.__name__ == "torch" and xp.compiler.is_compiling()):  # under torch.compile values cannot be looked at
        _refuse(bool(xp.any(z < 0)), where is None and bool(xp.any(s == 0)))
    return foreign.finished(xp, "normalize", z / choose(xp, s == 0, 1.0, s), out, dtype)
