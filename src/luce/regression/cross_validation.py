"""The strength of the penalty, chosen by cross-validation along a warm-started path.

All folds are solved side by side in one pass over the data: a fold is a column of row weights with zeros at the rows
it holds out, so no rows are copied, and the spectrum of the features is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce.links import Link, Softmax
from luce.regression.objective import Float64, Rows, logits, mean_and_deviation
from luce.regression.preconditioner import Spectrum, spectrum
from luce.regression.row_loss import row_loss
from luce.regression.solver import Penalty, Solution, Trace, fits_float32, one_blas_thread, solve

STRENGTHS = tuple(10.0 ** (-0.5 * i) for i in range(11))  # 1 … 1e-5, per row, on standardised features
_PATH_TOL = 5e-5  # of the loss at zero: tells the strengths apart
_LOGITS_TOL = 3e-6  # what is calibrated on must be nearer to the optimum: else the logits are too small
_FIRST = 0.1  # where the path begins


@dataclass(frozen=True, slots=True)
class Folds:
    """The problems of a cross-validation: in problem f the rows of fold f have weight 0.

    Attributes:
        rows: the data, a problem for each fold.
        rough: the same for arithmetic that need not be exact.
        totals: (F,) weight of the rows that each fold's problem sees.
        deviation: (D,) of the features, over all rows.
        scale: (D,) of the penalty.
        features: their spectrum.
        held_out: (N,) the fold of each row.
        known: (N,) whether the problem of a row's fold sees other rows of its class. The rest do not count.
        counted: (N,) weight of each row, 0 where it does not count.
        link: whose loss is minimised and counted.
    """

    rows: Rows
    rough: Rows
    totals: Float64
    deviation: Float64
    scale: Float64
    features: Spectrum
    held_out: NDArray[np.int64]
    known: NDArray[np.bool_]
    counted: Float64
    link: Link

    def solve(self, strength: Float64, after: Solution | None) -> Solution:
        """Solve the problems of all folds, with their penalties (F,), well enough to tell penalties apart.

        Args:
            strength: (F,).
            after: the solution of another penalty, to go on from.
        """
        start, trace = (None, None) if after is None else (after.start, after.trace)
        return self._solve(strength, start, trace, _PATH_TOL)

    def refine(self, strength: Float64, rough: Solution) -> Solution:
        """Solve them well enough for their logits to be calibrated on."""
        return self._solve(strength, rough.start, rough.trace, _LOGITS_TOL)

    def _solve(
        self, strength: Float64, start: tuple[Float64, Float64] | None, after: Trace | None, tol: float
    ) -> Solution:
        return solve(
            self.rows,
            Penalty(strength, self.scale),
            self.deviation,
            features=self.features,
            start=start,
            after=after,
            tol=tol,
            prove=False,
        )

    def logits(self, solution: Solution, *, rough: bool = False) -> Float64:
        """(N, K) float64: row i by the problem that did not see it; `rough` where they need not be exact."""
        every = logits(self.rough if rough else self.rows, solution.weights, solution.bias)
        own: Float64 = every[np.arange(len(self.held_out)), self.held_out].astype(np.float64)
        return own

    def losses(self, out_of_fold: Float64) -> Float64:
        """Weighted mean loss (F,) of each fold's held-out rows, for softmax the NLL; NaN where none counts."""
        loss, _ = self.link.loss_and_grad(out_of_fold, self.rows.target)
        n_folds = self.rows.n_problems
        share = np.bincount(self.held_out, self.counted, minlength=n_folds)
        sums = np.bincount(self.held_out, np.where(self.counted > 0, loss, 0) * self.counted, minlength=n_folds)
        means: Float64 = np.divide(sums, share, out=np.full(n_folds, np.nan), where=share > 0)
        return means


@one_blas_thread
def make_folds(
    features: NDArray[np.generic],
    target: NDArray[np.int64],
    weight: Float64,
    held_out: NDArray[np.int64],
    n_classes: int,
    *,
    scale: Callable[[Float64], Float64],
    link: Link | None = None,
    n_threads: int = 1,
    intercept: bool = True,
) -> Folds:
    """The problems of a cross-validation.

    Args:
        features: (N, D) uint8, float32 or float64.
        target: (N,) class ids below `n_classes`.
        weight: (N,) row weights, not negative.
        held_out: (N,) fold number of each row, 0 … F - 1, with F at least 2.
        n_classes: K.
        scale: (D,) deviations of the features → (D,) scale of the penalty.
        link: softmax if none; its loss must take class ids.
        n_threads: threads of a pass.
        intercept: whether biases are free.

    Raises:
        ValueError: no row can be predicted from the others.
    """
    n_folds = int(held_out.max()) + 1
    fold_weight = weight[:, None] * (held_out[:, None] != np.arange(n_folds))
    seen = np.array([np.bincount(target, column, minlength=n_classes) > 0 for column in fold_weight.T])
    known = seen[held_out, target]
    counted = weight * known
    if not counted.any():
        raise ValueError("cross-validation: each class lies in one fold, so no fold can be predicted from the others")
    totals = fold_weight.sum(axis=0)
    fold_weight /= totals
    center, deviation = mean_and_deviation(features, weight / weight.sum(), n_threads)
    link = Softmax() if link is None else link
    rows = Rows(features, target, fold_weight, center, n_classes, row_loss(link), intercept, n_threads)
    unit = scale(deviation)
    rough = rows.at(np.float32) if fits_float32(rows, deviation) else rows
    basis = spectrum(rows if features.dtype == np.float64 else rough, 1 / unit, deviation)
    return Folds(rows, rough, totals, deviation, unit, basis, held_out, known, counted, link)


@dataclass(frozen=True, slots=True)
class Choice:
    """What cross-validation found.

    Attributes:
        strength: the chosen penalty strength.
        path: (strength, mean out-of-fold negative log-likelihood) for every strength tried, the strongest first.
        logits: (N, K) float64 out-of-fold logits at the chosen strength: row i by the model that did not see it.
        known: (N,) bool, whether that model saw other rows of the class of row i. The rest do not count.
        mean: of the weights (1, K, D) and biases (1, K) of all folds, a good point to start the final fit from.
        features: the spectrum, for the final fit.
    """

    strength: float
    path: tuple[tuple[float, float], ...]
    logits: Float64
    known: NDArray[np.bool_]
    mean: tuple[Float64, Float64]
    features: Spectrum


def choose_strength(
    features: NDArray[np.generic],
    target: NDArray[np.int64],
    weight: Float64,
    folds: NDArray[np.int64],
    n_classes: int,
    *,
    n_threads: int = 1,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose the penalty strength on standardised features.

    The search begins in the middle and goes where it gets better, each fit starting from its neighbour's.

    Args:
        features: (N, D) uint8, float32 or float64.
        target: (N,) class ids below `n_classes`.
        weight: (N,) row weights, not negative.
        folds: (N,) fold number of each row, 0 … F - 1, with F at least 2.
        n_classes: K.
        n_threads: threads of a pass.
        strengths: decreasing, not empty.
        progress: called with (strengths tried, strengths at most).
    """
    problems = make_folds(features, target, weight, folds, n_classes, scale=standard, n_threads=n_threads)
    share = np.bincount(folds, problems.counted, minlength=problems.rows.n_problems)
    tried: dict[int, float] = {}

    def attempt(i: int, start: Solution | None) -> Solution:
        solution = problems.solve(np.full(len(share), strengths[i]), start)
        losses = problems.losses(problems.logits(solution, rough=True))
        tried[i] = float(np.average(losses[share > 0], weights=share[share > 0]))
        if progress is not None:
            progress(len(tried), len(strengths))
        return solution

    first = min(range(len(strengths)), key=lambda i: abs(math.log(strengths[i] / _FIRST)))
    solution = attempt(first, None)
    for step in (1, -1):  # weaker while that is better; stronger if it never was
        best = first
        while 0 <= best + step < len(strengths):
            other = attempt(best + step, solution)
            if tried[best + step] >= tried[best]:
                break
            best, solution = best + step, other
        if best != first:
            break
    solution = problems.refine(np.full(len(share), strengths[best]), solution)
    if progress is not None:
        progress(len(strengths), len(strengths))
    path = tuple((strengths[i], tried[i]) for i in sorted(tried))
    mean = solution.weights.mean(axis=0, keepdims=True), solution.bias.mean(axis=0, keepdims=True)
    return Choice(strengths[best], path, problems.logits(solution), problems.known, mean, problems.features)


def standard(deviation: Float64) -> Float64:
    """The scale of a penalty on standardised features: their deviations, 1 for constant ones."""
    return np.where(deviation > 0, deviation, 1.0)
