"""Temperature scaling: one number that makes the confidence right on average.

probabilities = softmax(logits / temperature). The negative log-likelihood is convex in the inverse temperature, so a
bracketed root search on its derivative finds the one minimum. Source: Guo et al. 2017, arXiv 1706.04599.

Sparse links have it infinite where a true class gets 0, so theirs is Fenchel and Young's loss, of which softmax's
likelihood is a case: convex too, with the same derivative. It can be 0 for a whole range; then the highest temperature
in it is taken, the most cautious one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce.links import Link, Softmax

MIN_ROWS = 50  # with fewer rows the fitted temperature is noise: its standard error exceeds about a quarter
_LOWEST, _HIGHEST = 0.05, 20.0  # range of the temperature
_TOL = 1e-7

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: divides the logits; 1 where it was not fitted.
        n_rows: rows it was fitted on.
        loss_before: mean loss of the link at temperature 1: for softmax the negative log-likelihood in nats.
        loss_after: the same at `value`.
        note: why it was not fitted or ended at a bound, a sentence for the user; else empty.
    """

    value: float
    n_rows: int
    loss_before: float
    loss_after: float
    note: str = ""

    @property
    def fitted(self) -> bool:
        """Whether there was enough data to fit it."""
        return self.n_rows >= MIN_ROWS


def fit_temperature(
    logits: Float64, target: NDArray[np.int64], weight: Float64 | None = None, *, link: Link | None = None
) -> Temperature:
    """Find the temperature with the least loss.

    Args:
        logits: (N, K) of rows the model was not trained on.
        target: (N,) class ids.
        weight: (N,) not negative; ones without.
        link: softmax if not given, or a sparse one.

    Returns:
        The temperature within 0.05 … 20. It stays 1, with a note, for fewer than 50 rows.
    """
    logits = np.asarray(logits, np.float64)
    weight = np.ones(len(target)) if weight is None else np.asarray(weight, np.float64)
    link = link or Softmax()
    n_rows = len(target)
    if n_rows < MIN_ROWS:
        before = _loss(link, logits, target, weight, 1.0) if n_rows else math.nan
        note = f"Too little data to calibrate ({n_rows} pictures, {MIN_ROWS} needed): the temperature stays 1."
        return Temperature(1.0, n_rows, before, before, note)
    beta = _root(link, logits, target, weight)
    note = ""
    if beta in (1 / _HIGHEST, 1 / _LOWEST):
        note = (
            f"The temperature ended at the edge of its range ({1 / beta:g}): the logits say little about the classes."
        )
    before, after = (_loss(link, logits, target, weight, b) for b in (1.0, beta))
    return Temperature(1 / beta, n_rows, before, after, note)


def _loss(link: Link, logits: Float64, target: NDArray[np.int64], weight: Float64, beta: float) -> float:
    return float(np.average(link.loss_and_grad(logits * beta, target)[0], weights=weight))


def _root(link: Link, logits: Float64, target: NDArray[np.int64], weight: Float64) -> float:
    """Bisection on log beta of the derivative, mean of E_p[z] - z_y, which grows with beta."""
    above = logits - logits[np.arange(len(target)), target, None]

    def derivative(beta: float) -> float:
        return float(np.average(np.einsum("nk,nk->n", link.probabilities(logits * beta), above), weights=weight))

    low, high = -math.log(_HIGHEST), -math.log(_LOWEST)
    if derivative(1 / _HIGHEST) >= 0:
        return 1 / _HIGHEST
    if derivative(1 / _LOWEST) < 0:
        return 1 / _LOWEST
    while high - low > _TOL:
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(math.exp(middle)) < 0 else (low, middle)
    return math.exp((low + high) / 2)
