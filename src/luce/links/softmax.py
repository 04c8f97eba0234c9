"""softmax, log-softmax and log-sum-exp.

p_k = exp(z_k / T) / sum_j exp(z_j / T). The maximum is subtracted before anything is exponentiated, sums run in
float64 over blocks, and the corners are the limits: one +inf gives a one-hot row, j of them 1/j each, a row of -inf
zeros, a NaN makes its row NaN. Source: Bridle 1990, doi 10.1007/978-3-642-76153-9_28; for the error analysis
Blanchard, Higham & Higham 2021, doi 10.1093/imanum/draa038.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import Floats, as_rows, enter, positive
from luce.links.fused import cross_entropy_rows, inverse_temperature
from luce.threads import default_threads

_ARGMAX = "; for the limit 0 use argmax"
_SERIAL = 1 << 16  # numbers below which the kernel stays on the caller's thread anyway


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
        x: logits, real numbers of any shape with at least one dimension.
        axis: of the classes.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, float32 or float64, instead of the one that follows from `x` (integers give float64).

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `temperature` is not positive, or a shape or `axis` does not fit.

    >>> softmax([1.0, 2.0, 3.0]).round(4)
    array([0.09  , 0.2447, 0.6652])
    """
    return _map("softmax", _native.softmax, x, axis, temperature, where, out, dtype)


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
    return _map("log_softmax", _native.log_softmax, x, axis, temperature, where, out, dtype)


def logsumexp(
    x: ArrayLike,
    axis: int = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """log(sum(exp(x))) along an axis, without overflow.

    Args:
        x: real numbers of any shape with at least one dimension.
        axis: to sum over.
        where: booleans that broadcast to `x`; entries that are `False` do not count.
        keepdims: keep `axis` with length 1.
        dtype: float16, float32 or float64, instead of the one that follows from `x`. float16 is computed in float32
            and may overflow when it is rounded; `dtype=np.float32` keeps it.

    Returns:
        Array without `axis`; -inf where nothing is left to sum.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: a shape or `axis` does not fit.
    """
    gate = enter("logsumexp", x, axis, where=where, dtype=dtype)
    values = np.full(len(gate.rows), -np.inf, gate.rows.dtype)
    if gate.rows.size:
        _native.logsumexp(gate.rows, values, n_threads=_threads(gate.rows))
    with np.errstate(over="ignore"):
        return gate.restore_reduced(values, keepdims=keepdims)


@dataclass(frozen=True, slots=True)
class Softmax:
    """The softmax link: logits to probabilities on the simplex.

    Attributes:
        temperature: divides the logits, positive. dL/dz carries a factor 1 / temperature.
    """

    name: ClassVar[str] = "softmax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("Softmax", "temperature", self.temperature, _ARGMAX)

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
            target: (N,) class ids of any integer dtype, or (N, K) distributions.
            out: (N, K), where the gradient goes; it may be `logits` itself.

        Returns:
            Loss (N,) in nats, gradient (N, K) of each row's loss.

        Raises:
            TypeError, ValueError: the message names the argument, and the row of a wrong class id.
        """
        return cross_entropy_rows("Softmax.loss_and_grad", logits, target, temperature=self.temperature, out=out)


def _map(
    name: str,
    kernel: Callable[..., None],
    x: ArrayLike,
    axis: int,
    temperature: float,
    where: ArrayLike | None,
    out: NDArray[Any] | None,
    dtype: DTypeLike | None,
) -> NDArray[Any]:
    if type(temperature) is not float or temperature != 1.0:
        positive(name, "temperature", temperature, _ARGMAX)
    if where is None and dtype is None and (rows := as_rows(x, axis, out)) is not None:
        kernel(*rows, inverse_temperature(temperature, rows[0].dtype), _threads(rows[0]))
        return out if out is not None else rows[1].reshape(np.shape(x))
    gate = enter(name, x, axis, where=where, out=out, dtype=dtype)
    direct = (
        out is not None
        and gate.axis == out.ndim - 1
        and out.flags.c_contiguous
        and out.dtype == gate.rows.dtype
        and out.dtype.isnative
    )
    result = out.reshape(gate.rows.shape) if direct and out is not None else np.empty_like(gate.rows)
    if gate.rows.size:
        beta = inverse_temperature(temperature, gate.rows.dtype)
        kernel(gate.rows, result, beta=beta, n_threads=_threads(gate.rows))
    return out if direct and out is not None else gate.restore(result, out)


def _threads(rows: Floats) -> int:
    return 1 if rows.size < _SERIAL else default_threads()
