"""The Fisher information of softmax regression: standard errors, and a proof of convergence without a penalty.

Coefficients are taken relative to one class, whose own are 0: (K - 1)(D + 1) parameters, the intercept last of each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from luce.regression.objective import Float64

MOST_PARAMETERS = 6000
_BLOCK_ROWS = 4096
_WORTH = 4e9  # multiply-adds that a proof is worth


def information(x: NDArray[np.generic], p: Float64, weight: Float64, reference: int) -> Float64:
    """The information about all parameters but the reference's, (K - 1) (D + 1) square.

    Args:
        x: (N, D) features.
        p: (N, K) probabilities.
        weight: (N,).
        reference: the class whose parameters are 0.
    """
    n, d = x.shape
    others = [k for k in range(p.shape[1]) if k != reference]
    m = len(others)
    total = np.zeros((m, d + 1, m, d + 1))
    for first in range(0, n, _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        rows = _with_one(x[block])
        q, w = p[block][:, others], weight[block]
        for i in range(m):
            for j in range(i, m):
                factor = w * q[:, i] * ((i == j) - q[:, j])
                total[i, :, j] += (rows * factor[:, None]).T @ rows
    for i in range(m):
        for j in range(i):
            total[i, :, j] = total[j, :, i].T
    return total.reshape(m * (d + 1), -1)


def affordable(n: int, d: int, k: int) -> bool:
    """Whether `unpenalised_gap` of so many rows, features and classes is worth its time and memory."""
    return (k - 1) * (d + 1) <= MOST_PARAMETERS and n * k * (k - 1) / 2 * (d + 1) ** 2 <= _WORTH


def unpenalised_gap(x: NDArray[np.generic], p: Float64, weight: Float64, grad: Float64) -> float:
    """Upper bound on the mean cross-entropy minus its infimum, where there is no penalty.

    Along any direction the loss's second derivative changes by at most a factor exp(-r t), r being the largest change
    of a row's logits relative to each other per unit of the information's norm (Bach 2010, doi 10.1214/09-EJS521).
    With v the norm of the gradient in the inverse information, the gap is at most
    (v r + (1 - v r) log(1 - v r)) / r² where v r < 1.

    Args:
        x: (N, D) features, centred.
        p: (N, K) probabilities.
        weight: (N,), summing to one.
        grad: (K, D + 1) of the mean loss.

    Returns:
        The bound; infinite where the information is singular (as with separable classes), or v r is not below 1/2.
    """
    n, d = x.shape
    k = p.shape[1]
    m = k - 1
    matrix = information(x, p, weight, m)
    size = np.sqrt(np.maximum(np.diag(matrix), np.finfo(np.float64).tiny))
    try:
        half = np.linalg.inv(np.linalg.cholesky(matrix / size / size[:, None]))
    except np.linalg.LinAlgError:
        return math.inf
    inverse = half.T @ half / size / size[:, None]
    flat = grad[:m].reshape(-1)
    v = math.sqrt(max(float(flat @ inverse @ flat), 0.0))
    blocks = np.zeros((k, d + 1, k, d + 1))
    blocks[:m, :, :m] = inverse.reshape(m, d + 1, m, d + 1)
    largest = 0.0
    for first in range(0, n, _BLOCK_ROWS):
        rows = _with_one(x[first : first + _BLOCK_ROWS])
        for i in range(k):
            for j in range(i):
                pair = blocks[i, :, i] + blocks[j, :, j] - blocks[i, :, j] - blocks[j, :, i]
                largest = max(largest, float(np.vecdot(rows @ pair, rows).max()))
    r = math.sqrt(largest)
    if not v * r < 0.5:
        return math.inf
    if v * r < 1e-4:  # the difference below would cancel: its series
        return v * v / 2 * (1 + v * r)
    return (v * r + (1 - v * r) * math.log1p(-v * r)) / (r * r)


def _with_one(x: NDArray[np.generic]) -> Float64:
    return np.hstack([np.asarray(x, np.float64), np.ones((len(x), 1))])
