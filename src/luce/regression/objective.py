"""The objective of softmax regression: weighted cross-entropy plus a quadratic penalty, and its gradient.

Several problems that share their rows and differ in their row weights (the folds of a cross-validation) are
evaluated in one pass over the data: their weight matrices stand beside each other in one matrix product.

Shapes: N rows, D features, K classes, B problems.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from luce import _native

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_RUNS = 8
_WORTH_A_THREAD = 20_000_000  # multiply-adds of half a pass: below, starting threads costs more than they save
_BLOCK_BYTES = 1 << 21  # a block of rows and its logits stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Rows:
    """The data of B problems. Nothing is copied: the features may be uint8, float32 or a memory map.

    Attributes:
        features: (N, D) uint8, float32 or float64, C-contiguous.
        target: (N,) int64 class ids.
        weight: (N, B), the weight of each row in each problem; each column sums to one.
        center: (D,) float64, the point that the biases refer to.
        n_classes: K.
        n_threads: threads that share the rows of a pass.
    """

    features: NDArray[np.generic]
    target: NDArray[np.int64]
    weight: Float64
    center: Float64
    n_classes: int
    n_threads: int = 1

    @property
    def n_problems(self) -> int:
        """B."""
        return int(self.weight.shape[1])

    @property
    def dtype(self) -> type[np.float32] | type[np.float64]:
        """The dtype of the matrix products: float64 for float64 features, else float32."""
        return np.float64 if self.features.dtype == np.float64 else np.float32

    def blocks(self) -> list[slice]:
        """Row ranges whose features and logits fit in the cache together."""
        itemsize = np.dtype(self.dtype).itemsize
        row = (self.features.shape[1] + 2 * self.n_problems * self.n_classes) * itemsize
        step = max(64, _BLOCK_BYTES // row)
        return [slice(i, min(i + step, len(self.target))) for i in range(0, len(self.target), step)]

    def runs(self) -> list[list[slice]]:
        """The blocks in a few runs, the same for any number of threads, so that threads change no result."""
        blocks = self.blocks()
        size = -(-len(blocks) // _RUNS)
        return [blocks[i : i + size] for i in range(0, len(blocks), size)]


def mean_and_deviation(features: NDArray[np.generic], weight: Float64) -> tuple[Float64, Float64]:
    """Weighted mean (D,) and standard deviation (D,) of each feature, float64, in one pass over the rows.

    Squares are taken about the mean of the first block, so that a large common offset does not cancel.

    Args:
        features: (N, D).
        weight: (N,), summing to one.
    """
    dtype = np.float64 if features.dtype == np.float64 else np.float32
    step = max(64, _BLOCK_BYTES // (8 * features.shape[1]))
    pivot = np.asarray(features[:step], dtype).mean(0)
    first = np.zeros(features.shape[1])
    second = np.zeros(features.shape[1])
    for start in range(0, len(features), step):
        block = np.asarray(features[start : start + step], dtype) - pivot
        w = weight[start : start + step].astype(dtype)
        first += w @ block
        block *= block
        second += w @ block
    return pivot + first, np.sqrt(np.maximum(second - first**2, 0.0))


def logits(rows: Rows, weights: Float64, bias: Float64) -> NDArray[np.floating]:
    """Logits (N, B, K) for weights (B, K, D) and biases (B, K) of the centred features."""
    matrix, offset = _affine(rows, weights, bias)
    out = np.empty((len(rows.target), len(offset)), rows.dtype)
    for block in rows.blocks():
        np.matmul(_floats(rows, block), matrix.T, out=out[block])
        out[block] += offset
    return out.reshape(-1, rows.n_problems, rows.n_classes)


def loss_and_grad(rows: Rows, weights: Float64, bias: Float64) -> tuple[Float64, Float64, Float64]:
    """Weighted mean cross-entropy of each problem and its gradient, without the penalty.

    Args:
        rows: the data.
        weights: (B, K, D), applied to the raw features.
        bias: (B, K), of the centred features: logits = (x - center) @ weights.T + bias.

    Returns:
        Loss (B,), gradient in weights (B, K, D), gradient in bias (B, K), all float64.
    """
    matrix, offset = _affine(rows, weights, bias)
    runs = [partial(_pass, rows, run, matrix, offset) for run in rows.runs()]
    if rows.n_threads > 1 and len(rows.target) * matrix.size > _WORTH_A_THREAD:
        with ThreadPoolExecutor(rows.n_threads) as pool:
            parts = list(pool.map(lambda run: run(), runs))
    else:
        parts = [run() for run in runs]
    loss, grad, grad_bias = parts[0][0], parts[0][1].astype(np.float64), parts[0][2]
    for part in parts[1:]:
        loss += part[0]
        grad += part[1]
        grad_bias += part[2]
    grad -= grad_bias[:, None] * rows.center
    return loss, grad.reshape(weights.shape), grad_bias.reshape(bias.shape)


def _pass(
    rows: Rows, blocks: list[slice], matrix: NDArray[np.floating], offset: NDArray[np.floating]
) -> tuple[Float64, NDArray[np.floating], Float64]:
    """Loss (B,), gradient (B K, D) of the raw features in their dtype, and (B K,), of some of the rows."""
    n_problems, n_classes = rows.n_problems, rows.n_classes
    loss = np.zeros(n_problems)
    grad = np.zeros(matrix.shape, rows.dtype)
    grad_bias = np.zeros(len(offset))
    for block in blocks:
        x = _floats(rows, block)
        z = x @ matrix.T
        z += offset
        value = np.empty(len(x) * n_problems, rows.dtype)
        _native.softmax_loss(
            z.reshape(-1, n_classes),
            np.repeat(rows.target[block], n_problems),
            value,
            z.reshape(-1, n_classes),
            np.ascontiguousarray(rows.weight[block], rows.dtype).reshape(-1),
        )
        loss += value.reshape(-1, n_problems).sum(0, dtype=np.float64)
        grad_bias += z.sum(0, dtype=np.float64)
        grad += z.T @ x
    return loss, grad, grad_bias


def _affine(rows: Rows, weights: Float64, bias: Float64) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The stacked matrix (B K, D) and offset (B K,) that act on the raw features."""
    matrix = weights.reshape(-1, weights.shape[-1])
    offset = bias.reshape(-1) - matrix @ rows.center
    return matrix.astype(rows.dtype), offset.astype(rows.dtype)


def _floats(rows: Rows, block: slice) -> NDArray[np.floating]:
    return np.asarray(rows.features[block], rows.dtype)
