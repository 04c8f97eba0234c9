"""Derivatives of softmax: its Jacobian, which is the Hessian of logsumexp and the covariance of a one-hot draw.

J = diag(p) - p p^T is symmetric, positive semidefinite, and J 1 = 0; products with it need no matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import checked_axis, enter, library, positive
from luce.links.softmax import softmax
from luce.maps import ARGMAX
from luce.maps.formulas import cast, choose, widened
from luce.maps.formulas import softmax_vjp as product


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
    positive("softmax_covariance", "temperature", temperature, ARGMAX)
    if (xp := library(x)) is not None:
        other: Any = x
        place = checked_axis("softmax_covariance", axis, other.ndim)
        p: Any = softmax(other, axis, temperature=temperature)
        p = p if p.ndim else xp.reshape(p, (1,))
        return _covariance(xp, xp.movedim(p, place, -1) if xp.__name__ == "torch" else xp.moveaxis(p, place, -1))
    gate = enter("softmax_covariance", x, axis)
    matrices = _covariance(np, softmax(gate.rows, temperature=temperature))
    return matrices.reshape(*gate.shape, gate.shape[-1]).astype(gate.dtype, copy=False)


def _covariance(xp: Any, p: Any) -> NDArray[Any]:
    matrices: NDArray[Any] = xp.eye(p.shape[-1], dtype=p.dtype) * p[..., None] - p[..., None] * p[..., None, :]
    return matrices


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
        out: where the result goes; it may be `probabilities` or `vector` and is returned.

    Returns:
        Array of the shape of `probabilities`, in the dtype that follows from them.

    Raises:
        TypeError: an argument is not of real numbers.
        ValueError: the shapes differ, or `temperature` is not positive.

    >>> softmax_vjp([0.25, 0.75], [1.0, 0.0])
    array([ 0.1875, -0.1875])
    """
    positive("softmax_vjp", "temperature", temperature, ARGMAX)
    if (xp := library(probabilities)) is not None:
        of_others: NDArray[Any] = _vjp_of_others(xp, probabilities, vector, axis, temperature, out)
        return of_others
    gate = enter("softmax_vjp", probabilities, axis, out=out)
    other = enter("softmax_vjp: vector", vector, axis)
    if gate.given != other.given:
        raise ValueError(f"softmax_vjp: vector must have the shape of probabilities, {gate.given}, got {other.given}")
    p = gate.rows
    v = np.where(p == 0, 0, other.rows.astype(p.dtype, copy=False))  # what cannot happen does not count
    with np.errstate(over="ignore", invalid="ignore"):
        return gate.restore((product(np, p, None, v, -1) / temperature).astype(p.dtype, copy=False), out)


def _vjp_of_others(xp: Any, probabilities: Any, vector: Any, axis: int, temperature: float, out: Any) -> Any:
    from luce.maps import foreign

    name = "softmax_vjp"
    place = checked_axis(name, axis, probabilities.ndim)
    given = foreign.floating(xp, name, probabilities)
    other = foreign.floating(xp, f"{name}: vector", foreign.own(xp, vector, given))
    if given.shape != other.shape:
        raise ValueError(
            f"{name}: vector must have the shape of probabilities, {tuple(given.shape)}, got {tuple(other.shape)}"
        )
    p = widened(xp, xp.reshape(given, given.shape or (1,)))
    v = choose(xp, p == 0, 0.0, xp.reshape(cast(xp, other, p.dtype), p.shape))  # what cannot happen does not count
    y = product(xp, p, None, v, place) / temperature
    return foreign.finished(xp, name, cast(xp, xp.reshape(y, given.shape), given.dtype), out, None)
