"""Brier's score as a loss: the squared distance of the probabilities from the target.

L = sum (p_k - q_k)^2 over the classes, p = softmax(z), from 0 to 2; dL/dz = 2 p (d - p.d), d = p - q. scikit-learn's
binary score is half of it. Source: Brier 1950, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import library
from luce.links.softmax import softmax
from luce.losses.focal import logits_and_distributions, tensors_and_distributions
from luce.maps.formulas import softmax_vjp


def brier(logits: ArrayLike, target: ArrayLike) -> NDArray[Any]:
    """Brier's score of each row, from 0 (certain and right) to 2 (certain and wrong).

    Args:
        logits: (N, K); a torch tensor keeps its gradients.
        target: (N,) class ids of any integer dtype, or (N, K) distributions.

    Returns:
        Loss (N,) in the dtype that follows from `logits`.

    Raises:
        TypeError, ValueError: the message names the argument, and the row of a wrong class id.

    >>> brier([[1.0, 2.0, 3.0]], [2]).round(4)
    array([0.1801])
    """
    if library(logits) is not None:
        of_tensor: NDArray[Any] = _of_tensor(logits, target)
        return of_tensor
    return brier_and_grad(logits, target)[0]


def brier_and_grad(logits: ArrayLike, target: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Brier's score (N,) of each row of an array and its gradient (N, K); arguments and errors are those of `brier`."""
    gate, q = logits_and_distributions("brier", logits, target)
    p = softmax(gate.rows)
    gap = p - q
    loss = (gap * gap).sum(axis=1, dtype=np.float64)
    grad = 2 * softmax_vjp(np, p, gate.rows, gap, -1)
    limit = np.isinf(gate.rows.max(axis=1, initial=-np.inf))
    grad = np.where(limit[:, None], 0, grad)
    with np.errstate(over="ignore"):
        return loss.astype(gate.dtype), gate.restore(grad.astype(gate.rows.dtype), None)


def _of_tensor(logits: Any, target: Any) -> Any:
    z, q = tensors_and_distributions("brier", logits, target)
    loss = ((softmax(z) - q) ** 2).sum(1)
    return loss.to(logits.dtype if logits.is_floating_point() else z.dtype)
