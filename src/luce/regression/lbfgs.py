"""L-BFGS for several smooth convex problems at once, in a metric that the caller knows.

Each problem keeps its own history and step; the function is evaluated for all of them together, which is what makes
a pass over shared data worth sharing. Source: Liu & Nocedal 1989, doi 10.1007/BF01589116; the recursion in the
coordinates of the pairs, which reads them twice however many there are: Chen, Wang & Zhou 2014, "Large-scale L-BFGS
using MapReduce". The kernels are in native/lbfgs.inl.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce import _native

Float64 = NDArray[np.float64]
Objective = Callable[[Float64, NDArray[np.bool_]], tuple[Float64, Float64]]
Metric = Callable[[Float64], Float64]  # of M gradients of each problem, (B, M, P)

_MOST_PAIRS, _FEWEST_PAIRS = 50, 6
_CARRIED = 8  # pairs that go over to another objective
_BYTES = 9 << 20  # of all pairs: they stay in the caches
_MOST_BYTES = 64 << 20  # of pairs that are copied
_ARMIJO = 1e-4
_SHORTEST_STEP = 1e-10
_LEAST_CUT, _MOST_CUT = 0.1, 0.5  # of a step that failed
_PATIENCE = 100  # steps whose gain cannot be told from rounding; gradients may lead on where values no longer do


@dataclass(slots=True)
class Point:
    """Where a search stands.

    Attributes:
        x: (B, P).
        value: (B,).
        grad: (B, P).
        n_iter: steps taken.
        n_passes: evaluations of the objective.
        decrease: of each problem, predicted further decrease, half the product of gradient and step.
    """

    x: Float64
    value: Float64
    grad: Float64
    n_iter: int = 0
    n_passes: int = 0
    decrease: list[float] | None = None


Stop = Callable[[Point], Sequence[bool] | NDArray[np.bool_]]


class Memory:
    """The pairs of steps s and differences of gradients y that each problem remembers, and their products.

    A pair without curvature is remembered as zeros. Shapes: B problems, m pairs, P variables. The places of a problem's
    pairs are taken in turn, and round again once all are.

    Attributes:
        metric: what changes of gradients are measured in.
    """

    def __init__(
        self,
        n_problems: int,
        n_variables: int,
        metric: Metric,
        n_threads: int = 1,
        most: int | None = None,
        spare: list[Float64] | None = None,
    ) -> None:
        """For at most so many pairs of B problems of P variables; threads share the problems and change no result.

        `spare` is where memories that succeed each other leave their arrays: to get such ones anew takes longer than
        to fill them. What an array holds of steps and changes stays there.
        """
        most = _MOST_PAIRS if most is None else min(most, _MOST_PAIRS)
        self._most = int(np.clip(_BYTES // (24 * n_problems * n_variables), _FEWEST_PAIRS, most))
        self._spare = [] if spare is None else spare
        shape = (3, n_problems, self._most, n_variables)
        self._pairs = self._spare.pop() if self._spare else np.zeros(shape)  # s, y and metric(y)
        self._leave = weakref.finalize(self, self._spare.append, self._pairs)
        self._leave.atexit = False
        self._products = np.zeros((2, n_problems, self._most, self._most))  # y_i s_j where j <= i; y_i metric(y_j)
        self._scale = np.ones(n_problems)
        self._count, self._newest = np.zeros((2, n_problems), np.int64)  # places taken, and the one taken last
        self._n_threads = n_threads
        self.metric = metric
        self._last: tuple[Float64, Float64] | None = None  # a gradient, and it in the metric

    def set_metric(self, metric: Metric) -> None:
        """Measure in another metric from now on."""
        self.metric, self._last = metric, None
        taken = slice(0, int(self._count.max()))
        if taken.stop == 0:
            return
        changes, turned = self._pairs[1:, :, taken]
        each = max(1, _BYTES // changes[:, 0].nbytes)  # places at once: large ones take turns, for less memory
        for first in range(0, taken.stop, each):
            turned[:, first : first + each] = metric(changes[:, first : first + each])
        self._products[1, :, taken, taken] = changes @ turned.transpose(0, 2, 1)
        product, length = self._products[:, np.arange(len(self._newest)), self._newest, self._newest]
        np.divide(product, length, out=self._scale, where=length > 0)  # where it is 0 the pair tells nothing

    def bent(self, more: Float64, n_bent: int, metric: Metric) -> Memory:
        """That of the objective with `more[b] / 2 * ||x||²` of the first `n_bent` variables added, and of its metric.

        Of the newest pairs, which stay exact: a step's change of gradient grows by `more` times the step. A memory too
        large for a second one beside it hands its pairs over, and is empty from then on.
        """
        _, n_problems, _, n_variables = self._pairs.shape
        counts, newest, pairs = self._count.copy(), self._newest.copy(), self._pairs
        if pairs.nbytes > _MOST_BYTES:
            self._leave()
            self._pairs = np.zeros((3, n_problems, 0, n_variables))
            self._count[:], self._newest[:] = 0, 0
        bent = Memory(n_problems, n_variables, metric, self._n_threads, self._most, self._spare)
        bent._count[:] = np.minimum(counts, _CARRIED)
        bent._newest[:] = np.maximum(bent._count - 1, 0)
        count = int(bent._count.max())
        for b in range(n_problems):  # the oldest first
            order = (newest[b] - bent._newest[b] + np.arange(bent._count[b])) % self._most
            bent._pairs[:2, b, : len(order)] = pairs[:2, b, order]
            bent._pairs[:2, b, len(order) :] = 0
        steps, changes = bent._pairs[:2, :, :count]
        changes[..., :n_bent] += more[:, None, None] * steps[..., :n_bent]
        along = np.tril(changes @ steps.transpose(0, 2, 1))
        told = np.einsum("bii->bi", along) > 0
        if not told.all():  # rounding may leave a pair without curvature
            bent._pairs[:2, :, :count] *= told[:, :, None]
            along *= told[:, :, None] & told[:, None]
            along += np.eye(count) * ~told[:, :, None]
        bent._products[0, :, :count, :count] = along
        bent.set_metric(metric)
        return bent

    def add(self, step: Float64, before: Float64, after: Float64, moved: NDArray[np.bool_]) -> None:
        """Remember a step (B, P) and the gradients on its ends, of the problems that moved (B,)."""
        turned_before, turned_after = self._in_metric(before), self._in_metric(after)
        self._newest[:] = np.where(moved & (self._count > 0), (self._newest + 1) % self._most, self._newest)
        self._count[:] = np.minimum(self._count + moved, self._most)
        _native.lbfgs_add(
            self._pairs, self._products, self._scale, self._count, self._newest, moved, step, before, after,
            turned_before, turned_after, self._n_threads,
        )  # fmt: skip

    def direction(self, grad: Float64) -> Float64:
        """The quasi-Newton step (B, P)."""
        turned, out = self._in_metric(grad), np.empty_like(grad)
        _native.lbfgs_direction(
            self._pairs, self._products, self._scale, self._count, self._newest, grad, turned, out, self._n_threads
        )
        return out

    def _in_metric(self, grad: Float64) -> Float64:
        if self._last is None or self._last[0] is not grad:
            self._last = grad, self.metric(grad[:, None])[:, 0]
        return self._last[1]


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

    A problem whose step does not decrease it enough tries a shorter one next time, while the others go on.

    Args:
        objective: (B, P) and which problems (B,) matter → their values (B,) and gradients (B, P).
        start: where to begin.
        memory: of earlier steps, which this search adds to.
        stop: says which problems (B,) are done.
        refresh: called before each step; it may give the memory another metric.
        max_iter: greatest number of steps, the start's among them.
        noise: relative rounding error of the values.

    Returns:
        The last point, and which problems are done. It ends early where rounding noise lets nothing go lower.
    """
    # Of each problem floats, in lists: NumPy would take ten times as long for so few numbers.
    at, idle = start, 0
    value: list[float] = start.value.tolist()
    best = value
    everyone = np.ones(len(value), bool)
    whole = [1.0] * len(value)
    share = whole  # of its step that each problem tries next
    while True:
        refresh(at)
        direction = memory.direction(at.grad)
        slope: list[float] = np.vecdot(at.grad, direction).tolist()
        at.decrease = [max(each / -2, 0.0) for each in slope]
        done = stop(at)
        if all(done) or at.n_iter >= max_iter:
            return at, np.array(done)
        moving = [m < 0 < h and not d for m, h, d in zip(slope, share, done, strict=True)]
        if idle >= _PATIENCE or not any(moving):
            return at, np.array(done)
        together = share is whole and all(moving)
        if not together:
            direction *= np.array([h * m for h, m in zip(share, moving, strict=True)])[:, None]
        x = at.x + direction
        values, grad = objective(x, everyone if together else np.array(moving))
        new: list[float] = values.tolist()
        goes = [
            m and v <= old + _ARMIJO * h * down + noise * abs(old)
            for m, v, old, h, down in zip(moving, new, value, share, slope, strict=True)
        ]
        n_passes = at.n_passes + 1
        if all(goes):
            share, moved = whole, everyone
        else:
            share = [
                _shorter(h, down, v - old) if m and not g else 1.0
                for m, g, v, old, h, down in zip(moving, goes, new, value, share, slope, strict=True)
            ]
            moved = np.array(goes)
            stays = ~moved
            x[stays], grad[stays], values[stays], direction[stays] = at.x[stays], at.grad[stays], at.value[stays], 0
            new = values.tolist()
        if any(goes):
            memory.add(direction, at.grad, grad, moved)
            at, value = Point(x, values, grad, at.n_iter + 1, n_passes), new
        else:
            at.n_passes = n_passes
        lower = [low - v > noise * abs(v) for low, v in zip(best, value, strict=True)]
        if any(lower):
            best, idle = [v if better else low for v, low, better in zip(value, best, lower, strict=True)], 0
        else:
            idle += 1


def _shorter(tried: float, slope: float, rise: float) -> float:
    """The share of a step to try after too long a one: to the lowest point of the parabola, within limits."""
    bend = rise - tried * slope if math.isfinite(rise) else math.inf
    lowest = -slope * tried**2 / max(2 * bend, sys.float_info.min)
    share = min(max(lowest, _LEAST_CUT * tried), _MOST_CUT * tried)
    return share if share >= _SHORTEST_STEP else 0.0
