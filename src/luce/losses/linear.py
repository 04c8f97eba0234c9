"""Cross-entropy of a linear layer without the matrix of its logits: rows are worked on in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luce.arrays import as_array, enter, library, number
from luce.links import Entmax, Link, Softmax, Sparsemax
from luce.links.fused import checked_target
from luce.losses.cross_entropy import Reduction, reduced, weighted_rows

PIECE = 1 << 22  # logits at a time

_Options = tuple[Link, Any, int, float]  # link, weight, ignore_index, label_smoothing


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
        link: as in `cross_entropy`, and so are the next four.
        weight: (K,) class weights, not negative.
        ignore_index: rows with this class id have loss 0.
        reduction: "none", "mean" or "sum".
        label_smoothing: share of each target that is spread evenly.
        rows_at_a_time: size of a piece; by default one of 4 million logits.

    Returns:
        Loss in the dtype of `input`.

    Raises:
        TypeError, ValueError: the message names the argument, and the row of a wrong class id.

    >>> linear_cross_entropy([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [0]).round(4)
    np.float64(0.3133)
    """
    name = "linear_cross_entropy"
    link = Softmax() if link is None else link
    if isinstance(link, type | Sparsemax | Entmax) or not hasattr(link, "log_probabilities"):
        raise ValueError(f"{name}: link must be one whose probabilities are positive, got {link!r}")
    if str(reduction) not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0 <= number(name, "label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], got {label_smoothing}")
    if rows_at_a_time is not None and not number(name, "rows_at_a_time", rows_at_a_time) >= 1:
        raise ValueError(f"{name}: rows_at_a_time must be at least 1, got {rows_at_a_time!r}")
    number(name, "ignore_index", ignore_index)
    tensors = library(input) is not None
    x: Any = input if tensors else as_array(f"{name}: input", input)
    matrix: Any = linear_weight if tensors else as_array(f"{name}: linear_weight", linear_weight)
    if tensors and any(a is not None and library(a) is not library(x) for a in (matrix, linear_bias)):
        raise TypeError(f"{name}: linear_weight and linear_bias must be tensors, as input is")
    if x.ndim != 2 or matrix.ndim != 2 or x.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"{name}: input must have shape (N, D) and linear_weight (K, D), got {tuple(x.shape)} and "
            f"{tuple(matrix.shape)}"
        )
    k = matrix.shape[0]
    bias: Any = linear_bias
    if not tensors and bias is not None:
        bias = as_array(f"{name}: linear_bias", bias)
    if bias is not None and tuple(bias.shape) != (k,):
        raise ValueError(f"{name}: linear_bias must have shape {(k,)}, got {tuple(bias.shape)}")
    piece = max(1, PIECE // max(k, 1)) if rows_at_a_time is None else int(min(rows_at_a_time, PIECE))
    options = (link, weight, ignore_index, label_smoothing)
    run: Any = _of_tensors if tensors else _of_arrays
    loss: NDArray[Any] | np.floating[Any] = run(name, x, matrix, target, bias, piece, reduction, options)
    return loss


def _of_arrays(
    name: str,
    x: NDArray[Any],
    matrix: NDArray[Any],
    target: ArrayLike,
    bias: NDArray[Any] | None,
    piece: int,
    reduction: Reduction,
    options: _Options,
) -> NDArray[Any] | np.floating[Any]:
    few = enter(name, x[:0], -1)  # to learn the dtypes
    compute, n = few.rows.dtype, len(x)
    y = as_array(f"{name}: target", target)
    ids = np.where(y == options[2], 0, y) if y.dtype.kind in "iu" else y
    checked_target(name, ids, n, len(matrix), y.dtype)
    matrix_t = matrix.astype(compute, copy=False).T
    offset = 0 if bias is None else bias.astype(compute, copy=False)
    losses, divisor = np.zeros(n), 0.0
    for first in range(0, n, piece):
        part = slice(first, first + piece)
        with np.errstate(over="ignore", invalid="ignore"):  # the limits are meant
            logits = x[part].astype(compute, copy=False) @ matrix_t
            logits += offset
        losses[part], share = weighted_rows(logits, y[part], *options, first_row=first, name=name)
        divisor += share
    return reduced(losses, divisor, reduction, few.dtype)


def _of_tensors(
    name: str, x: Any, matrix: Any, target: Any, bias: Any, piece: int, reduction: str, options: _Options
) -> Any:
    if library(x).__name__ != "torch":
        raise TypeError(f"{name}: takes NumPy arrays and torch tensors")
    import torch
    from torch.utils.checkpoint import checkpoint

    from luce.losses import tensors
    from luce.maps import foreign
    from luce.maps.formulas import widened

    y = torch.as_tensor(target, device=x.device)
    given = foreign.floating(torch, f"{name}: input", x)
    x, matrix = widened(torch, given), matrix.to(widened(torch, given).dtype)
    bias = None if bias is None else bias.to(x.dtype)

    def part(x: Any, y: Any, first: int) -> tuple[Any, Any]:
        logits = torch.nn.functional.linear(x, matrix, bias)
        return tensors.weighted_rows(logits, y, *options, first_row=first, name=name)

    starts = range(0, max(len(x), 1), piece)  # no rows are one piece, too
    parts = [checkpoint(part, x[i : i + piece], y[i : i + piece], i, use_reentrant=False) for i in starts]
    losses = torch.cat([losses for losses, _ in parts])
    divisor = torch.stack([share for _, share in parts]).sum()
    return tensors.reduced(losses, divisor, reduction, given.dtype)
