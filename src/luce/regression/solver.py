"""Softmax regression solved: the minimum of cross-entropy plus penalty, with a proof of how close it is.

The variables are scaled so that the curvature is about the same in every direction: a feature with standard
deviation s and penalty scale u bends the objective by about s² / K + penalty · u². In these variables L-BFGS needs
few steps whatever the units of the features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from luce.regression import lbfgs
from luce.regression.objective import Float64, Rows, logits, loss_and_grad

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Penalty:
    """`strength / 2 * sum((weights * scale) ** 2)`; the bias is free.

    Attributes:
        strength: at least 0, per unit of total row weight: scikit-learn's `1 / (C * N)`.
        scale: (D,) positive. Ones penalise the raw weights; the features' deviations penalise the weights of
            standardised features, which makes the penalty independent of units.
    """

    strength: float
    scale: Float64


@dataclass(frozen=True, slots=True)
class Solution:
    """The minimum of B problems.

    Attributes:
        weights: (B, K, D) float64, for raw features.
        bias: (B, K) float64, for features centred at `Rows.center`.
        value: (B,) objective including the penalty.
        n_iter: steps taken.
        converged: (B,) bool.
        relative_gradient: (B,) norm of the gradient relative to that at the start, in the scaled variables.
    """

    weights: Float64
    bias: Float64
    value: Float64
    n_iter: int
    converged: NDArray[np.bool_]
    relative_gradient: Float64

    @property
    def start(self) -> tuple[Float64, Float64]:
        """Weights and bias, to start another solve from."""
        return self.weights, self.bias


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread(function: F) -> F:
    """Run a function with a single-threaded BLAS.

    The products of a pass are small, and the rows are shared among our own threads. BLAS threads that wait for each
    other at every product make a fit several times slower as soon as another process wants a core.
    """

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        with _blas().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited  # type: ignore[return-value]  # it has the signature of the function it wraps


@one_blas_thread
def solve(
    rows: Rows,
    penalty: Penalty,
    deviation: Float64,
    *,
    start: tuple[Float64, Float64] | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> Solution:
    """Minimise weighted cross-entropy plus penalty for every problem of `rows`.

    Args:
        rows: the data of B problems.
        penalty: the same for all problems.
        deviation: (D,) standard deviation of each feature, 0 for a constant one.
        start: weights (B, K, D) and bias (B, K) to start from; zeros without.
        tol: predicted relative decrease of the objective at which to stop.
        max_iter: greatest number of steps.
    """
    n_problems, n_classes, n_features = rows.n_problems, rows.n_classes, len(deviation)
    curvature = deviation**2 / n_classes + penalty.strength * penalty.scale**2
    unit = np.where(curvature > 0, 1 / np.sqrt(np.where(curvature > 0, curvature, 1)), 0.0)
    bias_unit = np.sqrt(n_classes)
    split = n_classes * n_features

    def unpack(x: Float64) -> tuple[Float64, Float64]:
        return x[:, :split].reshape(n_problems, n_classes, n_features) * unit, x[:, split:] * bias_unit

    def objective(x: Float64) -> tuple[Float64, Float64]:
        weights, bias = unpack(x)
        loss, grad, grad_bias = loss_and_grad(rows, weights, bias)
        penalised = weights * penalty.scale
        loss += penalty.strength / 2 * np.einsum("bkd,bkd->b", penalised, penalised)
        penalised *= penalty.strength * penalty.scale
        grad += penalised
        grad *= unit
        return loss, np.concatenate([grad.reshape(n_problems, -1), grad_bias * bias_unit], axis=1)

    x = np.zeros((n_problems, split + n_classes))
    if start is not None:
        inverse = np.divide(1, unit, out=np.zeros_like(unit), where=unit > 0)
        x = np.concatenate([(start[0] * inverse).reshape(n_problems, -1), start[1] / bias_unit], axis=1)
    noise = float(np.finfo(rows.dtype).eps)
    minimum = lbfgs.minimize(objective, x, tol=tol, max_iter=max_iter, noise=noise)
    weights, bias = unpack(minimum.x)
    norm = np.linalg.norm(minimum.grad, axis=1)
    relative = np.divide(norm, minimum.start_norm, out=np.zeros_like(norm), where=minimum.start_norm > 0)
    return Solution(weights, bias, minimum.value, minimum.n_iter, minimum.converged, relative)


@one_blas_thread
def gap_bound(rows: Rows, penalty: Penalty, solution: Solution) -> float:
    """Upper bound on objective minus minimum, for one problem, from a point of the dual.

    With penalty strength c, the dual value of any class distributions q whose weighted sums over the rows equal the
    targets' is sum(w H(q)) - ||sum w (q - e) x'||² / (2 c). The probabilities at the solution are such a point
    but for the residual of the bias's gradient, which mixing with one common distribution removes. Arithmetic is
    float64.

    Args:
        rows: one problem (B = 1) whose `center` is the weighted mean of its features.
        penalty: strength must be positive for a finite bound.
        solution: of these rows and this penalty.

    Returns:
        The bound, at least 0, in units of the objective; infinite for strength 0.
    """
    if penalty.strength == 0:
        return float("inf")
    z = logits(rows, solution.weights, solution.bias)[:, 0].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(axis=1, keepdims=True)
    w = rows.weight[:, 0]
    have = w @ p
    wanted = np.bincount(rows.target, w, minlength=rows.n_classes)
    excess = np.maximum(have - wanted, 0)
    share = float(np.max(excess / np.maximum(have, 1e-300)))
    if share > 0:
        p = (1 - share) * p + np.maximum(wanted - (1 - share) * have, 0)
        p /= p.sum(axis=1, keepdims=True)
    entropy = -w @ np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)
    p[np.arange(len(p)), rows.target] -= 1
    p *= w[:, None]
    moment = _weighted_sum(rows, p) / penalty.scale
    dual = entropy - np.sum(moment**2) / (2 * penalty.strength)
    return max(float(solution.value[0] - dual), 0.0)


def _weighted_sum(rows: Rows, residual: Float64) -> Float64:
    """Sum over rows of residual (N, K) times centred features (N, D): (K, D), float64."""
    total = np.zeros((rows.n_classes, rows.features.shape[1]))
    for block in rows.blocks():
        total += residual[block].T @ (np.asarray(rows.features[block], np.float64) - rows.center)
    return total
