"""Softmax regression as it is written down, in NumPy and float64: what the native passes and the solver must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.regression import Penalty, RowLoss, Rows, mean_and_deviation
from luce.regression.row_loss import ENTMAX, SIGMOID, SOFTMAX, SPHERICAL, TAYLOR

Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]


def blobs(n: int, d: int, k: int, seed: int = 0) -> tuple[Float64, Ids]:
    """Rows around one centre for each class; each class occurs."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    return rng.normal(size=(k, d))[y] + rng.normal(size=(n, d)), y


def rows_of(
    x: NDArray[Any],
    target: NDArray[Any],
    weight: Float64 | None = None,
    *,
    loss: RowLoss | None = None,
    intercept: bool = True,
    n_classes: int = 0,
    n_threads: int = 1,
) -> tuple[Rows, Float64]:
    """The data of a solve, in float64, and the features' deviations."""
    weight = np.ones((len(x), 1)) if weight is None else weight
    weight = weight / weight.sum(axis=0)
    center, deviation = mean_and_deviation(x, weight.mean(axis=1))
    k = n_classes or (target.shape[1] if target.ndim == 2 else int(target.max()) + 1)
    return Rows(x, target, weight, center, k, loss or RowLoss(), intercept, n_threads), deviation


def distributions_of(target: NDArray[Any], k: int) -> Float64:
    """Class ids as distributions; distributions as they are."""
    return np.eye(k)[target] if target.ndim == 1 else target.astype(np.float64)


def entmax(a: Float64, alpha: float) -> Float64:
    """Probabilities ((alpha - 1) a - tau) ** (1 / (alpha - 1)) where positive; tau by bisection."""
    s = (alpha - 1) * a
    low, high = s.max(axis=1, keepdims=True) - 1, s.max(axis=1, keepdims=True)
    for _ in range(80):
        tau = (low + high) / 2
        above = (np.maximum(s - tau, 0) ** (1 / (alpha - 1))).sum(axis=1, keepdims=True) >= 1
        low, high = np.where(above, tau, low), np.where(above, high, tau)
    p = np.maximum(s - low, 0) ** (1 / (alpha - 1))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def tsallis(p: Float64, alpha: float) -> Float64:
    """Entropy of each row."""
    return np.asarray((p - p**alpha).sum(axis=1) / (alpha * (alpha - 1)))


def taylor(a: Float64, degree: int) -> Float64:
    """The Taylor polynomial of exp."""
    term, total = np.ones_like(a), np.ones_like(a)
    for i in range(1, degree + 1):
        term = term * a / i
        total = total + term
    return total


def row_losses(loss: RowLoss, z: Float64, q: Float64) -> tuple[Float64, Float64]:
    """Loss (N,) and gradient in the logits (N, K) of rows with targets q (N, K)."""
    a = loss.beta * z - loss.margin * q
    if loss.member == SOFTMAX:
        top = a.max(axis=1, keepdims=True)
        log_p = a - top - np.log(np.exp(a - top).sum(axis=1, keepdims=True))
        return -(q * log_p).sum(axis=1), loss.beta * (np.exp(log_p) * q.sum(axis=1, keepdims=True) - q)
    if loss.member == SIGMOID:
        return (np.logaddexp(0, a) - q * a).sum(axis=1), loss.beta * (0.5 + 0.5 * np.tanh(a / 2) - q)
    if loss.member == ENTMAX:
        p = entmax(a, loss.shape)
        value = tsallis(p, loss.shape) - tsallis(q, loss.shape) + ((p - q) * a).sum(axis=1)
        return value, loss.beta * (p - q)
    if loss.member == TAYLOR:
        f, slope = taylor(a, int(loss.shape)), taylor(a, int(loss.shape) - 1)
    else:
        assert loss.member == SPHERICAL
        f, slope = a * a + loss.shape, 2 * a
    total = f.sum(axis=1, keepdims=True)
    value = (q * (np.log(total) - np.log(f))).sum(axis=1)
    return value, loss.beta * (slope / total * q.sum(axis=1, keepdims=True) - q * slope / f)


def mean_loss(rows: Rows, weights: Float64, bias: Float64) -> tuple[Float64, Float64, Float64]:
    """Weighted mean loss (B,) and its gradients (B, K, D), (B, K)."""
    x = rows.features.astype(np.float64) - rows.origin
    q = distributions_of(rows.target, rows.n_classes)
    w = rows.weight.astype(np.float64)
    values, grads, biases = [], [], []
    for b in range(rows.n_problems):
        loss, grad = row_losses(rows.loss, x @ weights[b].T + bias[b], q)
        grad = grad * w[:, b, None]
        values.append(w[:, b] @ loss)
        grads.append(grad.T @ x)
        biases.append(grad.sum(axis=0) * rows.intercept)
    return np.array(values), np.array(grads), np.array(biases)


def objective(rows: Rows, penalty: Penalty, weights: Float64, bias: Float64) -> Float64:
    """Mean loss plus penalty (B,)."""
    loss, _, _ = mean_loss(rows, weights, bias)
    value: Float64 = loss + penalty.strength / 2 * np.sum((weights * penalty.scale) ** 2, axis=(1, 2))
    return value
