"""Taylor softmax: the exponential replaced by its Taylor polynomial of an even degree.

p_k = f_n(z_k / T) / sum_j f_n(z_j / T), f_n(t) = sum of t^i / i! for i = 0 ... n. Only even n keep f_n positive. It is
not invariant to shifts and **not monotone**: f_n has a minimum at t* (-1, -1.5961, -2.1806, -2.7590, -3.3336 for n = 2,
4, ..., 10) and rises again to its left, so a very negative logit can win, and a true logit left of t* is pushed the
wrong way by training. Start heads with small weights, and predict from the probabilities. Evaluated by Horner's rule;
near t* cancellation costs up to 3 digits at degree 10. The gradient is that of the polynomial itself.
Sources: de Brebisson & Vincent 2015, arXiv 1511.05042; Banerjee et al. 2020, arXiv 2011.11538.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import number, positive
from luce.links.fused import loss_rows
from luce.maps import ARGMAX, Map, apply, formulas

HIGHEST = 10  # cancellation near the minimum grows with the degree

TAYLOR = Map(
    "taylor_softmax", _native.taylor, formulas.taylor, formulas.ratio_vjp(formulas.taylor_ratio, log=False), member=1
)
LOG_TAYLOR = Map(
    "log_taylor_softmax",
    _native.log_taylor,
    formulas.log_taylor,
    formulas.ratio_vjp(formulas.taylor_ratio, log=True),
    member=1,
    log=True,
)


def even_degree(name: str, degree: int) -> int:
    """Check a degree of the Taylor polynomial.

    Raises:
        TypeError: no number.
        ValueError: not even, or not from 2 to 10.
    """
    n = number(name, "degree", degree)
    if n not in range(2, HIGHEST + 1, 2):
        raise ValueError(
            f"{name}: degree must be an even whole number from 2 to {HIGHEST}, got {degree!r}; "
            "odd polynomials become negative"
        )
    return int(n)


def taylor_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    degree: int = 2,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Probabilities proportional to the Taylor polynomial of exp at x / temperature.

    Not monotone and not invariant to shifts, see the module.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        degree: of the polynomial, even, from 2 to 10.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `degree` is odd or out of range, or another argument does not fit.

    >>> taylor_softmax([1.0, 2.0, 3.0]).round(4)
    array([0.1562, 0.3125, 0.5312])
    """
    shape = even_degree("taylor_softmax", degree)
    return apply(TAYLOR, x, axis, shape=shape, temperature=temperature, where=where, out=out, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Taylor:
    """The Taylor softmax link. It can misbehave: see the module.

    Attributes:
        degree: of the polynomial, even, from 2 to 10.
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "taylor"
    degree: int = 2
    temperature: float = 1.0

    def __post_init__(self) -> None:
        even_degree("Taylor", self.degree)
        positive("Taylor", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return taylor_softmax(logits, degree=self.degree, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return apply(LOG_TAYLOR, logits, -1, shape=self.degree, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Negative log-likelihood of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "Taylor.loss_and_grad",
            _native.taylor_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            shape=self.degree,
        )
