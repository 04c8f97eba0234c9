"""Links as the native pass knows them: which kernel, with which numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce import _native
from luce.links import (
    Entmax,
    Link,
    PseudoSoftmax,
    Sigmoid,
    SMTaylor,
    SoftMargin,
    Softmax,
    Sparsemax,
    Spherical,
    Taylor,
)

Float64 = NDArray[np.float64]

SOFTMAX, TAYLOR, SPHERICAL, ENTMAX, SIGMOID = range(5)
KERNELS = (
    _native.softmax_loss,
    _native.taylor_loss,
    _native.spherical_loss,
    _native.entmax_loss,
    _native.sigmoid_loss,
)


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of a row of logits.

    Attributes:
        member: which kernel, `SOFTMAX` to `SIGMOID`.
        beta: inverse temperature.
        shape: the member's parameter.
        margin: taken off the target's divided logit.
    """

    member: int = SOFTMAX
    beta: float = 1.0
    shape: float = 0.0
    margin: float = 0.0

    @property
    def convex(self) -> bool:
        """Whether the loss is convex in the logits, so that a minimum can be proven."""
        return self.member in (SOFTMAX, ENTMAX, SIGMOID)

    @property
    def shifts(self) -> bool:
        """Whether adding a number to all logits of a row changes nothing."""
        return self.member in (SOFTMAX, ENTMAX)

    def curvature_at_zero(self, n_classes: int) -> Float64:
        """The loss's second derivative (K, K) in logits that are all 0; of Taylor and spherical, softmax's form."""
        if self.member == SIGMOID:
            return self.beta**2 / 4 * np.eye(n_classes)
        mass = float(n_classes) ** (self.shape - 2 if self.member == ENTMAX else -1.0)
        matrix: Float64 = self.beta**2 * mass * (np.eye(n_classes) - 1 / n_classes)
        return matrix


SOFTMAX_LOSS = RowLoss()


def row_loss(link: Link) -> RowLoss:
    """The row loss of a link.

    Raises:
        TypeError: not a link of `luce.links.LINKS`.
    """
    match link:
        case Softmax(t):
            return RowLoss(SOFTMAX, 1 / t)
        case PseudoSoftmax(t):
            return RowLoss(SOFTMAX, math.log(2) / t)
        case SoftMargin(temperature=t, margin=m):
            return RowLoss(SOFTMAX, 1 / t, 0.0, m)
        case Taylor(temperature=t, degree=n):
            return RowLoss(TAYLOR, 1 / t, float(n))
        case SMTaylor(temperature=t, degree=n, margin=m):
            return RowLoss(TAYLOR, 1 / t, float(n), m)
        case Spherical(temperature=t, eps=eps):
            return RowLoss(SPHERICAL, 1 / t, eps)
        case Sparsemax(temperature=t):
            return RowLoss(ENTMAX, 1 / t, 2.0)
        case Entmax(temperature=t, alpha=alpha):
            return RowLoss(ENTMAX, 1 / t, alpha)
        case Sigmoid(temperature=t):
            return RowLoss(SIGMOID, 1 / t)
    raise TypeError(f"link must be one of luce.links, such as luce.links.Softmax(), got {link!r}")
