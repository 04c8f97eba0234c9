"""L-BFGS for several smooth convex problems at once.

Each problem keeps its own history and step; the function is evaluated for all of them together, which is what makes
a pass over shared data worth sharing. Source: Liu & Nocedal 1989, doi 10.1007/BF01589116.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Objective = Callable[[Float64], tuple[Float64, Float64]]

_MEMORY = 6  # more pairs save steps, but cost as much as they save: each is read twice a step
_ARMIJO = 1e-4
_SHORTEST_STEP = 1e-10


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the search ended.

    Attributes:
        x: (B, P).
        value: (B,).
        grad: (B, P).
        start_norm: (B,) norm of the gradient at the start.
        n_iter: number of steps.
        converged: (B,) bool.
    """

    x: Float64
    value: Float64
    grad: Float64
    start_norm: Float64
    n_iter: int
    converged: NDArray[np.bool_]


def minimize(objective: Objective, start: Float64, *, tol: float, max_iter: int, noise: float = 1e-15) -> Minimum:
    """Minimise B convex functions of P variables.

    Args:
        objective: (B, P) → values (B,) and gradients (B, P).
        start: (B, P).
        tol: a problem is done when the predicted further decrease, half the product of gradient and step, is below
            `tol` times its value.
        max_iter: greatest number of steps.
        noise: relative rounding error of the values; a predicted decrease below it cannot be had.
    """
    x = start.copy()
    value, grad = objective(x)
    start_norm = np.linalg.norm(grad, axis=1)
    history: deque[tuple[Float64, Float64, Float64]] = deque(maxlen=_MEMORY)
    done = np.zeros(len(x), bool)
    n_iter = 0
    while True:
        direction = _direction(grad, history)
        slope = np.einsum("bp,bp->b", grad, direction)
        done |= -slope / 2 <= max(tol, noise) * np.abs(value)
        if done.all() or n_iter >= max_iter:
            return Minimum(x, value, grad, start_norm, n_iter, done)
        step, new = _search(objective, x, value, direction, slope, done, noise)
        stuck = step == 0
        difference = new[1] - grad
        move = step[:, None] * direction
        curvature = np.einsum("bp,bp->b", move, difference)
        history.append((move, difference, np.where(curvature > 0, curvature, np.inf)))
        x = x + move
        value, grad = new
        n_iter += 1
        if (stuck | done).all():  # rounding noise: nothing lower is to be found
            return Minimum(x, value, grad, start_norm, n_iter, done)


def _direction(grad: Float64, history: deque[tuple[Float64, Float64, Float64]]) -> Float64:
    """The two-loop recursion, for all problems at once; a pair with infinite curvature counts for nothing."""
    q = -grad
    factors = []
    for move, difference, curvature in reversed(history):
        a = np.einsum("bp,bp->b", move, q) / curvature
        q -= a[:, None] * difference
        factors.append(a)
    if history:
        _, difference, curvature = history[-1]
        gamma = curvature / np.maximum(np.einsum("bp,bp->b", difference, difference), 1e-300)
        q *= np.where(np.isfinite(gamma), gamma, 1.0)[:, None]
    for (move, difference, curvature), a in zip(history, reversed(factors), strict=True):
        q += (a - np.einsum("bp,bp->b", difference, q) / curvature)[:, None] * move
    return q


def _search(
    objective: Objective,
    x: Float64,
    value: Float64,
    direction: Float64,
    slope: Float64,
    done: NDArray[np.bool_],
    noise: float,
) -> tuple[Float64, tuple[Float64, Float64]]:
    """Backtrack from the full step until each problem has decreased enough; a finished problem does not move."""
    step = np.where(done | (slope >= 0), 0.0, 1.0)
    while True:
        trial_value, trial_grad = objective(x + step[:, None] * direction)
        bound = value + _ARMIJO * step * slope + noise * np.abs(value)
        failed = (step > 0) & ~(trial_value <= bound)
        if not failed.any():
            return step, (trial_value, trial_grad)
        step[failed] *= 0.5
        step[step < _SHORTEST_STEP] = 0.0
