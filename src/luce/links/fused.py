"""Cross-entropy of rows of logits and its gradient in one native pass: logits read once, gradient written once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce import _native
from luce.arrays import enter, positive
from luce.threads import default_threads


def cross_entropy_rows(
    name: str,
    logits: ArrayLike,
    target: ArrayLike,
    *,
    temperature: float = 1.0,
    weight: NDArray[Any] | None = None,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Loss per row and its gradient.

    Args:
        name: of the public function, for messages.
        logits: (N, K).
        target: (N,) class ids of any integer dtype, or (N, K) distributions, floating.
        temperature: divides the logits.
        weight: (N,), multiplies loss and gradient of each row.
        out: (N, K), where the gradient goes; it may be `logits` itself.

    Returns:
        Loss (N,), gradient (N, K), in the dtype that follows from `logits`.
    """
    positive(name, "temperature", temperature)
    if np.ndim(logits) != 2:
        raise ValueError(f"{name}: logits must have shape (rows, classes), got {np.shape(logits)}")
    gate = enter(name, logits, -1, out=out)
    rows = gate.rows
    beta = inverse_temperature(temperature, rows.dtype)
    n, k = rows.shape
    classes, distributions = checked_target(name, target, n, k, rows.dtype)
    direct = out is not None and out.flags.c_contiguous and out.dtype == rows.dtype
    grad = out if direct and out is not None else np.empty_like(rows)
    if distributions is not None and np.may_share_memory(grad, distributions):
        distributions = distributions.copy()
    loss = np.zeros(n, rows.dtype)
    w = None if weight is None else np.ascontiguousarray(weight, rows.dtype)
    if rows.size:
        n_threads = default_threads() if rows.size > 1 << 16 else 1
        if classes is not None:
            _native.cross_entropy(rows, classes, loss, grad, w, beta=beta, n_threads=n_threads)
        elif distributions is not None:
            _native.cross_entropy_soft(rows, distributions, loss, grad, w, beta=beta, n_threads=n_threads)
    with np.errstate(over="ignore"):
        return loss.astype(gate.dtype, copy=False), grad if direct else gate.restore(grad, out)


def inverse_temperature(temperature: float, dtype: np.dtype[Any]) -> float:
    """1 / temperature within what `dtype` holds: past its ends 0 times infinity would give NaN."""
    if temperature == 1:
        return 1.0
    limits = np.finfo(dtype)
    return min(max(1 / temperature, float(limits.smallest_subnormal)), float(limits.max))


def checked_target(
    name: str, target: ArrayLike, n: int, k: int, dtype: np.dtype[Any]
) -> tuple[NDArray[np.int64] | None, NDArray[Any] | None]:
    """Class ids (N,) int64, or distributions (N, K) of the given dtype: one of the two, told apart by dtype.

    Raises:
        TypeError: neither integers nor floating numbers.
        ValueError: the shape does not fit, or an id is not in [0, K); the message names its row.
    """
    array = np.asarray(target)
    if array.dtype.kind in "iu":
        if array.shape != (n,):
            raise ValueError(f"{name}: target must hold one class id for each of {n} rows, got shape {array.shape}")
        bad = np.flatnonzero((array < 0) | (array >= k))
        if len(bad):
            raise ValueError(
                f"{name}: target must lie in [0, {k}); got {array[bad[0]]} at row {bad[0]}. "
                "If labels start at 1, subtract 1."
            )
        return np.ascontiguousarray(array, np.int64), None
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: target must be integer class ids or floating distributions, got dtype {array.dtype}")
    if array.shape != (n, k):
        raise ValueError(f"{name}: target distributions must have shape {(n, k)}, got {array.shape}")
    bad = np.flatnonzero(~(array >= 0).all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: target distributions must not be negative or NaN; row {bad[0]} is")
    return None, np.ascontiguousarray(array, dtype)
