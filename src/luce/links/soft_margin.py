"""Soft-margin softmax: softmax that has to win by a margin.

A margin m is taken off the logit of the true class, in numerator and denominator, during training: a = z / T with
a_y = z_y / T - m, then q = softmax(a) and the loss is -log q_y. With a distribution q for a target, a = z / T - m q. At
test time there is no margin: the link's probabilities are those of plain softmax. Losses with different margins cannot
be compared; trained with a margin, the plain probabilities are over-confident by design and want calibration.
Source: Liang, Wang, Lei, Liao & Li 2017, doi 10.1007/978-3-319-70096-0_43.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import not_negative, positive
from luce.links.fused import loss_rows
from luce.links.margin import with_margin
from luce.links.softmax import SOFTMAX, log_softmax, softmax
from luce.maps import ARGMAX


def soft_margin_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    target: ArrayLike,
    margin: float = 0.5,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Softmax of x / temperature with a margin off each row's target; for training.

    Args:
        x: logits, real numbers of any shape.
        axis: of the classes.
        target: class ids, of the shape of `x` without `axis`. At test time there is none: use `softmax`.
        margin: in units of the divided logits (nats), not negative.
        temperature: divides the logits, positive.
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`; each row sums to 1, or is 0 where everything is -inf or masked.

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `margin` is negative, a class id is out of range, or another argument does not fit.

    >>> soft_margin_softmax([1.0, 2.0, 3.0], target=2, margin=0.5).round(4)
    array([0.122 , 0.3315, 0.5465])
    """
    name = "soft_margin_softmax"
    return with_margin(name, SOFTMAX, x, axis, target, margin, 0.0, temperature, where, out, dtype)


@dataclass(frozen=True, slots=True)
class SoftMargin:
    """The soft-margin softmax link: the margin counts in the loss, not in the probabilities.

    Attributes:
        margin: in units of the divided logits (nats), not negative.
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "soft_margin"
    margin: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        not_negative("SoftMargin", "margin", self.margin)
        positive("SoftMargin", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K), without the margin."""
        return softmax(logits, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_softmax(logits, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cross-entropy with the margin of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "SoftMargin.loss_and_grad",
            _native.softmax_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
            margin=self.margin,
        )
