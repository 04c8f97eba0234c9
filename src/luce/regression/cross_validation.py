"""The strength of the penalty, chosen by cross-validation along a warm-started path.

All folds are solved side by side in one pass over the data: a fold is a column of row weights with zeros at the rows
it holds out, so no rows are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luce.links import log_softmax
from luce.regression.objective import Float64, Rows, logits, mean_and_deviation
from luce.regression.solver import Penalty, solve

STRENGTHS = tuple(10.0 ** (-0.5 * i) for i in range(11))  # 1 … 1e-5, per row, on standardised features
_PATH_TOL = 1e-3  # tells the strengths apart
_LOGITS_TOL = 1e-4  # what is calibrated on must be nearer to the optimum: 1e-3 leaves the logits too small
_PATIENCE = 2  # the path ends after so many strengths in a row that were worse than the best


@dataclass(frozen=True, slots=True)
class Choice:
    """What cross-validation found.

    Attributes:
        strength: the chosen penalty strength.
        path: (strength, mean out-of-fold negative log-likelihood) for every strength tried.
        logits: (N, K) float64 out-of-fold logits at the chosen strength: row i by the model that did not see it.
        known: (N,) bool, whether that model saw other rows of the class of row i. The rest do not count.
    """

    strength: float
    path: tuple[tuple[float, float], ...]
    logits: Float64
    known: NDArray[np.bool_]


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

    Args:
        features: (N, D) uint8, float32 or float64.
        target: (N,) class ids below `n_classes`.
        weight: (N,) row weights, not negative.
        folds: (N,) fold number of each row, 0 … F - 1, with F at least 2.
        n_classes: K.
        n_threads: threads of the row kernel.
        strengths: decreasing.
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
    path: list[tuple[float, float]] = []
    best = start = None
    for strength in strengths:
        solution = solve(rows, Penalty(strength, scale), deviation, start=start, tol=_PATH_TOL)
        start = solution.start
        held_out = logits(rows, solution.weights, solution.bias)[every, folds].astype(np.float64)
        loss = float(np.average(-log_softmax(held_out)[every, target], weights=counted))
        path.append((strength, loss))
        if progress is not None:
            progress(len(path), len(strengths))
        if best is None or loss < best[1]:
            best = (strength, loss, solution)
        elif len(path) - 1 - [s for s, _ in path].index(best[0]) >= _PATIENCE:
            break
    if best is None:
        raise ValueError("choose_strength: strengths must not be empty")
    penalty = Penalty(best[0], scale)
    solution = solve(rows, penalty, deviation, start=best[2].start, tol=_LOGITS_TOL)
    held_out = logits(rows, solution.weights, solution.bias)[every, folds].astype(np.float64)
    if progress is not None:
        progress(len(strengths), len(strengths))
    return Choice(best[0], tuple(path), held_out, known)
