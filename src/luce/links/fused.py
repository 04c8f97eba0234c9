"""Losses of rows of logits with their gradients: logits read once, gradient written once, no array in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import enter, library, shape_of
from luce.maps import SERIAL, inverse_temperature
from luce.threads import default_threads


def loss_rows(
    name: str,
    kernel: Callable[..., None],
    logits: ArrayLike,
    target: ArrayLike,
    *,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
    shape: float = 0.0,
    margin: float = 0.0,
    sums_to_one: bool = False,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Loss per row and its gradient.

    Args:
        name: of the public function, for messages.
        kernel: of the member, for class ids and for distributions.
        logits: (N, K).
        target: (N,) class ids of any integer dtype, or (N, K) distributions, floating.
        temperature: divides the logits.
        out: (N, K), where the gradient goes; it may be `logits` itself.
        shape: the member's parameter.
        margin: taken off the target's divided logit.
        sums_to_one: whether the loss is defined for distributions only, not for any masses.

    Returns:
        Loss (N,), gradient (N, K), in the dtype that follows from `logits`.
    """
    if library(logits) is not None:
        return _of_tensors(name, kernel, logits, target, temperature, out, shape, margin, sums_to_one)
    if len(shape_of(name, logits)) != 2:
        raise ValueError(f"{name}: logits must have shape (rows, classes), got {shape_of(name, logits)}")
    gate = enter(name, logits, -1, out=out)
    rows = gate.rows
    n, k = rows.shape
    classes, distributions = checked_target(name, target, n, k, rows.dtype)
    direct = out is not None and out.flags.carray and out.dtype == rows.dtype and out.dtype.isnative
    grad = out if direct and out is not None else np.empty_like(rows)
    if distributions is not None:
        if sums_to_one:
            _check_sums(name, distributions)
        if np.may_share_memory(grad, distributions):
            distributions = distributions.copy()
    loss = np.zeros(n, rows.dtype)
    if rows.size:
        kernel(
            rows,
            classes if classes is not None else distributions,
            loss,
            grad,
            None,
            inverse_temperature(temperature, rows.dtype),
            default_threads() if rows.size >= SERIAL else 1,
            shape,
            margin,
        )
    with np.errstate(over="ignore"):
        return loss.astype(gate.dtype, copy=False), grad if direct else gate.restore(grad, out)


def checked_target(
    name: str, target: ArrayLike, n: int, k: int, dtype: np.dtype[Any], first_row: int = 0
) -> tuple[NDArray[np.int64] | None, NDArray[Any] | None]:
    """Class ids (N,) int64, or distributions (N, K) of the given dtype: one of the two, told apart by dtype.

    Raises:
        TypeError: neither integers nor floating numbers.
        ValueError: the shape does not fit, or an id is not in [0, K); the message names its row.
    """
    array = target_array(name, target)
    if array.dtype.kind in "iu":
        if array.shape != (n,):
            raise ValueError(f"{name}: target must hold one class id for each of {n} rows, got shape {array.shape}")
        if n and (array.min() < 0 or array.max() >= k):
            row = np.flatnonzero((array < 0) | (array >= k))[0]
            raise ValueError(
                f"{name}: target must lie in [0, {k}); got {array[row]} at row {row + first_row}. "
                "If labels start at 1, subtract 1."
            )
        return np.require(array, np.int64, ["C", "A"]), None
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name}: target must be integer class ids or floating distributions, got dtype {array.dtype}")
    if array.shape != (n, k):
        raise ValueError(f"{name}: target distributions must have shape {(n, k)}, got {array.shape}")
    bad = np.flatnonzero(~(array >= 0).all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: target distributions must not be negative or NaN; row {bad[0] + first_row} is")
    return None, np.require(array, dtype, ["C", "A"])


def target_array(name: str, target: ArrayLike) -> NDArray[Any]:
    """Targets as an array of any dtype.

    Raises:
        ValueError: they are none.
    """
    try:
        return np.asarray(target)
    except ValueError:
        raise ValueError(f"{name}: target must be an array; are all rows equally long?") from None


def one_hot(target: ArrayLike, k: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Class ids as distributions."""
    rows: NDArray[Any] = (np.asarray(target)[:, None] == np.arange(k)).astype(dtype)
    return rows


def _check_sums(name: str, distributions: NDArray[Any]) -> None:
    sums = distributions.sum(axis=1, dtype=np.float64)
    bad = np.flatnonzero(~(np.abs(sums - 1) <= 1e-2))
    if len(bad):
        raise ValueError(f"{name}: target distributions must sum to 1; row {bad[0]} sums to {sums[bad[0]]:g}")


def _of_tensors(
    name: str,
    kernel: Callable[..., None],
    logits: Any,
    target: Any,
    temperature: float,
    out: Any,
    shape: float,
    margin: float,
    sums_to_one: bool,
) -> tuple[Any, Any]:
    """The same on torch tensors on the CPU, out of autograd's sight: the gradient is already there."""
    if library(logits).__name__ != "torch" or logits.device.type != "cpu":
        raise TypeError(f"{name}: takes NumPy arrays and torch tensors on the CPU")
    import torch

    if out is not None and (not isinstance(out, torch.Tensor) or out.shape != logits.shape):
        raise TypeError(f"{name}: out must be a tensor of the shape of logits, {tuple(logits.shape)}")
    arrays = [
        (a.float() if a.dtype == torch.bfloat16 else a).detach().numpy() if isinstance(a, torch.Tensor) else a
        for a in (logits, target)
    ]
    place = None if out is None or out.dtype == torch.bfloat16 else out.detach().numpy()
    loss, grad = loss_rows(
        name,
        kernel,
        *arrays,
        temperature=temperature,
        out=place,
        shape=shape,
        margin=margin,
        sums_to_one=sums_to_one,
    )
    dtype = logits.dtype if logits.dtype.is_floating_point else torch.from_numpy(grad).dtype
    if out is None:
        return torch.from_numpy(loss).to(dtype), torch.from_numpy(grad).to(dtype)
    if place is None:
        out.copy_(torch.from_numpy(grad))
    return torch.from_numpy(loss).to(dtype), out
