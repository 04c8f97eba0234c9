"""Cross-entropy with torch's names and meaning, on NumPy arrays and torch tensors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import as_array, enter, library, number, plain, shape_of
from luce.links import Entmax, Link, Softmax, Sparsemax
from luce.links.fused import checked_target, target_array

Reduction = Literal["none", "mean", "sum"]


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    link: Link | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> NDArray[Any] | np.floating[Any]:
    """Cross-entropy between softmax(logits), or another link's probabilities, and the target, in nats.

    The classes are the last axis; torch puts them second. For class ids the mean divides by the sum of the weights of
    the rows that are not ignored, for distributions by N; with every row ignored, or no rows, it is 0.

    Args:
        logits: (N, K); a torch tensor keeps its gradients.
        target: (N,) class ids of any integer dtype, or (N, K) distributions.
        link: instead of `Softmax()`. Sparse ones are refused: a class with probability 0 would cost infinity, which is
            what their own `loss_and_grad` avoids. A margin counts in a link's own loss, not here.
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
    if link is not None and (isinstance(link, type) or not hasattr(link, "log_probabilities")):
        raise TypeError(f"cross_entropy: link must be a link, such as luce.links.Softmax(), got {link!r}")
    if isinstance(link, Sparsemax | Entmax):
        raise ValueError(f"cross_entropy: {link} gives probabilities of 0, which cost infinity; use its loss_and_grad")
    if len(shape_of("cross_entropy", logits)) != 2:
        raise ValueError(
            f"cross_entropy: logits must have shape (rows, classes), got {shape_of('cross_entropy', logits)}"
        )
    number("cross_entropy", "ignore_index", ignore_index)
    if str(reduction) not in ("none", "mean", "sum"):
        raise ValueError(f"cross_entropy: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0 <= number("cross_entropy", "label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    link = link or Softmax()
    if library(logits) is not None:
        from luce.losses import tensors

        y: NDArray[Any] | np.floating[Any] = tensors.cross_entropy(
            logits, target, link, weight, ignore_index, reduction, label_smoothing
        )
        return y
    gate = enter("cross_entropy", logits, -1)
    loss, divisor = weighted_rows(gate.rows, target, link, weight, ignore_index, label_smoothing)
    return reduced(loss, divisor, reduction, gate.dtype)


def weighted_rows(
    logits: NDArray[Any],
    target: ArrayLike,
    link: Link,
    weight: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
    first_row: int = 0,
    name: str = "cross_entropy",
) -> tuple[NDArray[np.float64], float]:
    """Loss (N,) of each row in float64, and what the mean divides by; messages count rows from `first_row`."""
    n, k = logits.shape
    class_weight = _class_weight(name, weight, k)
    ids = target_array(name, target)
    if ids.dtype.kind in "iu":
        kept = ids != ignore_index
        ids = np.where(kept, ids, 0)
    classes, distributions = checked_target(name, ids, n, k, np.dtype(np.float64), first_row)
    log_p = link.log_probabilities(logits)
    smooth = _expected_loss(log_p, _uniform(logits) * class_weight) if label_smoothing else np.zeros(n)
    if classes is not None:
        row_weight = class_weight[classes] * kept
        picked = log_p[np.arange(n), classes].astype(np.float64)
        hard = np.where(row_weight == 0, 0, -picked) * row_weight
        return _blend(hard, np.where(kept, smooth, 0), label_smoothing), float(row_weight.sum())
    q = np.asarray(distributions)
    return _blend(_expected_loss(log_p, q * class_weight), smooth * q.sum(axis=1), label_smoothing), float(n)


def reduced(
    loss: NDArray[np.float64], divisor: float, reduction: Reduction, dtype: np.dtype[Any]
) -> NDArray[Any] | np.floating[Any]:
    """The losses of rows as wanted, in a dtype."""
    with np.errstate(over="ignore"):  # beyond the largest float16 lies infinity
        if reduction == "none":
            return loss.astype(dtype)
        total = float(loss.sum())
        if reduction == "mean":
            total = total / divisor if divisor > 0 else 0.0
        value: NDArray[Any] = np.full((), total).astype(dtype)
        return plain(value)


def _blend(hard: NDArray[np.float64], spread: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """(1 - share) hard + share spread, where a share of 0 or 1 leaves infinity out."""
    if share in (0, 1):
        return spread if share else hard
    return (1 - share) * hard + share * spread


def _class_weight(name: str, weight: ArrayLike | None, k: int) -> NDArray[np.float64]:
    if weight is None:
        return np.ones(k)
    values = as_array(f"{name}: weight", weight).astype(np.float64)
    if values.shape != (k,) or not ((values >= 0) & (values < np.inf)).all():
        raise ValueError(f"{name}: weight must be {k} numbers, none negative or infinite, got {values!r}")
    return values


def _uniform(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Spread 1 evenly over the finite logits of each row."""
    finite = np.isfinite(logits).astype(np.float64)
    uniform: NDArray[np.float64] = finite / np.maximum(finite.sum(axis=1, keepdims=True), 1)
    return uniform


def _expected_loss(log_p: NDArray[Any], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take -sum q log p for each row, with 0 log 0 = 0."""
    loss: NDArray[np.float64] = -(np.where(q == 0, 0, log_p) * q).sum(axis=1)
    return loss
