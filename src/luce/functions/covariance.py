"""Derivatives of softmax: its Jacobian, which is the Hessian of logsumexp and the covariance of a one-hot draw.

J = diag(p) - p p^T is symmetric, positive semidefinite, and J 1 = 0; products with it need no matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import as_array, checked_axis, library, positive
from luce.formulas import softmax_vjp as product
from luce.links import softmax
from luce.maps import ARGMAX


def softmax_covariance(x: ArrayLike, axis: int = -1, *, temperature: float = 1.0) -> NDArray[Any]:
    """Jacobian of `softmax` in x / temperature, at x: diag(p) - p p^T.

    Args:
        x: logits, real numbers of any shape (..., K).
        axis: of the classes.
        temperature: divides the logits, positive. The Jacobian in x itself is the result over the temperature.

    Returns:
        Array (..., K, K), the classes' axis moved to the end.

    Raises:
        TypeError, ValueError: as `softmax`.

    >>> softmax_covariance([0.0, 0.0])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    xp = library(x) or np
    p = softmax(x, axis, temperature=temperature)
    if getattr(p, "ndim", 0) == 0:
        p = xp.reshape(xp.asarray(p), (1,))
    p = xp.moveaxis(p, checked_axis("softmax_covariance", axis, p.ndim), -1)
    one: NDArray[Any] = xp.eye(p.shape[-1], dtype=p.dtype) * p[..., None] - p[..., None] * p[..., None, :]
    return one


def softmax_vjp(
    probabilities: ArrayLike,
    vector: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Product of a vector with the Jacobian of `softmax`, p (v - p.v) / temperature, without the matrix.

    The Jacobian is symmetric: this is the product from the left and from the right.

    Args:
        probabilities: (..., K), results of `softmax`.
        vector: of the same shape.
        axis: of the classes.
        temperature: that was used for `softmax`.
        out: where the result goes; it may be `vector`.

    Returns:
        Array of the shape of `probabilities`.

    Raises:
        TypeError: an argument is not of real numbers.
        ValueError: the shapes differ, or `temperature` is not positive.

    >>> softmax_vjp([0.25, 0.75], [1.0, 0.0])
    array([ 0.1875, -0.1875])
    """
    positive("softmax_vjp", "temperature", temperature, ARGMAX)
    if (xp := library(probabilities)) is not None:
        from luce import foreign

        y = product(xp, probabilities, None, vector, axis) / temperature
        return foreign.finished(xp, "softmax_vjp", y, out, None)
    p, v = as_array("softmax_vjp", probabilities), as_array("softmax_vjp", vector)
    if p.shape != v.shape:
        raise ValueError(f"softmax_vjp: vector must have the shape of probabilities, {p.shape}, got {v.shape}")
    place = checked_axis("softmax_vjp", axis, p.ndim)
    wide = np.float64 if p.dtype == np.float64 or p.dtype.kind in "iu" else np.float32
    a, b = np.atleast_1d(p).astype(wide, copy=False), np.atleast_1d(v).astype(wide, copy=False)
    result = (product(np, a, None, b, place) / wide(temperature)).reshape(p.shape)
    result = result.astype(np.float64 if p.dtype.kind in "iu" else p.dtype, copy=False)
    if out is None:
        return result
    if out.shape != result.shape or out.dtype != result.dtype:
        raise ValueError(f"softmax_vjp: out must have shape {result.shape} and dtype {result.dtype}")
    out[...] = result
    return out
