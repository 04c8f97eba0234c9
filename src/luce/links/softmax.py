"""softmax, log-softmax and log-sum-exp.

p_k = exp(z_k / T) / sum_j exp(z_j / T). The maximum is subtracted before anything is exponentiated, sums run in
float64 over blocks, and the corners are the limits: one +inf gives a one-hot row, j of them 1/j each, a row of -inf
zeros, a NaN makes its row NaN. Source: Bridle 1990, doi 10.1007/978-3-642-76153-9_28; for the error analysis
Blanchard, Higham & Higham 2021, doi 10.1093/imanum/draa038.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import NATIVE, as_array, enter, library, plain, positive
from luce.links.fused import loss_rows
from luce.maps import ARGMAX, SERIAL, Map, apply, formulas
from luce.threads import default_threads

SOFTMAX = Map("softmax", _native.softmax, formulas.softmax, formulas.softmax_vjp, member=0)
LOG_SOFTMAX = Map(
    "log_softmax", _native.log_softmax, formulas.log_softmax, formulas.log_softmax_vjp, member=0, log=True
)


def softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Probabilities proportional to exp(x / temperature).

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `temperature` is not positive, or a shape or `axis` does not fit.

    >>> softmax([1.0, 2.0, 3.0]).round(4)
    array([0.09  , 0.2447, 0.6652])
    """
    return apply(SOFTMAX, x, axis, temperature=temperature, where=where, out=out, dtype=dtype)


def log_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Logarithms of `softmax`, exact where the probability itself underflows; masked entries are -inf.

    Arguments, result and errors are those of `softmax`.
    """
    return apply(LOG_SOFTMAX, x, axis, temperature=temperature, where=where, out=out, dtype=dtype)


def logsumexp(
    x: ArrayLike,
    axis: int = -1,
    *,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """log(sum(weights * exp(x))) along an axis, without overflow.

    Args:
        x: real numbers of any shape.
        axis: to sum over.
        weights: not negative, broadcast to `x` (SciPy's `b`); 1 if not given. They are worked with in float64.
        where: booleans that broadcast to `x`; entries that are `False` do not count.
        keepdims: keep `axis` with length 1.
        dtype: of the result, instead of the one that follows from `x`. Halves are computed in float32 and may overflow
            when they are rounded; `dtype=np.float32` keeps the value.

    Returns:
        Array without `axis`; -inf where nothing is left to sum.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: a weight is negative, or a shape or `axis` does not fit.

    >>> float(logsumexp([1000.0, 1000.0], weights=[1.0, 3.0]).round(4))
    1001.3863
    """
    if (xp := library(x)) is not None:
        from luce.maps import foreign

        y: NDArray[Any] = foreign.logsumexp(xp, x, axis, weights, where, keepdims, dtype)
        return y
    if weights is None and where is None and dtype is None and (short := _short(x, axis)) is not None:
        shape = np.shape(x)[:-1]
        return plain(short.reshape((*shape, 1) if keepdims else shape))
    gate = enter("logsumexp", x, axis, where=where, dtype=dtype)
    summands = gate.rows
    if weights is not None:
        logs = _log_weights(weights, gate.given, gate.axis).reshape(summands.shape)
        with np.errstate(invalid="ignore"):  # what has weight 0 is not there
            summands = np.where(np.isneginf(logs) | np.isneginf(summands), -np.inf, summands + logs)
    result = np.full(len(summands), -np.inf, summands.dtype)
    if summands.size:
        _native.logsumexp(summands, result, n_threads=1 if summands.size < SERIAL else default_threads())
    return gate.restore_reduced(result, keepdims=keepdims)


def _short(x: Any, axis: int) -> NDArray[Any] | None:
    """The short way: values of a contiguous array whose classes come last, one for each row."""
    if type(x) is not np.ndarray or not x.flags.c_contiguous or type(axis) is not int or axis not in (-1, x.ndim - 1):
        return None
    if x.dtype not in NATIVE or x.ndim == 0 or x.size == 0 or not x.flags.aligned:
        return None
    rows = x.reshape(-1, x.shape[-1])
    values: NDArray[Any] = np.empty(len(rows), x.dtype)
    _native.logsumexp(rows, values, 1.0, 1 if x.size < SERIAL else default_threads())
    return values


def _log_weights(weights: ArrayLike, shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    values = as_array("logsumexp: weights", weights).astype(np.float64)
    try:
        full = np.broadcast_to(values, shape)
    except ValueError:
        raise ValueError(f"logsumexp: weights of shape {values.shape} do not broadcast to {shape}") from None
    if not ((values >= 0) & (values < np.inf)).all():
        raise ValueError("logsumexp: weights must be finite and not negative")
    with np.errstate(divide="ignore"):
        return np.log(np.moveaxis(full.reshape(shape or (1,)), axis, -1))


@dataclass(frozen=True, slots=True)
class Softmax:
    """The softmax link: logits to probabilities on the simplex.

    Attributes:
        temperature: divides the logits, positive. dL/dz carries a factor 1 / temperature.
    """

    name: ClassVar[str] = "softmax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("Softmax", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return softmax(logits, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_softmax(logits, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cross-entropy of each row and its gradient in the logits, computed together.

        Args:
            logits: (N, K).
            target: (N,) class ids of any integer dtype, or (N, K) distributions, floating.
            out: (N, K), where the gradient goes; it may be `logits` itself.

        Returns:
            Loss (N,) in nats, gradient (N, K) of each row's loss.

        Raises:
            TypeError, ValueError: the message names the argument, and the row of a wrong class id.
        """
        return loss_rows(
            "Softmax.loss_and_grad", _native.softmax_loss, logits, target, temperature=self.temperature, out=out
        )
