"""mellowmax: a smooth maximum that is monotone and a non-expansion.

(logsumexp(omega z) - log K) / omega. Source: Asadi & Littman 2017, arXiv 1612.05628.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_axis, enter, library, positive
from luce.maps.formulas import cast, choose, constant, largest, logsumexp, total, widened


def mellowmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    omega: float = 1.0,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """log(mean(exp(omega x))) / omega: the mean for small omega, the maximum for large.

    Its gradient is softmax(omega x). A number of -inf is not there: it does not count in the mean. Computed in float64;
    where omega times the spread of a row is below 1, from exp(t) - 1 and log(1 + t), which loses nothing as omega goes
    to 0.

    Args:
        x: real numbers of any shape.
        axis: to reduce.
        omega: positive, in units of 1 / x.
        where: booleans that broadcast to `x`; entries that are `False` do not count.
        keepdims: keep `axis` with length 1.
        dtype: of the result, instead of the one that follows from `x`.

    Returns:
        Array without `axis`; NaN where nothing is left, since there is no mean of nothing.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `omega` is not positive, or a shape or `axis` does not fit.

    >>> float(mellowmax([1.0, 2.0, 3.0]).round(4))
    2.309
    """
    positive("mellowmax", "omega", omega, "; for the limit 0 use the mean")
    if (xp := library(x)) is not None:
        of_others: NDArray[Any] = _of_others(xp, x, axis, omega, where, keepdims, dtype)
        return of_others
    gate = enter("mellowmax", x, axis, where=where, dtype=dtype)
    if not gate.rows.size:
        return gate.restore_reduced(np.full(len(gate.rows), np.nan), keepdims=keepdims)
    with np.errstate(over="ignore", invalid="ignore"):
        values = _along(np, gate.rows.astype(np.float64), -1, omega)
    return gate.restore_reduced(values, keepdims=keepdims)


def _along(xp: Any, z: Any, axis: int, omega: float) -> Any:
    """The values for the rows along an axis, which is kept with length 1."""
    there = z != -inf
    ones = choose(xp, there, 1.0, xp.zeros_like(z))
    count = total(xp, ones, axis)
    top = constant(xp, largest(xp, z, axis))  # a common shift comes back as it is
    limit = xp.abs(top) == inf
    gaps = z / 2 - choose(xp, limit, 0.0, top) / 2  # halves, so that no difference of two overflows
    half = omega * choose(xp, ~there | limit, 0.0, gaps)
    t = half + half
    some = choose(xp, count == 0, 1.0, count)
    near = xp.log1p(total(xp, xp.expm1(t), axis) / some)
    far = logsumexp(xp, choose(xp, ~there, -inf, t), axis) - xp.log(some)
    value = top + choose(xp, limit, 0.0, xp.where(largest(xp, -t, axis) < 1, near, far) / omega)
    return choose(xp, count == 0, nan, value)


def _of_others(xp: Any, x: Any, axis: int, omega: float, where: Any, keepdims: bool, dtype: Any) -> Any:
    from luce.maps import foreign

    name = "mellowmax"
    place = checked_axis(name, axis, x.ndim)
    given = foreign.floating(xp, name, x, dtype)
    z = widened(xp, foreign.masked(xp, name, given, where))
    kept = tuple(1 if i == place else n for i, n in enumerate(z.shape))
    y = xp.full(kept, nan, dtype=z.dtype) if 0 in z.shape else _along(xp, xp.reshape(z, z.shape or (1,)), place, omega)
    y = xp.reshape(y, kept if keepdims else kept[:place] + kept[place + 1 :])
    return foreign.finished(xp, name, cast(xp, y, given.dtype), None, dtype)
