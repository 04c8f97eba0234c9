"""tanh and relu, as NumPy computes them, with the arguments of the family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce.arrays import checked_mask, enter, library


def tanh(
    x: ArrayLike, *, where: ArrayLike | None = None, out: NDArray[Any] | None = None, dtype: DTypeLike | None = None
) -> NDArray[Any]:
    """Hyperbolic tangent of each number, 2 sigmoid(2 x) - 1.

    Args:
        x: real numbers of any shape.
        where: booleans that broadcast to `x`; entries that are `False` get 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`, in [-1, 1].

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: a shape does not fit.

    >>> tanh([-1.0, 0.0, 1.0]).round(4)
    array([-0.7616,  0.    ,  0.7616])
    """
    return _each("tanh", np.tanh, x, where, out, dtype)


def relu(
    x: ArrayLike, *, where: ArrayLike | None = None, out: NDArray[Any] | None = None, dtype: DTypeLike | None = None
) -> NDArray[Any]:
    """max(x, 0) of each number; NaN stays NaN. Its derivative at 0 is taken as 0.

    Arguments, result and errors are those of `tanh`.

    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return _each("relu", lambda a: np.maximum(a, 0), x, where, out, dtype)


def _each(
    name: str,
    function: Callable[..., Any],
    x: Any,
    where: ArrayLike | None,
    out: NDArray[Any] | None,
    dtype: DTypeLike | None,
) -> NDArray[Any]:
    if (xp := library(x)) is not None:
        from luce.maps import foreign
        from luce.maps.formulas import choose

        z = foreign.floating(xp, name, x, dtype)
        if where is not None:
            z = choose(xp, foreign.masked(xp, name, xp.zeros_like(z), where) < 0, 0.0, z)
        y = xp.tanh(z) if name == "tanh" else choose(xp, z <= 0, 0.0, z)
        of_others: NDArray[Any] = foreign.finished(xp, name, y, out, dtype)
        return of_others
    gate = enter(name, x, -1, out=out, dtype=dtype)
    y = function(gate.rows)
    if where is not None:
        y = np.where(checked_mask(name, where, gate.given).reshape(y.shape), y, y.dtype.type(0))
    return gate.restore(y, out)
