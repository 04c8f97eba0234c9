"""Focal loss: cross-entropy that cares less for what is already certain.

L = -(1 - p_y)^gamma log p_y, p = softmax(z); with a distribution q for a target the sum of q_k times that of class k.
1 - p is computed from log p without cancellation. dL/dz = q c - p sum(q c), with c = gamma p (1 - p)^(gamma - 1) log p
- (1 - p)^gamma. Sources: Lin et al. 2017, arXiv 1708.02002; for calibration Mukhoti et al. 2020, arXiv 2002.09437.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import Gate, enter, library, not_negative
from luce.links import log_softmax
from luce.links.fused import checked_target, one_hot
from luce.maps.formulas import widened


def focal(logits: ArrayLike, target: ArrayLike, *, gamma: float = 2.0) -> NDArray[Any]:
    """Focal loss of each row, in nats.

    Args:
        logits: (N, K); a torch tensor keeps its gradients.
        target: (N,) class ids of any integer dtype, or (N, K) distributions.
        gamma: not negative; 0 is cross-entropy.

    Returns:
        Loss (N,) in the dtype that follows from `logits`.

    Raises:
        TypeError, ValueError: the message names the argument, and the row of a wrong class id.

    >>> focal([[1.0, 2.0, 3.0]], [2]).round(4)
    array([0.0457])
    """
    if library(logits) is not None:
        of_tensor: NDArray[Any] = _of_tensor(logits, target, not_negative("focal", "gamma", gamma))
        return of_tensor
    return focal_and_grad(logits, target, gamma=gamma)[0]


def focal_and_grad(logits: ArrayLike, target: ArrayLike, *, gamma: float = 2.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Focal loss (N,) of each row of an array and its gradient (N, K); arguments and errors are those of `focal`."""
    not_negative("focal", "gamma", gamma)
    gate, q = logits_and_distributions("focal", logits, target)
    log_p = np.minimum(log_softmax(gate.rows), 0)  # rounding may leave it above by less than an ulp of 1
    p, rest = np.exp(log_p), -np.expm1(log_p)  # rest = 1 - p
    safe = np.where(q == 0, 0, log_p)
    loss = -(q * rest**gamma * safe).sum(axis=1, dtype=np.float64)
    finite = np.where(p > 0, log_p, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = np.where(rest > 0, gamma * p * rest ** (gamma - 1) * finite, 0) if gamma else 0
    pull = q * (bend - rest**gamma)
    grad = pull - p * pull.sum(axis=1, keepdims=True, dtype=np.float64)
    limit = np.isinf(gate.rows.max(axis=1, initial=-np.inf))
    grad = np.where(limit[:, None], 0, grad)
    with np.errstate(over="ignore"):
        return loss.astype(gate.dtype), gate.restore(grad.astype(gate.rows.dtype), None)


def _of_tensor(logits: Any, target: Any, gamma: float) -> Any:
    z, q = tensors_and_distributions("focal", logits, target)
    import torch

    log_p: Any = log_softmax(z)
    rest: Any = -torch.expm1(log_p)
    safe = torch.where(q == 0, 0.0, log_p)
    weight = torch.where(rest > 0, torch.where(rest > 0, rest, 1.0) ** gamma, 0.0) if gamma else 1.0
    return (-(q * weight * safe).sum(1)).to(logits.dtype if logits.is_floating_point() else z.dtype)


def logits_and_distributions(name: str, logits: ArrayLike, target: ArrayLike) -> tuple[Gate, NDArray[Any]]:
    """Check logits (N, K), and bring their targets into the form of distributions of the same dtype.

    Raises:
        TypeError, ValueError: they do not fit.
    """
    gate = enter(name, logits, -1)
    if len(gate.given) != 2:
        raise ValueError(f"{name}: logits must have shape (rows, classes), got {gate.given}")
    n, k = gate.rows.shape
    classes, distributions = checked_target(name, target, n, k, gate.rows.dtype)
    return gate, np.asarray(distributions) if classes is None else one_hot(classes, k, gate.rows.dtype)


def tensors_and_distributions(name: str, logits: Any, target: Any) -> tuple[Any, Any]:
    """The same for a tensor, halves in float32.

    Raises:
        TypeError, ValueError: they do not fit.
    """
    if library(logits).__name__ != "torch":
        raise TypeError(f"{name}: takes NumPy arrays and torch tensors")
    import torch

    from luce.maps import foreign

    z = widened(torch, foreign.floating(torch, name, logits))
    if z.ndim != 2:
        raise ValueError(f"{name}: logits must have shape (rows, classes), got {tuple(z.shape)}")
    y = torch.as_tensor(target, device=z.device)
    n, k = z.shape
    if foreign.visible(torch, y):
        values = (y.double() if y.is_floating_point() else y).detach().cpu().numpy()
        checked_target(name, values, n, k, np.dtype(np.float64))
    q = y if y.is_floating_point() else y[:, None] == torch.arange(k, device=z.device)
    return z, q.to(z.dtype)
