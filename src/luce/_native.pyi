"""The kernels of Luce, bound and nothing else. Arrays are C-contiguous; results go into arrays of the caller.

Maps take rows (N, K) or slabs (M, K, S) of which K is the axis of the classes; `target` (with `margin`) and `shapes`,
one for each row, are for rows only. Losses take class ids (N,) or distributions (N, K).
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_F = TypeVar("_F", np.float32, np.float64)

def softmax(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def taylor(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def spherical(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def entmax(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def log_softmax(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def log_taylor(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def log_spherical(
    x: NDArray[_F],
    out: NDArray[_F],
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    target: NDArray[np.int64] | None = None,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def logsumexp(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def sigmoid(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def log_sigmoid(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def softmax_loss(
    x: NDArray[_F],
    target: NDArray[np.int64] | NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def taylor_loss(
    x: NDArray[_F],
    target: NDArray[np.int64] | NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def spherical_loss(
    x: NDArray[_F],
    target: NDArray[np.int64] | NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def entmax_loss(
    x: NDArray[_F],
    target: NDArray[np.int64] | NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def sigmoid_loss(
    x: NDArray[_F],
    target: NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
    shape: float = 0,
    margin: float = 0,
    shapes: NDArray[np.float64] | None = None,
) -> None: ...
def linear_pass(
    x: NDArray[Any],
    center: NDArray[_F],
    points: NDArray[np.float64],
    unit: NDArray[np.float64] | None,
    strength: NDArray[np.float64],
    classes: NDArray[np.int64] | None,
    distributions: NDArray[_F] | None,
    weight: NDArray[_F],
    value: NDArray[np.float64],
    grad: NDArray[np.float64],
    member: int,
    beta: float,
    shape: float,
    margin: float,
    n_threads: int,
) -> None: ...
def linear_logits(
    x: NDArray[Any],
    center: NDArray[_F],
    matrix: NDArray[_F],
    offset: NDArray[_F],
    out: NDArray[_F],
    n_threads: int,
) -> None: ...
def linear_curvature(
    x: NDArray[Any],
    center: NDArray[_F],
    matrix: NDArray[_F],
    offset: NDArray[_F],
    weight: NDArray[_F],
    member: int,
    beta: float,
    shape: float,
    step: int,
    sums: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def linear_moments(
    x: NDArray[Any],
    center: NDArray[_F],
    weight: NDArray[_F],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def lbfgs_add(
    pairs: NDArray[np.float64],
    products: NDArray[np.float64],
    scale: NDArray[np.float64],
    count: NDArray[np.int64],
    newest: NDArray[np.int64],
    moved: NDArray[np.bool_],
    step: NDArray[np.float64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    turned_before: NDArray[np.float64],
    turned_after: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def lbfgs_direction(
    pairs: NDArray[np.float64],
    products: NDArray[np.float64],
    scale: NDArray[np.float64],
    count: NDArray[np.int64],
    newest: NDArray[np.int64],
    grad: NDArray[np.float64],
    turned_grad: NDArray[np.float64],
    out: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def lbfgs_metric(
    vectors: NDArray[np.float64],
    classes: NDArray[np.float64],
    gain: NDArray[np.float64],
    roots: NDArray[np.float64] | None,
    bias_divisor: NDArray[np.float64],
    mean: NDArray[np.float64],
    grads: NDArray[np.float64],
    out: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def small(
    member: int, log: bool, x: object, out: object, temperature: float, shape: float
) -> NDArray[np.float32] | NDArray[np.float64] | None: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def force_instruction_set(name: str) -> None: ...
