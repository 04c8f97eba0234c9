"""Cross-entropy of a linear layer without the matrix of its logits: rows are worked on in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import as_array, library, number
from luce.links import Link, Softmax
from luce.losses.cross_entropy import Reduction, reduced, weighted_rows

PIECE = 1 << 24  # logits at a time


def linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    link: Link | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    rows_at_a_time: int | None = None,
) -> NDArray[Any] | np.floating[Any]:
    """`cross_entropy(input @ linear_weight.T + linear_bias, target)` with the logits of a piece of the rows at a time.

    For torch tensors every piece is computed again on the way back (checkpointing), so that gradients need no more
    memory than values; they have second derivatives, too.

    Args:
        input: (N, D) features.
        linear_weight: (K, D).
        target: (N,) class ids of any integer dtype, or (N, K) distributions.
        linear_bias: (K,).
        link, weight, ignore_index, reduction, label_smoothing: as in `cross_entropy`.
        rows_at_a_time: size of a piece; by default one of 16 million logits.

    Returns:
        Loss in the dtype of `input`.

    Raises:
        TypeError, ValueError: the message names the argument, and the row of a wrong class id.

    >>> linear_cross_entropy([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [0]).round(4)
    np.float64(0.3133)
    """
    link = link or Softmax()
    name = "linear_cross_entropy"
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0 <= number(name, "label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    tensors = library(input) is not None
    x: Any = input if tensors else as_array(name, input)
    matrix: Any = linear_weight if tensors else as_array(name, linear_weight)
    if x.ndim != 2 or matrix.ndim != 2 or x.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"{name}: input must have shape (N, D) and linear_weight (K, D), got {tuple(x.shape)} and "
            f"{tuple(matrix.shape)}"
        )
    if linear_bias is not None and tuple(np.shape(linear_bias)) != (matrix.shape[0],):
        raise ValueError(f"{name}: linear_bias must have shape {(matrix.shape[0],)}, got {np.shape(linear_bias)}")
    piece = rows_at_a_time or max(1, PIECE // max(matrix.shape[0], 1))
    options = (link, weight, ignore_index, label_smoothing)
    if tensors:
        return _of_tensors(x, matrix, target, linear_bias, piece, reduction, options)
    given = x.dtype if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else np.dtype(np.float64)
    compute = np.float64 if given == np.float64 else np.float32
    matrix_t = matrix.astype(compute, copy=False).T
    bias = 0 if linear_bias is None else np.asarray(linear_bias, compute)
    y = np.asarray(target)
    losses, divisor = np.zeros(len(x)), 0.0
    for first in range(0, len(x), piece):
        part = slice(first, first + piece)
        logits = x[part].astype(compute, copy=False) @ matrix_t + bias
        losses[part], share = weighted_rows(logits, y[part], *options, first_row=first)
        divisor += share
    return reduced(losses, divisor, reduction, given)


def _of_tensors(x: Any, matrix: Any, target: Any, bias: Any, piece: int, reduction: str, options: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    from luce.losses import tensors

    y = torch.as_tensor(target, device=x.device)

    def part(x: Any, y: Any, first: int) -> tuple[Any, Any]:
        return tensors.weighted_rows(torch.nn.functional.linear(x, matrix, bias), y, *options, first_row=first)

    parts = [
        checkpoint(part, x[first : first + piece], y[first : first + piece], first, use_reentrant=False)
        for first in range(0, len(x), piece)
    ]
    if not parts:
        return x.new_zeros(0) if reduction == "none" else x.sum() * 0
    losses = torch.cat([losses for losses, _ in parts])
    if reduction == "none":
        return losses
    divisor = torch.stack([share for _, share in parts]).sum()
    return losses.sum() if reduction == "sum" else losses.sum() / divisor.clamp(min=1e-38)
