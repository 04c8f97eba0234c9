"""Spherical softmax: the square of each logit.

p_k = ((z_k / T)^2 + eps) / sum_j ((z_j / T)^2 + eps). The sign of a logit is ignored, so the class with the largest
|z| wins; the gradient is 0 at z = 0, so heads that start at zero do not train; the steepest step, 1 / sqrt(eps), is at
|z| = sqrt(eps). Rows whose squares would overflow are divided by their largest number first.
Source: de Brebisson & Vincent 2015, arXiv 1511.05042, which tunes eps without naming a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import positive
from luce.links.fused import loss_rows
from luce.maps import ARGMAX, Map, apply, formulas

SPHERICAL = Map(
    "spherical_softmax",
    _native.spherical,
    formulas.spherical,
    formulas.ratio_vjp(formulas.spherical_ratio, log=False),
    member=2,
)
LOG_SPHERICAL = Map(
    "log_spherical_softmax",
    _native.log_spherical,
    formulas.log_spherical,
    formulas.ratio_vjp(formulas.spherical_ratio, log=True),
    member=2,
    log=True,
)


def spherical_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    eps: float = 1e-3,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Probabilities proportional to (x / temperature)^2 + eps.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        eps: positive, in units of a squared logit.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `eps` or `temperature` is not positive, or a shape or `axis` does not fit.

    >>> spherical_softmax([1.0, 2.0, 3.0]).round(4)
    array([0.0715, 0.2857, 0.6428])
    """
    shape = positive("spherical_softmax", "eps", eps)
    return apply(SPHERICAL, x, axis, shape=shape, temperature=temperature, where=where, out=out, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Spherical:
    """The spherical softmax link; it does not see the sign of a logit.

    Attributes:
        eps: positive, in units of a squared logit.
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "spherical"
    eps: float = 1e-3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("Spherical", "eps", self.eps)
        positive("Spherical", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return spherical_softmax(logits, eps=self.eps, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return apply(LOG_SPHERICAL, logits, -1, shape=self.eps, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Negative log-likelihood of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "Spherical.loss_and_grad",
            _native.spherical_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            shape=self.eps,
        )
