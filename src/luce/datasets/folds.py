"""Folds for cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from luce.datasets.split import unit_contents


def folds(
    labels: NDArray[np.int64], n_folds: int, seed: int = 0, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Deal rows into folds for cross-validation, class by class.

    Without groups, the folds differ by at most one row in each class and in all. With groups, each goes as a
    whole to the fold that has least of its classes, the largest first.

    Args:
        labels: (N,) class of each row.
        n_folds: at least 2, at most N or the number of groups.
        seed: another seed, other folds.
        groups: (N,) rows with the same number never part; such as `Split.units`.

    Returns:
        (N,) fold of each row, 0 … n_folds - 1.

    Raises:
        ValueError: `n_folds` is not as above.
    """
    n_units = len(labels) if groups is None else len(np.unique(groups))
    if not 2 <= n_folds <= max(n_units, 1):
        raise ValueError(f"n_folds must lie in 2 … {n_units}, the number of rows or groups, got {n_folds}")
    draws = np.random.PCG64(seed).random_raw(len(labels))  # raw draws never change between NumPy versions
    fold = np.empty(len(labels), np.int64)
    if groups is None or n_units == len(labels):
        fold[np.lexsort((draws, labels))] = np.arange(len(labels)) % n_folds
        return fold
    unit = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    first = np.unique(unit, return_index=True)[1]
    order = np.lexsort((draws[first], -np.bincount(unit)))
    share = 1 / np.maximum(np.bincount(labels), 1)
    count = np.zeros((n_folds, len(share)))
    dealt = np.empty(n_units, np.int64)
    for u, classes, counts in unit_contents(unit, labels, order):
        crowd = count[:, classes] @ (counts * share[classes])
        dealt[u] = best = np.lexsort((count.sum(1), crowd))[0]
        count[best, classes] += counts
    return dealt[unit]
