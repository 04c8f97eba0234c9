"""L-BFGS for several smooth convex problems at once, in a metric that the caller knows.

Each problem keeps its own history and step; the function is evaluated for all of them together, which is what makes
a pass over shared data worth sharing. Source: Liu & Nocedal 1989, doi 10.1007/BF01589116; the closed form of the
direction, which takes a few matrix products however long the memory: Byrd, Nocedal & Schnabel 1994,
doi 10.1007/BF01582063.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Objective = Callable[[Float64], tuple[Float64, Float64]]
Metric = Callable[[Float64], Float64]

_MOST_PAIRS, _FEWEST_PAIRS = 50, 6
_BYTES = 12 << 20  # of all pairs: they stay in the caches
_ARMIJO = 1e-4
_SHORTEST_STEP = 1e-10


@dataclass(slots=True)
class Point:
    """Where a search stands.

    Attributes:
        x: (B, P).
        value: (B,).
        grad: (B, P).
        n_iter: steps taken.
        n_passes: evaluations of the objective.
        decrease: (B,) predicted further decrease, half the product of gradient and step.
    """

    x: Float64
    value: Float64
    grad: Float64
    n_iter: int = 0
    n_passes: int = 0
    decrease: Float64 | None = None


Stop = Callable[[Point], NDArray[np.bool_]]


class Memory:
    """The pairs of steps s and differences of gradients y that each problem remembers, and their products.

    A pair that tells nothing (no step, or no curvature along it) is remembered as zeros. Shapes: B problems, m pairs,
    P variables. The long arrays are overwritten in turn, `order` lists their rows from the oldest on; the products
    stand in that order.
    """

    def __init__(self, n_problems: int, n_variables: int, metric: Metric) -> None:
        most = int(np.clip(_BYTES // (24 * n_problems * n_variables), _FEWEST_PAIRS, _MOST_PAIRS))
        self._most, self._order = most, list[int]()
        self._at: slice | NDArray[np.intp] = slice(0, 0)  # the order, as an index
        self._steps, self._changes, self._turned = np.zeros((3, n_problems, most, n_variables))
        self._inverse = np.zeros((n_problems, 0, 0))  # of the upper triangle of s_i y_j
        self._lengths = np.zeros((n_problems, 0, 0))  # y_i metric(y_j)
        self._diagonal = np.zeros((n_problems, 0))  # s_i y_i
        self._scale = np.ones(n_problems)
        self._metric = metric
        self._last: tuple[Float64, Float64] | None = None  # a gradient, and it in the metric

    def set_metric(self, metric: Metric) -> None:
        """Measure in another metric from now on."""
        self._metric, self._last = metric, None
        if not self._order:
            return
        if len(self._steps) == 1:  # one problem: all pairs at once
            self._turned[0, self._at] = metric(self._changes[0, self._at])
        else:
            for place in self._order:
                self._turned[:, place] = metric(self._changes[:, place])
        self._lengths = np.matmul(self._changes[:, self._at], self._turned[:, self._at].transpose(0, 2, 1))

    def add(self, step: Float64, before: Float64, after: Float64) -> None:
        """Remember a step (B, P) and the gradients on its ends."""
        change = after - before
        turned = -self._in_metric(before)
        turned += self._in_metric(after)
        product = np.vecdot(step, change)
        told = product > 0
        if not told.all():
            step, change, turned = (np.where(told[:, None], v, 0.0) for v in (step, change, turned))
            product = np.where(told, product, 1.0)
        if len(self._order) == self._most:
            place = self._order.pop(0)
            self._at = np.array(self._order)
            self._inverse, self._lengths = self._inverse[:, 1:, 1:], self._lengths[:, 1:, 1:]
            self._diagonal = self._diagonal[:, 1:]
        else:
            place = len(self._order)
        column = _products(self._steps, change)[:, self._at, None]
        lengths = _products(self._changes, turned)[:, self._at]
        self._steps[:, place], self._changes[:, place], self._turned[:, place] = step, change, turned
        self._order.append(place)
        in_turn = len(self._order) == place + 1 and self._order[0] == 0
        self._at = slice(0, place + 1) if in_turn else np.array(self._order)
        length = np.vecdot(change, turned)
        self._inverse = _bordered(self._inverse, -np.matmul(self._inverse, column)[:, :, 0] / product[:, None])
        self._inverse[:, -1, -1] = 1 / product
        self._lengths = _bordered(self._lengths, lengths)
        self._lengths[:, -1, :-1] = lengths
        self._lengths[:, -1, -1] = length
        self._diagonal = np.concatenate([self._diagonal, product[:, None]], axis=1)
        np.divide(product, length, out=self._scale, where=told & (length > 0))

    def direction(self, grad: Float64) -> Float64:
        """The quasi-Newton step (B, P)."""
        scale = self._scale[:, None]
        step = self._in_metric(grad) * -scale
        if not self._order:
            return step
        t = np.matmul(self._inverse, _products(self._steps, grad)[:, self._at, None])
        u = np.matmul(self._lengths, t)[:, :, 0] - _products(self._turned, grad)[:, self._at]
        u *= scale
        u += self._diagonal * t[:, :, 0]
        u = np.matmul(self._inverse.transpose(0, 2, 1), u[:, :, None])
        step -= self._combine(self._steps, u)
        step += self._combine(self._turned, t) * scale
        return step

    def _combine(self, pairs: Float64, factors: Float64) -> Float64:
        spread = np.zeros((len(pairs), 1, self._most))
        spread[:, 0, self._at] = factors[:, :, 0]
        return np.asarray(np.matmul(spread, pairs)[:, 0])

    def _in_metric(self, grad: Float64) -> Float64:
        if self._last is None or self._last[0] is not grad:
            self._last = grad, self._metric(grad)
        return self._last[1]


def _products(pairs: Float64, vector: Float64) -> Float64:
    """Of each of (B, m, P) with (B, P)."""
    return np.asarray(np.matmul(pairs, vector[:, :, None])[:, :, 0])


def _bordered(matrices: Float64, column: Float64) -> Float64:
    """Matrices (B, m, m) with one more column (B, m), and a row of zeros."""
    b, m = column.shape
    out = np.zeros((b, m + 1, m + 1))
    out[:, :m, :m] = matrices
    out[:, :m, m] = column
    return out


def minimize(
    objective: Objective,
    start: Point,
    memory: Memory,
    stop: Stop,
    *,
    refresh: Callable[[Point], None],
    max_iter: int,
    noise: float,
) -> tuple[Point, NDArray[np.bool_]]:
    """Minimise B convex functions of P variables.

    Args:
        objective: (B, P) → values (B,) and gradients (B, P).
        start: where to begin.
        memory: of earlier steps, which this search adds to.
        stop: says which problems (B,) are done.
        refresh: called before each step; it may give the memory another metric.
        max_iter: greatest number of steps, the start's among them.
        noise: relative rounding error of the values.

    Returns:
        The last point, and which problems are done. It ends early where rounding noise lets nothing go lower.
    """
    at = start
    while True:
        refresh(at)
        direction = memory.direction(at.grad)
        slope = np.vecdot(at.grad, direction)
        at.decrease = np.maximum(-slope / 2, 0.0)
        done = stop(at)
        if done.all() or at.n_iter >= max_iter:
            return at, done
        step, (value, grad) = _search(objective, at, direction, slope, done, noise)
        moved = step > 0
        move = step[:, None] * direction
        memory.add(move, at.grad, grad)
        at = Point(at.x + move, value, grad, at.n_iter + 1, at.n_passes)
        if not moved.any():
            at.decrease = np.maximum(-slope / 2, 0.0)
            return at, stop(at)


def _search(
    objective: Objective,
    at: Point,
    direction: Float64,
    slope: Float64,
    done: NDArray[np.bool_],
    noise: float,
) -> tuple[Float64, tuple[Float64, Float64]]:
    """Backtrack from the full step until each problem has decreased enough; a finished problem does not move."""
    step = np.where(done | ~(slope < 0), 0.0, 1.0)
    while True:
        value, grad = objective(at.x + step[:, None] * direction)
        at.n_passes += 1
        bound = at.value + _ARMIJO * step * slope + noise * np.abs(at.value)
        failed = (step > 0) & ~(value <= bound)
        if not failed.any():
            return step, (value, grad)
        step[failed] *= 0.5
        step[step < _SHORTEST_STEP] = 0.0
