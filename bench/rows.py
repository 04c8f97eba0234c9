"""What rows of results should be: the formulas once more in float64, and how far a result lies from them.

The bounds beside the errors are those of tests/tolerances.py; a function without an entry in `BOUNDS` shows none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import tolerances

Rows = NDArray[np.float64]
Bound = Callable[[Decimal, float, float], Decimal]

SAMPLE = 20_000  # entries that are looked at
EPS = 1e-3  # of the spherical softmax
MARGIN = 0.5

# (function, whether its gradient): bound at an entry with this probability, target and distance from the largest logit.
BOUNDS: dict[tuple[str, bool], Bound] = {
    ("softmax", False): lambda p, y, gap: tolerances.softmax(p, gap, 1.0, np.float32),
    ("softmax", True): lambda p, y, gap: tolerances.gradient(p, y, gap, 1.0, np.float32),
}


def exponential(a: Rows) -> tuple[Rows, Rows]:
    w = np.exp(a - a.max(axis=1, keepdims=True))
    return w, w


def taylor(a: Rows) -> tuple[Rows, Rows]:
    return 1 + a + a * a / 2, 1 + a


def spherical(a: Rows) -> tuple[Rows, Rows]:
    return a * a + EPS, 2 * a


# Members whose probabilities are weights over their sum: weights with their derivatives, and the margin.
WEIGHTED: dict[str, tuple[Callable[[Rows], tuple[Rows, Rows]], float]] = {
    "softmax": (exponential, 0.0),
    "taylor": (taylor, 0.0),
    "soft_margin": (exponential, MARGIN),
    "sm_taylor": (taylor, MARGIN),
    "spherical": (spherical, 0.0),
}


def sparsemax(z: Rows) -> Rows:
    u = -np.sort(-z, axis=1)
    taus = (np.cumsum(u, axis=1) - 1) / np.arange(1, z.shape[1] + 1)
    p: Rows = np.maximum(z - last_below(taus, u), 0)
    return p


def entmax15(z: Rows) -> Rows:
    x = (z - z.max(axis=1, keepdims=True)) / 2
    u, k = -np.sort(-x, axis=1), np.arange(1, x.shape[1] + 1)
    mean, mean_of_squares = np.cumsum(u, axis=1) / k, np.cumsum(u * u, axis=1) / k
    spread = (1 - k * (mean_of_squares - mean**2)) / k
    taus = mean - np.sqrt(np.maximum(spread, 0))
    root: Rows = np.maximum(x - last_below(taus, u), 0)
    return root * root


def last_below(taus: Rows, u: Rows) -> Rows:
    """The threshold of the support: the last one that its own logit (in descending order) still exceeds."""
    return np.take_along_axis(taus, (taus < u).sum(axis=1, keepdims=True) - 1, axis=1)


THRESHOLDED = {"sparsemax": sparsemax, "entmax15": entmax15}


def truth(function: str, z: Rows, y: Rows, *, gradient: bool) -> Rows:
    """Probabilities, or the gradient of the negative log-likelihood, for logits and one-hot targets (or zeros)."""
    if function in THRESHOLDED:
        return THRESHOLDED[function](z)
    weights, margin = WEIGHTED[function]
    w, slope = weights(z - margin * y)
    total = w.sum(axis=1, keepdims=True)
    result: Rows = slope / total - y * slope / w if gradient else w / total
    return result


def error(
    function: str,
    result: NDArray[np.float32],
    logits: NDArray[np.float32],
    classes: NDArray[Any] | None = None,
    *,
    gradient: bool = False,
) -> str:
    """The largest error on a sample of rows; where there is a bound, the error that comes closest to it, and it."""
    n, k = logits.shape
    chosen = np.sort(np.random.default_rng(1).choice(n, min(n, max(1, SAMPLE // k)), replace=False))
    z, y = logits[chosen].astype(np.float64), np.zeros((len(chosen), k))
    if classes is not None:
        np.put_along_axis(y, classes[chosen, None], 1.0, axis=1)
    errors = np.abs(result[chosen] - truth(function, z, y, gradient=gradient))
    bound = BOUNDS.get((function, gradient))
    if bound is None:
        return f"{errors.max():.1e}"
    p, gap = truth(function, z, y, gradient=False), z.max(axis=1, keepdims=True) - z
    step = max(1, errors.size // SAMPLE)
    entries = zip(*(a.ravel()[::step].tolist() for a in (errors, p, y, gap)), strict=True)
    pairs = [(e, float(bound(Decimal(p_k), y_k, gap_k))) for e, p_k, y_k, gap_k in entries]
    worst, limit = max(pairs, key=lambda pair: pair[0] / pair[1])
    return f"{worst:.1e} of {limit:.1e}"
