"""Cross-entropy with torch's names and meaning, on NumPy arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import enter, number
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
    if not 0 <= number("cross_entropy", "label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    gate = enter("cross_entropy", logits, -1)
    n, k = gate.rows.shape
    class_weight = _class_weight(weight, k)
    ids = np.asarray(target)
    if ids.dtype.kind in "iu":
        kept = ids != ignore_index
        ids = np.where(kept, ids, 0)
    classes, distributions = checked_target("cross_entropy", ids, n, k, np.dtype(np.float64))
    log_p = log_softmax(gate.rows).astype(np.float64)
    if classes is not None:
        rows = np.arange(n)
        row_weight = class_weight[classes] * kept
        hard = np.where(row_weight == 0, 0, -log_p[rows, classes]) * row_weight
        spread = np.where(kept, _expected_loss(log_p, _uniform(gate.rows) * class_weight), 0)
        divisor = row_weight.sum()
    else:
        q = np.asarray(distributions)
        hard = _expected_loss(log_p, q * class_weight)
        spread = _expected_loss(log_p, _uniform(gate.rows) * class_weight) * q.sum(axis=1)
        divisor = float(n)
    loss = _blend(hard, spread, label_smoothing)
    with np.errstate(over="ignore"):  # beyond the largest float16 lies infinity
        if reduction == "none":
            return loss.astype(gate.dtype)
        total = loss.sum()
        if reduction == "mean":
            total = total / divisor if divisor > 0 else 0.0
        return gate.dtype.type(total)


def _blend(hard: NDArray[np.float64], spread: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """(1 - share) hard + share spread, where a share of 0 or 1 leaves infinity out."""
    if share in (0, 1):
        return spread if share else hard
    return (1 - share) * hard + share * spread


def _class_weight(weight: ArrayLike | None, k: int) -> NDArray[np.float64]:
    if weight is None:
        return np.ones(k)
    values = np.asarray(weight, np.float64)
    if values.shape != (k,) or not (values >= 0).all():
        raise ValueError(f"cross_entropy: weight must be {k} numbers, none negative, got {values!r}")
    return values


def _uniform(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Spread 1 evenly over the finite logits of each row."""
    finite = np.isfinite(logits).astype(np.float64)
    uniform: NDArray[np.float64] = finite / np.maximum(finite.sum(axis=1, keepdims=True), 1)
    return uniform


def _expected_loss(log_p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take -sum q log p for each row, with 0 log 0 = 0."""
    loss: NDArray[np.float64] = -(np.where(q == 0, 0, log_p) * q).sum(axis=1)
    return loss
