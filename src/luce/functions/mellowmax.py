"""mellowmax: a smooth maximum that is monotone and a non-expansion.

(logsumexp(omega z) - log K) / omega. Source: Asadi & Littman 2017, arXiv 1612.05628.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import enter, library, positive
from luce.links import logsumexp


def mellowmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    omega: float = 1.0,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """log(mean(exp(omega x))) / omega: the mean for small omega, the maximum for large. Its gradient is softmax(omega x).

    Computed in float64; where omega times the spread of a row is below 1, from exp(t) - 1 and log(1 + t) about the mean,
    which loses nothing as omega goes to 0.

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
        return _of_others(xp, x, axis, omega, where, keepdims, dtype)
    gate = enter("mellowmax", x, axis, where=where, dtype=dtype)
    z = gate.rows.astype(np.float64)
    there = ~np.isneginf(z) if where is not None else np.ones(z.shape, bool)
    count = there.sum(axis=1)
    safe = np.where(there & np.isfinite(z), z, 0)
    mean = (safe.sum(axis=1) / np.maximum(count, 1))[:, None]
    centred = np.where(there, z - mean, -np.inf)
    spread = np.abs(np.where(there, centred, 0)).max(axis=1, initial=0)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.log1p((np.expm1(omega * np.where(there, centred, 0)) * there).sum(axis=1) / np.maximum(count, 1))
        far = logsumexp(omega * centred) - np.log(np.maximum(count, 1))
    value = mean[:, 0] + np.where(omega * spread < 1, near, far) / omega
    return gate.restore_reduced(np.where(count == 0, np.nan, value), keepdims=keepdims)


def _of_others(xp: Any, x: Any, axis: int, omega: float, where: Any, keepdims: bool, dtype: Any) -> Any:
    from luce import foreign

    z = foreign.floating(xp, "mellowmax", x)
    ones = foreign.masked(xp, "mellowmax", xp.zeros_like(z), where)
    centre = xp.mean(z, axis=axis, keepdims=True)
    y = logsumexp((z - centre) * omega, axis, where=where, keepdims=True) - logsumexp(ones, axis, keepdims=True)
    y = centre + y / omega
    y = y if keepdims else xp.squeeze(y, axis)
    return foreign.finished(xp, "mellowmax", y, None, dtype)
