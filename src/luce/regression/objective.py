"""The data of softmax regression, and what a pass over them gives: losses, gradients, logits, moments.

Several problems that share their rows and differ in their row weights (the folds of a cross-validation) are
evaluated in one pass: their weight matrices stand below each other. With few outputs the pass is native and reads the
rows once; with many, matrix products of blocks of rows have the native losses between them.

Shapes: N rows, D features, K classes, B problems.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import _native
from luce.regression.row_loss import KERNELS, SIGMOID, SOFTMAX_LOSS, RowLoss

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating]
Total = Callable[[Float64], Float64]

_FEW_OUTPUTS = 96  # up to here the native products are the faster ones
_RUNS = 8
_BLOCK_BYTES = 1 << 22  # of features and logits of a block of rows, for matrix products
_SAMPLE_ROWS = 2048  # for the curvature, or two for each class; of few rows, a quarter
_NEAR = 100.0  # squared deviations between the pivot of the moments and the mean that cost no digits


def here(sums: Float64) -> Float64:
    """Sums over all rows where one process has them all."""
    return sums


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The data of B problems. The features are used as they are: nothing of size (N, D) is ever copied.

    Attributes:
        features: (N, D) uint8, float32 or float64, C-contiguous, perhaps a memory map.
        target: (N,) int64 class ids, or (N, K) distributions in the dtype of `weight`.
        weight: (N, B), the weight of each row in each problem; each column sums to one (over all processes). Its
            dtype, float32 or float64, is that of the arithmetic.
        center: (D,) float64, the mean of the features.
        n_classes: K.
        loss: of a row.
        intercept: whether the biases are free; else they stay 0.
        n_threads: threads that share the rows of a pass; they change no result.
        total: sums of arrays over the processes that share the rows.
    """

    features: NDArray[Any]
    target: NDArray[Any]
    weight: Floats
    center: Float64
    n_classes: int
    loss: RowLoss = SOFTMAX_LOSS
    intercept: bool = True
    n_threads: int = 1
    total: Total = here

    @property
    def n_problems(self) -> int:
        """B."""
        return int(self.weight.shape[1])

    @property
    def origin(self) -> Float64:
        """(D,) float64, what features are measured from and biases refer to: the mean, or 0 where no bias is free."""
        return self.center if self.intercept else np.zeros_like(self.center)

    @property
    def n_rows(self) -> int:
        """N, over all processes: what is decided by it must be decided alike in each."""
        return int(self.total(np.array([float(len(self.features))]))[0])

    def at(self, dtype: type[np.float32] | type[np.float64]) -> Rows:
        """The same rows for arithmetic in another dtype."""
        if self.weight.dtype == dtype:
            return self
        target = self.target if self.target.ndim == 1 else self.target.astype(dtype)
        return replace(self, target=target, weight=self.weight.astype(dtype))


def mean_and_deviation(
    features: NDArray[Any], weight: Float64, n_threads: int = 1, total: Total = here
) -> tuple[Float64, Float64]:
    """Weighted mean (D,) and standard deviation (D,) of each feature, float64, in one pass over the rows.

    Squares are taken about the mean of the first rows, so that a large common offset does not cancel; where that lies
    far from the mean, or squares overflow, once more in float64 about what was found.

    Args:
        features: (N, D).
        weight: (N,), summing to one over all processes.
        n_threads: threads that share the rows.
        total: sums arrays over the processes that share the rows.
    """
    n, d = features.shape
    dtype: type[np.floating] = np.float64 if features.dtype == np.float64 else np.float32
    near = total(np.append(features[:64].sum(0, dtype=np.float64), min(n, 64)))
    mean = near[:-1] / max(near[-1], 1)
    for _ in range(3):  # the first pass is enough but where the first rows lie far from the mean
        pivot = mean.astype(dtype)
        sums = np.zeros((2, d))
        _native.linear_moments(features, pivot, weight.astype(dtype), sums[0], sums[1], n_threads)
        first, second = total(sums)
        mean, variance = pivot + first, second - first**2
        if np.isfinite(second).all() and (first**2 <= _NEAR * variance + np.finfo(dtype).tiny).all():
            break
        dtype = np.float64
    return mean, np.sqrt(np.maximum(variance, 0.0))


def logits(rows: Rows, weights: Float64, bias: Float64) -> Floats:
    """Logits (N, B, K) for weights (B, K, D) and biases (B, K) of the centred features."""
    matrix, offset, center = _operands(rows, weights, bias)
    return affine(rows.features, matrix, offset, center, rows.n_threads).reshape(-1, rows.n_problems, rows.n_classes)


def affine(features: NDArray[Any], matrix: Floats, offset: Floats, center: Floats, n_threads: int) -> Floats:
    """(features - center) @ matrix.T + offset, (N, M) in the dtype of `matrix`; features of any native dtype."""
    out = np.empty((len(features), len(offset)), matrix.dtype)
    if len(offset) <= _FEW_OUTPUTS:
        _native.linear_logits(features, center, matrix, offset, out, n_threads)
    else:
        for block, x in _blocks(features, center, 0, len(out), len(offset)):
            np.matmul(x, matrix.T, out=out[block])
            out[block] += offset
    return out


def loss_and_grad(
    rows: Rows, points: Float64, strength: Float64, unit: Float64 | None = None
) -> tuple[Float64, Float64]:
    """Weighted mean loss of each problem plus `strength / 2` times the squares of its weights, and the gradient.

    Args:
        rows: the data.
        points: (B, K D + K), of each problem the weights (K, D) in units of 1 / `unit`, then the biases of the centred
            features: logits = (x - center) @ (weights * unit).T + bias.
        strength: (B,).
        unit: (D,); ones by default.

    Returns:
        Values (B,) and gradients (B, K D + K), float64.
    """
    (n_problems, size), k, d = points.shape, rows.n_classes, rows.features.shape[1]
    sums = np.empty(n_problems * (1 + size))
    value, grad = sums[:n_problems], sums[n_problems:].reshape(points.shape)
    if rows.total is not here:
        strength = strength * rows.weight.sum(axis=0, dtype=np.float64)  # the shares of all processes make it whole
    if n_problems * k <= _FEW_OUTPUTS:
        classes, distributions = (rows.target, None) if rows.target.ndim == 1 else (None, rows.target)
        row, origin = rows.loss, rows.origin.astype(rows.weight.dtype)
        _native.linear_pass(
            rows.features, origin, points, unit, strength, classes, distributions, rows.weight, value, grad,
            row.member, row.beta, row.shape, row.margin, rows.n_threads,
        )  # fmt: skip
    else:
        weights, bias = points[:, : k * d].reshape(n_problems, k, d), points[:, k * d :]
        steps, of_bias = np.zeros((n_problems * k, d)), np.zeros(n_problems * k)
        value[:] = strength / 2 * np.einsum("bkd,bkd->b", weights, weights)
        _wide_pass(rows, *_operands(rows, weights if unit is None else weights * unit, bias), value, steps, of_bias)
        if unit is not None:
            steps *= unit
        grad[:, : k * d] = steps.reshape(n_problems, -1) + strength[:, None] * points[:, : k * d]
        grad[:, k * d :] = of_bias.reshape(n_problems, k)
    sums = rows.total(sums)
    value, grad = sums[:n_problems], sums[n_problems:].reshape(points.shape)
    if not rows.intercept:
        grad[:, k * d :] = 0
    return value, grad


def curvature(rows: Rows, weights: Float64, bias: Float64, *, every_row: bool = False) -> tuple[Float64, Float64]:
    """The second derivative of each problem's loss in the logits, over a sample of the rows or all of them.

    Returns:
        Its mean (B, K, K), and the mean of the centred features (B, D) where each row counts with its share in the
        trace.
    """
    (n, d), k, row = rows.features.shape, rows.n_classes, rows.loss
    wanted = n if every_row else max(min(_SAMPLE_ROWS, n // 4), 2 * k, 512)
    sums = np.empty((rows.n_problems, k * k + d + 2))
    matrix, offset, center = _operands(rows, weights, bias)
    _native.linear_curvature(
        rows.features, center, matrix, offset, rows.weight, row.member, row.beta, row.shape, max(1, -(-n // wanted)),
        sums, rows.n_threads,
    )  # fmt: skip
    sums = rows.total(sums)
    classes, mean, trace, weight = np.split(sums, [k * k, k * k + d, k * k + d + 1], axis=1)
    tiny = np.finfo(np.float64).tiny
    return (classes / np.maximum(weight, tiny)).reshape(-1, k, k), mean / np.maximum(trace, tiny)


def _operands(rows: Rows, weights: Float64, bias: Float64) -> tuple[Floats, Floats, Floats]:
    """The stacked matrix (B K, D), offset (B K,) and center (D,) in the dtype of the arithmetic."""
    dtype = rows.weight.dtype
    matrix = weights.reshape(-1, weights.shape[-1]).astype(dtype)
    return matrix, bias.reshape(-1).astype(dtype), rows.origin.astype(dtype)


def _blocks(
    features: NDArray[Any], center: Floats, first: int, last: int, n_outputs: int
) -> Iterator[tuple[slice, Floats]]:
    """Blocks of the rows from first to last as centred floats."""
    size = max(64, _BLOCK_BYTES // (center.itemsize * (len(center) + 2 * n_outputs)))
    for start in range(first, last, size):
        block = slice(start, min(start + size, last))
        x = features[block].astype(center.dtype)
        x -= center
        yield block, x


def _wide_pass(
    rows: Rows, matrix: Floats, offset: Floats, center: Floats, loss: Float64, grad: Float64, grad_bias: Float64
) -> None:
    """Add the sums over all rows, by matrix products. The rows are cut the same way for any number of threads."""
    n = len(rows.features)
    count = max(1, min(_RUNS, n // 256))
    parts = [(n * i // count, n * (i + 1) // count) for i in range(count)]
    run = functools.partial(_wide_run, rows, matrix, offset, center)
    with ThreadPoolExecutor(max(1, min(rows.n_threads, count))) as pool:
        for part_loss, part_grad, part_bias in pool.map(run, parts):
            loss += part_loss
            grad += part_grad
            grad_bias += part_bias


def _wide_run(
    rows: Rows, matrix: Floats, offset: Floats, center: Floats, part: tuple[int, int]
) -> tuple[Float64, Floats, Float64]:
    """Loss (B,), gradient (B K, D) and gradient in the bias (B K,) of some of the rows."""
    b, k, row = rows.n_problems, rows.n_classes, rows.loss
    loss, grad_bias = np.zeros(b), np.zeros(len(offset))
    grad = np.zeros(matrix.shape, matrix.dtype)
    for block, x in _blocks(rows.features, center, *part, len(offset)):
        z = x @ matrix.T
        z += offset
        value = np.empty(len(x) * b, z.dtype)
        target = np.repeat(rows.target[block], b, axis=0)
        weight = np.ascontiguousarray(rows.weight[block]).reshape(-1)
        flat = z.reshape(-1, k)
        parameters = () if row.member == SIGMOID else (row.shape, row.margin)
        KERNELS[row.member](flat, target, value, flat, weight, row.beta, 1, *parameters)
        loss += value.reshape(-1, b).sum(0, dtype=np.float64)
        grad_bias += z.sum(0, dtype=np.float64)
        grad += z.T @ x
    return loss, grad, grad_bias
