"""Links as the native pass knows them: which kernel, with which numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

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

    def curvature(self, logits: NDArray[Any], weight: NDArray[Any]) -> tuple[Float64, Float64]:
        """The loss's second derivative in the logits of rows (n, K), about right.

        For softmax and entmax it is diag(s) - s s' / sum(s) with s = p ** (2 - alpha), times beta squared; Taylor and
        spherical, whose own may be negative, are given softmax's form.

        Returns:
            Its sum over the rows, weighted, (K, K), and the weighted trace of each row's, (n,).
        """
        z = np.ascontiguousarray(logits, np.float64)
        w = np.asarray(weight, np.float64) * self.beta**2
        p = np.empty_like(z)
        if self.member == SIGMOID:
            _native.sigmoid(z.reshape(-1), p.reshape(-1), self.beta, 1)
            p *= 1 - p
            return np.diag(w @ p), w * p.sum(axis=1)
        if self.member == ENTMAX:
            _native.entmax(z, p, self.beta, 1, self.shape)
            s = np.where(p > 0, p ** (2 - self.shape), 0.0)
            mass = s.sum(axis=1)
            p = s / np.sqrt(mass)[:, None]
        else:
            _native.softmax(z, p, self.beta, 1)
            s, mass = p, np.ones(1)
        matrix = np.diag(w @ s) - p.T @ (p * w[:, None])
        return (matrix + matrix.T) / 2, w * (mass - np.einsum("nk,nk->n", p, p))


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
