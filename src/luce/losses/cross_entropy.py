"""Cross-entropy with torch's names and meaning, on NumPy arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import enter
from luce.links import log_softmax
from luce.links.fused import checked_target

Reduction = Literal["none", "mean", "sum"]


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> NDArray[Any] | np.floating[Any]:
    """Cross-entropy between softmax(logits) and the target, in nats.

    The classes are the last axis; torch puts them second. For class ids the mean divides by the sum of the weights of
    the rows that are not ignored, for distributions by N; with every row ignored, or no rows, it is 0.

    Args:
        logits: (N, K).
        target: (N,) class ids of any integer dtype, or (N, K) distributions.
        weight: (K,) class weights, not negative.
        ignore_index: rows with this class id have loss 0.
        reduction: "none" for (N,), "mean" or "sum" for a number.
        label_smoothing: share of each target, in [0, 1], that is spread evenly over the classes with finite logits.

    Returns:
        Loss in the dtype that follows from `logits`.

    Raises:
        TypeError, ValueError: the message names the argument, and the row of a wrong class id.

    >>> cross_entropy([[1.0, 2.0, 3.0]], [2]).round(4)
    np.float64(0.4076)
    """
    if np.ndim(logits) != 2:
        raise ValueError(f"cross_entropy: logits must have shape (rows, classes), got {np.shape(logits)}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"cross_entropy: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    gate = enter("cross_entropy", logits, -1)
    n, k = gate.rows.shape
    class_weight = _class_weight(weight, k)
    ids = np.asarray(target)
    if ids.dtype.kind in "iu":
        kept = ids != ignore_index
        ids = np.where(kept, ids, 0)
        if ids.shape == (n,) and (ids < 0).any():
            row = int(np.flatnonzero(ids < 0)[0])
            raise ValueError(f"cross_entropy: target must lie in [0, {k}); got {ids[row]} at row {row}")
    classes, distributions = checked_target("cross_entropy", ids, n, k, np.dtype(np.float64))
    log_p = log_softmax(gate.rows).astype(np.float64)
    if classes is not None:
        rows = np.arange(n)
        row_weight = class_weight[classes] * kept
        hard = np.where(kept, -log_p[rows, classes], 0) * row_weight
        spread = _expected_loss(log_p, _uniform(gate.rows) * class_weight) * kept
        divisor = row_weight.sum()
    else:
        q = np.asarray(distributions)
        hard = _expected_loss(log_p, q * class_weight)
        spread = _expected_loss(log_p, _uniform(gate.rows) * class_weight) * q.sum(axis=1)
        divisor = float(n)
    loss = hard if label_smoothing == 0 else (1 - label_smoothing) * hard + label_smoothing * spread
    if reduction == "none":
        return loss.astype(gate.dtype)
    total = loss.sum()
    if reduction == "mean":
        total = total / divisor if divisor > 0 else 0.0
    return gate.dtype.type(total)


def _class_weight(weight: ArrayLike | None, k: int) -> NDArray[np.float64]:
    if weight is None:
        return np.ones(k)
    values = np.asarray(weight, np.float64)
    if values.shape != (k,) or not (values >= 0).all():
        raise ValueError(f"cross_entropy: weight must be {k} numbers, none negative, got {values!r}")
    return values


def _uniform(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The uniform distribution over the finite logits of each row."""
    finite = np.isfinite(logits).astype(np.float64)
    return finite / np.maximum(finite.sum(axis=1, keepdims=True), 1)


def _expected_loss(log_p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """-sum q log p for each row, with 0 log 0 = 0."""
    return -np.where(q == 0, 0, np.where(q == 0, 0, log_p) * q).sum(axis=1)
