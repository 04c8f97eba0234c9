"""SM-Taylor softmax: Taylor softmax with a soft margin.

A margin m is taken off the logit of the true class, in numerator and denominator, during training: a = z / T with
a_y = z_y / T - m, then q = taylor_softmax(a) and the loss is -log q_y. With a distribution q for a target,
a = z / T - m q. At test time there is no margin. All that is said of Taylor softmax holds; and the loss is not
monotone in the margin: where z_y / T - m lies left of the polynomial's minimum t*, a larger margin lowers the loss and
the gradient has the wrong sign. Keep m below z_y / T - t*, or start with m = 0.
Source: Banerjee et al. 2020, arXiv 2011.11538.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import not_negative, positive
from luce.links.fused import loss_rows
from luce.links.margin import with_margin
from luce.links.taylor import LOG_TAYLOR, TAYLOR, even_degree, taylor_softmax
from luce.maps import ARGMAX, apply


def sm_taylor_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    target: ArrayLike,
    degree: int = 2,
    margin: float = 0.5,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Taylor softmax of x / temperature with a margin off each row's target; for training.

    Not monotone, neither in the logits nor in the margin: see the module.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        target: class ids, of the shape of `x` without `axis`. At test time there is none: use `taylor_softmax`.
        degree: of the polynomial, even, from 2 to 10.
        margin: in units of the divided logits, not negative.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `degree` or `margin` is out of range, a class id is, or another argument does not fit.

    >>> sm_taylor_softmax([1.0, 2.0, 3.0], target=2, margin=0.5).round(4)
    array([0.177, 0.354, 0.469])
    """
    name = "sm_taylor_softmax"
    shape = even_degree(name, degree)
    return with_margin(name, TAYLOR, x, axis, target, margin, shape, temperature, where, out, dtype)


@dataclass(frozen=True, slots=True)
class SMTaylor:
    """The SM-Taylor softmax link: the margin counts in the loss, not in the probabilities. It can misbehave.

    Attributes:
        degree: of the polynomial, even, from 2 to 10.
        margin: in units of the divided logits, not negative.
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "sm_taylor"
    degree: int = 2
    margin: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        even_degree("SMTaylor", self.degree)
        not_negative("SMTaylor", "margin", self.margin)
        positive("SMTaylor", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K), without the margin."""
        return taylor_softmax(logits, degree=self.degree, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return apply(LOG_TAYLOR, logits, -1, shape=self.degree, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Negative log-likelihood with the margin of each row and its gradient, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "SMTaylor.loss_and_grad",
            _native.taylor_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            shape=self.degree,
            margin=self.margin,
        )
