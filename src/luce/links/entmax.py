"""alpha-entmax and sparsemax: probabilities that can be exactly 0.

p = arg max over the simplex of p.u + H(p), u = z / T, with Tsallis' entropy H(p) = sum (p - p^alpha) /
(alpha (alpha - 1)); so p = max((alpha - 1) u - tau, 0)^(1 / (alpha - 1)). alpha = 1 is softmax, 1.5 `entmax15`,
2 `sparsemax`. tau is found among the few numbers that can be above it, without sorting, and in float64. Their loss is
Fenchel and Young's, L = H(p) - H(q) + (p - q).u with gradient (p - q) / T: never the logarithm of p, which is -inf for
many classes. The loss is exactly 0 where the true logit leads by 1 / (alpha - 1).
Sources: Martins & Astudillo 2016, arXiv 1602.02068; Peters, Niculae & Martins 2019, arXiv 1905.05702; Blondel,
Martins & Niculae 2020, arXiv 1901.02324; the gradient in alpha: Correia, Niculae & Martins 2019, arXiv 1909.00015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import as_array, checked_axis, enter, library, number, positive, rows_of_numbers
from luce.links.fused import loss_rows
from luce.maps import ARGMAX, SERIAL, Map, apply, formulas, inverse_temperature
from luce.threads import default_threads

ENTMAX = Map("entmax", _native.entmax, formulas.entmax, formulas.entmax_vjp, member=3)


def sparsemax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """The point of the simplex nearest to x / temperature; many of its entries are exactly 0.

    Arguments, result and errors are those of `softmax`.

    >>> sparsemax([-2.0, 0.0, 0.5])
    array([0.  , 0.25, 0.75])
    """
    return apply(
        ENTMAX, x, axis, name="sparsemax", shape=2.0, temperature=temperature, where=where, out=out, dtype=dtype
    )


def entmax15(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Entmax with alpha = 1.5, between softmax and sparsemax.

    Arguments, result and errors are those of `softmax`.

    >>> entmax15([-2.0, 0.0, 0.5]).round(4)
    array([0.   , 0.326, 0.674])
    """
    return apply(
        ENTMAX, x, axis, name="entmax15", shape=1.5, temperature=temperature, where=where, out=out, dtype=dtype
    )


def entmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    alpha: float | NDArray[Any] = 1.5,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """alpha-entmax of x / temperature.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        alpha: at least 1 (softmax); 2 is sparsemax. One number, or an array that broadcasts to `x` with `axis` of
            length 1: one for each row. A torch tensor has a gradient.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: an `alpha` is below 1, or another argument does not fit.

    >>> entmax([-2.0, 0.0, 0.5], alpha=1.25).round(4)
    array([0.0053, 0.3521, 0.6426])
    """
    one = isinstance(alpha, int | float)  # asked first, and tensors next: torch.compile cannot trace the last union
    if one or (library(alpha) is None and not isinstance(alpha, np.ndarray | list | tuple)):
        shape = checked_alpha("entmax", alpha)
        return apply(ENTMAX, x, axis, shape=shape, temperature=temperature, where=where, out=out, dtype=dtype)
    if (xp := library(x)) is not None:
        from luce.maps import foreign

        given = foreign.row_alphas(xp, alpha, x, axis)
        return apply(ENTMAX, x, axis, shape=given, temperature=temperature, where=where, out=out, dtype=dtype)
    gate = enter("entmax", x, axis, where=where, out=out, dtype=dtype)
    positive("entmax", "temperature", temperature, ARGMAX)
    alphas = rows_of_numbers("entmax", "alpha", as_array("entmax: alpha", alpha), gate.given, gate.axis, least=1)
    p = np.empty_like(gate.rows)
    if p.size:
        beta = inverse_temperature(temperature, p.dtype)
        _native.entmax(gate.rows, p, beta, 1 if p.size < SERIAL else default_threads(), shapes=alphas)
    return gate.restore(p, out)


def entmax_slope(
    x: ArrayLike, axis: int = -1, *, alpha: float = 1.5, temperature: float = 1.0, where: ArrayLike | None = None
) -> NDArray[Any]:
    """Derivative of each probability of `entmax` in alpha, in float64.

    Below 1.0001 it is that at 1, since the formula for the others cancels there.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        alpha: at least 1.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get 0.

    Returns:
        Array of the shape of `x`; each row sums to 0.

    Raises:
        TypeError, ValueError: as `entmax`.

    >>> entmax_slope([-2.0, 0.0, 0.5], alpha=1.5).round(4)
    array([ 0.    , -0.1239,  0.1239])
    """
    name, alpha = "entmax_slope", checked_alpha("entmax_slope", alpha)
    p = np.asarray(
        apply(ENTMAX, x, axis, name=name, shape=alpha, temperature=temperature, where=where, dtype=np.float64)
    )
    if p.size == 0:
        return p
    given, p = p.shape, np.atleast_1d(p)
    axis = checked_axis(name, axis, p.ndim)
    if alpha - 1 < 1e-4:
        slope: NDArray[Any] = formulas.softmax_slope(np, p, axis)
    else:
        nothing = p.sum(axis, keepdims=True) == 0  # has slope 0, not 0 / 0
        slope = np.where(nothing, 0.0, formulas.entmax_slope(np, np.where(nothing, 1.0, p), axis, alpha))
    return slope.reshape(given)


def checked_alpha(name: str, alpha: Any) -> float:
    """Check an alpha.

    Raises:
        TypeError: no number.
        ValueError: below 1 or not finite.
    """
    value = number(name, "alpha", alpha)
    if not 1 <= value < np.inf:
        raise ValueError(f"{name}: alpha must be at least 1 (softmax) and finite, got {alpha!r}")
    return value


@dataclass(frozen=True, slots=True)
class Entmax:
    """The alpha-entmax link, with Fenchel and Young's loss.

    Attributes:
        alpha: at least 1 (softmax); 2 is sparsemax.
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "entmax"
    alpha: float = 1.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        checked_alpha("Entmax", self.alpha)
        positive("Entmax", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return entmax(logits, alpha=self.alpha, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_of_sparse(self.probabilities(logits))

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Fenchel and Young's loss of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "Entmax.loss_and_grad",
            _native.entmax_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            shape=self.alpha,
            sums_to_one=True,
        )


@dataclass(frozen=True, slots=True)
class Sparsemax:
    """The sparsemax link, with Fenchel and Young's loss.

    Attributes:
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "sparsemax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("Sparsemax", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return sparsemax(logits, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_of_sparse(self.probabilities(logits))

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Fenchel and Young's loss of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "Sparsemax.loss_and_grad",
            _native.entmax_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            shape=2.0,
            sums_to_one=True,
        )


def log_of_sparse(p: Any) -> NDArray[Any]:
    """Logarithms of probabilities of which many are 0: -inf there."""
    with np.errstate(divide="ignore"):
        log_p: NDArray[Any] = (library(p) or np).log(p)
    return log_p
