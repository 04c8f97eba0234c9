"""Softmax regression solved: the minimum of the mean loss plus a penalty, with a proof of how close it is.

L-BFGS in the metric of `preconditioner`, first with float32 products, whose rounding ends the search near a relative
gap of 1e-7, then with float64 ones for the proof and, where the proof falls short, for more steps.

The proof. With penalty strength c and a convex loss, which is a Fenchel-Young loss, the dual value of any class
distributions q_i whose weighted sum over the rows equals the targets' is at most the minimum. The probabilities at
the solution are such a point but for the residual of the bias's gradient. Without a residual the gap is exactly
||gradient||² / (2 c); a residual is first taken away by Newton steps in the bias, and what is left by mixing the
probabilities with one common distribution, which costs in proportion to it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from luce.regression.lbfgs import Memory, Point, minimize
from luce.regression.objective import Float64, Rows, curvature, loss_and_grad
from luce.regression.preconditioner import Preconditioner, Spectrum, preconditioner, spectrum
from luce.regression.row_loss import SIGMOID, SPHERICAL

F = TypeVar("F", bound=Callable[..., Any])
Progress = Callable[[int, float, float], None]
Real = type[np.float32] | type[np.float64]

_EARLY, _REFRESH = 3, 6  # the metric is renewed after so many steps, and whenever they have multiplied by this
_ROWS_A_PAIR, _FEW_PAIRS = 80, 20  # where a pass takes little, more pairs cost more than the passes that they save
_LATER = 16  # the first renewal of a search that goes on from another
_NOISE = {np.float32: 1e-7, np.float64: 1e-14}  # relative rounding error of an objective
_BIAS_STEPS = 6
_BIAS_REACH = 10.0  # of a step in the biases, in logits
_BIAS_FLOOR = 1e-4  # of the curvature in the biases while searching
_ROOM, _LESS_ROOM = 0.5, 0.3  # share of the wanted gap at which a search ends, and its factor where that was too much
_EPS = float(np.finfo(np.float64).eps)
_DOUBT = 0.1  # where nothing is proven here: a predicted decrease may be several times too small
_LARGE = 1e15  # float32 products of features beyond this might overflow
_FAR = 1e3  # deviations between a feature's mean and zero that float32 still resolves
_FAR_FROM_ZERO = 10.0  # the same where the mean is not taken off
_WORTH_FLOAT32 = 10_000_000  # products of a pass; fewer are done at once in float64 where the features are


@dataclass(frozen=True, slots=True)
class Penalty:
    """`strength / 2 * sum((weights * scale) ** 2)`; the bias is free.

    Attributes:
        strength: (B,) at least 0, per unit of total row weight: scikit-learn's `1 / (C * N)`.
        scale: (D,) positive. Ones penalise the raw weights; the features' deviations penalise the weights of
            standardised features, which makes the penalty independent of units.
    """

    strength: Float64
    scale: Float64


@dataclass(frozen=True, slots=True)
class Trace:
    """What a solve leaves to the next one of the same rows under another penalty.

    Attributes:
        memory: of the search's steps.
        strength: (B,) of the penalty that the memory belongs to.
        value: (B,) at zero.
        grad: (B, P) there.
    """

    memory: Memory
    strength: Float64
    value: Float64
    grad: Float64


@dataclass(frozen=True, slots=True)
class Solution:
    """The minimum of B problems.

    Attributes:
        weights: (B, K, D) float64, for raw features.
        bias: (B, K) float64, for features measured from `Rows.origin`.
        value: (B,) objective including the penalty.
        gap: (B,) upper bound on value minus minimum; infinite where nothing was proven.
        converged: (B,) whether `tol` was reached.
        relative_gradient: (B,) norm of the gradient relative to that at zero, in penalised units.
        n_iter: steps taken.
        n_passes: passes over the rows.
        trace: to go on from under another penalty.
    """

    weights: Float64
    bias: Float64
    value: Float64
    gap: Float64
    converged: NDArray[np.bool_]
    relative_gradient: Float64
    n_iter: int
    n_passes: int
    trace: Trace

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


class Problem:
    """The objective of B problems in penalised units, as functions of one vector (P,) each: weights, then biases."""

    def __init__(self, rows: Rows, penalty: Penalty, rough: Real = np.float64) -> None:
        self.rows, self.penalty = rows, penalty
        self.rough = rows.at(rough)  # for what need not be exact
        self.unit = 1 / penalty.scale
        self.shape = (rows.n_problems, rows.n_classes, len(self.unit))
        self.split = rows.n_classes * len(self.unit)
        self._rows = {dtype: rows.at(dtype) for dtype in (np.float32, np.float64)}
        self._scaled = bool((self.unit != 1).any())

    def unpack(self, x: Float64) -> tuple[Float64, Float64]:
        """Raw weights (B, K, D) and biases (B, K)."""
        weights = x[:, : self.split].reshape(self.shape)
        return weights * self.unit if self._scaled else weights, x[:, self.split :]

    def pack(self, weights: Float64, bias: Float64) -> Float64:
        """The reverse."""
        return np.concatenate([(weights * self.penalty.scale).reshape(len(bias), -1), bias], axis=1)

    def __call__(self, x: Float64, dtype: Real, matter: NDArray[np.bool_] | None = None) -> tuple[Float64, Float64]:
        """Values (B,) and gradients (B, P) of the problems that matter, from products in the given dtype."""
        rows = self._rows[dtype]
        if matter is not None and len(matter) > 1 and not matter.all():
            rows = replace(rows, weight=rows.weight * matter)  # the native pass leaves the others out
        return loss_and_grad(rows, x, self.penalty.strength, self.unit if self._scaled else None)

    def metric(self, at: Point, features: Spectrum, *, every_row: bool = False) -> Preconditioner:
        """The inverse of the second derivative there, roughly; that in the biases exactly, if of every row.

        Where a step has gone so far that the rows are certain of wrong classes, next to no curvature is left and tells
        nothing: biases are kept from moving further than `_BIAS_REACH` at once.
        """
        if at.x.any() or every_row:
            classes, mean = curvature(self.rough, *self.unpack(at.x), every_row=every_row)
        else:  # the same for every row
            classes = self.rows.loss.curvature_at_zero(self.rows.n_classes)
            classes, mean = np.broadcast_to(classes, (len(at.x), *classes.shape)), np.zeros((len(at.x), len(self.unit)))
        least = np.abs(at.grad[:, self.split :]).max(axis=1) / _BIAS_REACH
        if not every_row:
            least = np.maximum(least, _BIAS_FLOOR * self.rows.loss.beta**2)
        mean = mean * self.unit * self.rows.intercept
        return preconditioner(features, classes, mean, self.penalty.strength, least, self.rows.n_threads)

    def gap(self, x: Float64, value: Float64, grad: Float64, zero_grad: Float64) -> Float64:
        """Upper bound (B,) on value minus minimum, from the gradient there and the one at zero; see the module."""
        strength, row = self.penalty.strength, self.rows.loss
        if not row.convex:
            return np.full(len(x), np.inf)
        weights, bias = x[:, : self.split], x[:, self.split :]
        moment = grad[:, : self.split] - strength[:, None] * weights
        residual = grad[:, self.split :]
        loss = value - strength / 2 * np.vecdot(weights, weights)
        entropy = loss - np.vecdot(moment, weights) - np.vecdot(residual, bias)
        wanted = self._class_shares() - zero_grad[:, self.split :] / row.beta
        limit = np.maximum(residual, 0) / np.maximum(wanted, 1e-300)
        if row.member == SIGMOID:
            limit = np.maximum(limit, np.maximum(-residual, 0) / np.maximum(1 - wanted, 1e-300))
        ratio = limit.max(axis=1) / row.beta
        share = np.where(ratio > 1e-15, ratio / (1 + ratio), 0.0)  # of the common distribution in the mixture
        mixed = (1 - share)[:, None] * moment + share[:, None] * zero_grad[:, : self.split]
        spread = np.log(max(self.rows.n_classes, 2)) * self.rows.n_classes ** (row.member == SIGMOID)
        with np.errstate(divide="ignore", invalid="ignore"):
            dual = (1 - share) * entropy - share * spread - np.vecdot(mixed, mixed) / (2 * strength)
        bound = np.maximum(value - dual, 0.0)
        return np.where(np.isfinite(bound) & (strength > 0), bound, np.inf)

    def _class_shares(self) -> Float64 | float:
        """What the probabilities of zero logits are, (K,) or one number for all."""
        return 0.5 if self.rows.loss.member == SIGMOID else 1 / self.rows.n_classes


@one_blas_thread
def solve(
    rows: Rows,
    penalty: Penalty,
    deviation: Float64,
    *,
    features: Spectrum | None = None,
    start: tuple[Float64, Float64] | None = None,
    after: Trace | None = None,
    tol: float = 1e-6,
    prove: bool = True,
    max_iter: int = 1000,
    progress: Progress | None = None,
) -> Solution:
    """Minimise the weighted mean loss plus the penalty for every problem of `rows`.

    Args:
        rows: the data of B problems, their weights in float64.
        penalty: of each problem.
        deviation: (D,) standard deviation of each feature, 0 for a constant one.
        features: the spectrum of the features in units of the penalty's scale; computed if not given.
        start: weights (B, K, D) and bias (B, K) to start from; zeros without.
        after: of an earlier solve of the same rows: what it learned serves here.
        tol: a problem is done when its gap is proven to be at most `tol` times its value; where nothing can be proven
            (no penalty, or a loss that is not convex) when the predicted decrease is. Without `prove` when the
            predicted decrease is at most `tol` times the value at zero, which says how much of all there is to gain
            is left: under weak penalties the value itself may be next to nothing.
        prove: whether to prove the gap.
        max_iter: greatest number of steps.
        progress: called now and then with (steps, largest value, largest gap relative to its value).
    """
    dtype = np.float32 if fits_float32(rows, deviation) else np.float64
    problem = Problem(rows, penalty, rough=np.float64 if rows.features.dtype == np.float64 else dtype)
    if features is None:
        features = spectrum(problem.rough, problem.unit, deviation)
    provable = prove & rows.loss.convex & (penalty.strength > 0)
    search = _Search(problem, features, provable, prove, tol, max_iter, progress)
    zeros = np.zeros((rows.n_problems, problem.split + rows.n_classes))
    if rows.loss.member == SPHERICAL and rows.intercept:
        zeros[:, problem.split :] = 1.0  # zero itself is stationary there
    at = search.begin(zeros, start, after, dtype)
    while True:
        at, converged = search.run(at, dtype)
        if converged.all() and not prove:
            return _solution(search, at, np.full(len(zeros), np.inf), converged)
        before = at.n_iter
        at, gap = search.prove(at)
        proven = np.where(provable, gap <= tol * at.value, converged)
        idle = at.n_iter == search.last_proof
        if proven.all() or at.n_iter >= max_iter or (idle and dtype is np.float64):
            return _solution(search, at, gap, proven)
        search.last_proof = before
        if converged.all() and not idle:
            search.room *= _LESS_ROOM  # the steps in the bias took more than was left for them
        else:
            dtype = np.float64  # rounding ended the search, or nothing is left to gain in float32


class _Search:
    """One search: what its phases share."""

    def __init__(
        self,
        problem: Problem,
        features: Spectrum,
        provable: NDArray[np.bool_],
        exact: bool,
        tol: float,
        max_iter: int,
        progress: Progress | None,
    ) -> None:
        self.problem, self.exact_features, self.provable, self.exact = problem, features, provable, exact
        self.tol, self.max_iter, self.progress = tol, max_iter, progress
        self.room = _ROOM
        self._strength: list[float] = problem.penalty.strength.tolist()
        self._provable: list[bool] = provable.tolist()
        self.last_proof = -1
        self._next_refresh = 0.0
        self._told = time.monotonic()
        self.metric: Preconditioner

    def begin(self, zeros: Float64, start: tuple[Float64, Float64] | None, after: Trace | None, dtype: Real) -> Point:
        """Look at zero, which a proof needs in float64, and at the start."""
        self.features = self.exact_features.at(dtype)
        rows, strength = self.problem.rows, self.problem.penalty.strength
        known = after is not None and not self.exact
        if after is not None and known:
            self.zero, self.zero_grad = after.value, after.grad
        else:
            self.zero, self.zero_grad = self.problem(zeros, np.float64 if self.exact else dtype)
        at = Point(zeros, self.zero, self.zero_grad, n_passes=int(not known))
        if start is not None:
            weights, bias = start
            if rows.loss.shifts:
                weights, bias = weights - weights.mean(axis=1, keepdims=True), bias - bias.mean(axis=1, keepdims=True)
            x = self.problem.pack(weights, bias)
            value, grad = self.problem(x, dtype)
            worse = ~(value < at.value)
            x[worse], value[worse], grad[worse] = zeros[worse], at.value[worse], self.zero_grad[worse]
            at = Point(x, value, grad, n_passes=at.n_passes + 1)
        self._renew(at)
        if after is not None and (strength <= after.strength).all():
            self._next_refresh = _LATER
            memory = after.memory.bent(strength - after.strength, self.problem.split, self.metric)
        else:  # what weak penalties teach misleads under strong ones
            most = max(rows.n_rows // _ROWS_A_PAIR, _FEW_PAIRS)
            memory = Memory(len(zeros), zeros.shape[1], self.metric, rows.n_threads, most)
        self.trace = Trace(memory, strength, self.zero, self.zero_grad)
        return at

    def run(self, at: Point, dtype: Real) -> tuple[Point, NDArray[np.bool_]]:
        """Search with products in one dtype."""
        if self.features.few is None and self.features.vectors.dtype != dtype:
            self.features = self.exact_features.at(dtype)  # what float32 loses of a gradient would mislead
            self._renew(at)
        if self.trace.memory.metric is not self.metric:
            self.trace.memory.set_metric(self.metric)
        return minimize(
            lambda x, matter: self.problem(x, dtype, matter),
            at,
            self.trace.memory,
            self.stop,
            refresh=self.refresh,
            max_iter=self.max_iter,
            noise=_NOISE[dtype],
        )

    def stop(self, at: Point) -> list[bool]:
        """Which problems are done: a gap that leaves room for the proof, or no decrease to be expected."""
        weights, bias = at.grad[:, : self.problem.split], at.grad[:, self.problem.split :]
        decreases = [0.0] * len(at.x) if at.decrease is None else at.decrease
        sizes = np.abs(at.value if self.exact else self.zero).tolist()
        of_weights = np.vecdot(weights, weights).tolist()
        of_bias: list[float] = []
        done, left = [], []
        for b, (decrease, size) in enumerate(zip(decreases, sizes, strict=True)):
            allowed = self.room * self.tol * size
            if not self._provable[b]:
                done.append(decrease <= allowed * (_DOUBT if self.exact else 1.0))
                left.append(decrease / max(size, 1e-300))
                continue
            gap = of_weights[b] / (2 * self._strength[b])
            if gap <= allowed:
                of_bias = of_bias or np.vecdot(bias, self.metric.bias_step(bias)).tolist()
                gap += of_bias[b] / 2
            done.append(decrease <= _EPS * size or gap <= allowed)
            left.append(gap / max(size, 1e-300))
        if self.progress is not None and time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            self.progress(at.n_iter, float(at.value.max()), max(left))
        return done

    def refresh(self, at: Point) -> None:
        """Renew the metric where its time has come."""
        if at.n_iter >= self._next_refresh:
            self._renew(at)
            self.trace.memory.set_metric(self.metric)

    def _renew(self, at: Point, *, every_row: bool = False) -> None:
        self._next_refresh = _EARLY if at.n_iter < _EARLY else at.n_iter * _REFRESH
        self.metric = self.problem.metric(at, self.features, every_row=every_row)

    def prove(self, at: Point) -> tuple[Point, Float64]:
        """The point in float64 and its gap (B,), after steps in the bias where the gap calls for them."""
        problem, split = self.problem, self.problem.split
        value, grad = problem(at.x, np.float64)
        at = Point(at.x, value, grad, at.n_iter, at.n_passes + 1)
        gap = problem.gap(at.x, value, grad, self.zero_grad)
        for i in range(_BIAS_STEPS):
            plain = np.vecdot(grad[:, :split], grad[:, :split])
            with np.errstate(divide="ignore", invalid="ignore"):
                plain /= 2 * problem.penalty.strength
            owed = self.provable & (gap > self.tol * value) & (plain <= self.tol * value)
            if not owed.any():
                break
            if i == 0:
                self._renew(at, every_row=True)
            x = at.x.copy()
            x[owed, split:] -= self.metric.bias_step(grad[:, split:])[owed]
            new_value, new_grad = problem(x, np.float64)
            at.n_passes += 1
            better = owed & (new_value <= value + _NOISE[np.float64] * value)
            if not better.any():
                break
            at.x[better], value[better], grad[better] = x[better], new_value[better], new_grad[better]
            gap = problem.gap(at.x, value, grad, self.zero_grad)
        return at, gap


def _solution(search: _Search, at: Point, gap: Float64, converged: NDArray[np.bool_]) -> Solution:
    problem = search.problem
    weights, bias = problem.unpack(at.x)
    norm, first = np.linalg.norm(at.grad, axis=1), np.linalg.norm(search.zero_grad, axis=1)
    relative = np.divide(norm, first, out=np.zeros_like(norm), where=first > 0)
    if problem.rows.loss.shifts:  # exact up to rounding; made exact
        weights, bias = weights - weights.mean(axis=1, keepdims=True), bias - bias.mean(axis=1, keepdims=True)
    return Solution(weights, bias, at.value, gap, converged, relative, at.n_iter, at.n_passes, search.trace)


def fits_float32(rows: Rows, deviation: Float64) -> bool:
    """Whether float32 products come near enough to be worth their time."""
    if rows.features.dtype == np.uint8:
        return True
    if rows.features.dtype == np.float64 and rows.n_rows * len(deviation) * rows.n_classes < _WORTH_FLOAT32:
        return False
    varies = deviation > 0
    center, spread = np.abs(rows.center[varies]), deviation[varies]
    far = _FAR if rows.intercept else _FAR_FROM_ZERO
    return bool((center < _LARGE).all() and (spread < _LARGE).all() and (center <= far * spread).all())
