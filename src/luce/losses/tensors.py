"""Cross-entropy of torch tensors, put together from operators that have gradients; halves in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from luce.arrays import library
from luce.links import Link
from luce.links.fused import checked_target
from luce.maps import foreign
from luce.maps.formulas import widened

Tensor = Any


def cross_entropy(
    logits: Tensor,
    target: Any,
    link: Link,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """`luce.cross_entropy` of a tensor; arguments are checked there."""
    if library(logits).__name__ != "torch":
        raise TypeError("cross_entropy: takes NumPy arrays and torch tensors")
    import torch

    given = foreign.floating(torch, "cross_entropy", logits)
    options = (link, weight, ignore_index, label_smoothing)
    return reduced(*weighted_rows(widened(torch, given), target, *options), reduction, given.dtype)


def reduced(losses: Tensor, divisor: Tensor, reduction: str, dtype: Any) -> Tensor:
    """The losses of rows as wanted, in a dtype."""
    import torch

    if reduction == "none":
        return losses.to(dtype)
    total = losses.sum()
    return (total if reduction == "sum" else total / torch.where(divisor == 0, 1.0, divisor)).to(dtype)


def weighted_rows(
    logits: Tensor,
    target: Any,
    link: Link,
    weight: Any,
    ignore_index: int,
    label_smoothing: float,
    first_row: int = 0,
    name: str = "cross_entropy",
) -> tuple[Tensor, Tensor]:
    """Loss (N,) of each row, and what the mean divides by: 0 only where every loss is 0."""
    import torch

    n, k = logits.shape
    log_p: Tensor = link.log_probabilities(logits)
    ids = torch.as_tensor(target, device=logits.device)
    w = log_p.new_ones(k) if weight is None else torch.as_tensor(weight, dtype=log_p.dtype, device=logits.device)
    if foreign.visible(torch, ids, w):
        _check(name, ids, w, n, k, ignore_index, first_row)
    finite = torch.isfinite(logits).to(log_p.dtype)
    even = finite / finite.sum(1, keepdim=True).clamp(min=1) * w
    spread = _expected(log_p, even) if label_smoothing else log_p.new_zeros(n)
    if ids.is_floating_point():
        q = ids.to(log_p.dtype)
        return _blend(_expected(log_p, q * w), spread * q.sum(1), label_smoothing), log_p.new_tensor(float(n))
    kept = ids != ignore_index
    ids = torch.where(kept, ids, 0).long()
    row_weight = w[ids] * kept
    picked = -log_p.gather(1, ids[:, None])[:, 0]
    hard = torch.where(row_weight == 0, 0.0, picked) * row_weight
    return _blend(hard, torch.where(kept, spread, 0.0), label_smoothing), row_weight.sum()


def _check(name: str, target: Tensor, weight: Tensor, n: int, k: int, ignore_index: int, first_row: int) -> None:
    if weight.shape != (k,) or not bool(((weight >= 0) & (weight < np.inf)).all()):
        raise ValueError(f"{name}: weight must be {k} numbers, none negative or infinite, got {weight}")
    values = (target.double() if target.is_floating_point() else target).detach().cpu().numpy()
    if values.dtype.kind in "iu":
        values = np.where(values == ignore_index, 0, values)
    checked_target(name, values, n, k, np.dtype(np.float64), first_row)


def _blend(hard: Tensor, spread: Tensor, share: float) -> Tensor:
    """(1 - share) hard + share spread, where a share of 0 or 1 leaves infinity out."""
    if share in (0, 1):
        return spread if share else hard
    return (1 - share) * hard + share * spread


def _expected(log_p: Tensor, q: Tensor) -> Tensor:
    """Take -sum q log p for each row, with 0 log 0 = 0."""
    import torch

    return -(torch.where(q == 0, 0.0, log_p) * q).sum(1)
