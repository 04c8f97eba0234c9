"""The strength of the penalty, chosen by cross-validation along a warm-started path.

All folds are solved side by side in one pass over the data: a fold is a column of row weights with zeros at the rows
it holds out, so no rows are copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce.links import log_softmax
from luce.regression.objective import Float64, Rows, logits, mean_and_deviation
from luce.regression.solver import Penalty, Solution, solve

STRENGTHS = tuple(10.0 ** (-0.5 * i) for i in range(11))  # 1 … 1e-5, per row, on standardised features
_PATH_TOL = 1e-3  # tells the strengths apart
_LOGITS_TOL = 2e-4  # what is calibrated on must be nearer to the optimum: 1e-3 leaves the logits too small
_FIRST = 0.1  # where the path begins


@dataclass(frozen=True, slots=True)
class Choice:
    """What cross-validation found.

    Attributes:
        strength: the chosen penalty strength.
        path: (strength, mean out-of-fold negative log-likelihood) for every strength tried, the strongest first.
        logits: (N, K) float64 out-of-fold logits at the chosen strength: row i by the model that did not see it.
        known: (N,) bool, whether that model saw other rows of the class of row i. The rest do not count.
        mean: of the weights (1, K, D) and biases (1, K) of all folds, a good point to start the final fit from.
    """

    strength: float
    path: tuple[tuple[float, float], ...]
    logits: Float64
    known: NDArray[np.bool_]
    mean: tuple[Float64, Float64]


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
        n_threads: threads of the row kernel.
        strengths: decreasing, not empty.
        progress: called with (strengths tried, strengths at most).
    """
    n_folds = int(folds.max()) + 1
    fold_weight = weight[:, None] * (folds[:, None] != np.arange(n_folds))
    seen = np.array([np.bincount(target, column, minlength=n_classes) > 0 for column in fold_weight.T])
    known = seen[folds, target]
    counted = weight * known
    if not counted.any():
        raise ValueError("choose_strength: each class lies in one fold, so no fold can be predicted from the others")
    fold_weight /= fold_weight.sum(axis=0)
    center, deviation = mean_and_deviation(features, weight / weight.sum())
    rows = Rows(features, target, fold_weight, center, n_classes, n_threads)
    scale = np.where(deviation > 0, deviation, 1.0)
    every = np.arange(len(target))
    tried: dict[int, tuple[float, Solution]] = {}

    def held_out(solution: Solution) -> Float64:
        return logits(rows, solution.weights, solution.bias)[every, folds].astype(np.float64)

    def attempt(i: int, start: tuple[Float64, Float64] | None) -> tuple[float, Solution]:
        solution = solve(rows, Penalty(strengths[i], scale), deviation, start=start, tol=_PATH_TOL)
        log_p = log_softmax(held_out(solution))[every, target]
        tried[i] = float(np.average(-log_p, weights=counted)), solution
        if progress is not None:
            progress(len(tried), len(strengths))
        return tried[i]

    first = min(range(len(strengths)), key=lambda i: abs(math.log(strengths[i] / _FIRST)))
    attempt(first, None)
    for step in (1, -1):  # weaker while that is better; stronger if it never was
        best = first
        while 0 <= best + step < len(strengths):
            here, solution = tried[best]
            if attempt(best + step, solution.start)[0] >= here:
                break
            best += step
        if best != first:
            break
    penalty = Penalty(strengths[best], scale)
    solution = solve(rows, penalty, deviation, start=tried[best][1].start, tol=_LOGITS_TOL)
    if progress is not None:
        progress(len(strengths), len(strengths))
    path = tuple((strengths[i], tried[i][0]) for i in sorted(tried))
    mean = solution.weights.mean(axis=0, keepdims=True), solution.bias.mean(axis=0, keepdims=True)
    return Choice(strengths[best], path, held_out(solution), known, mean)
