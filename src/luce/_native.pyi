"""The kernels of Luce, bound and nothing else. Arrays are C-contiguous; results go into arrays of the caller."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_F = TypeVar("_F", np.float32, np.float64)

def softmax(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def log_softmax(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def logsumexp(x: NDArray[_F], out: NDArray[_F], beta: float = 1, n_threads: int = 1) -> None: ...
def cross_entropy(
    x: NDArray[_F],
    target: NDArray[np.int64],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
) -> None: ...
def cross_entropy_soft(
    x: NDArray[_F],
    target: NDArray[_F],
    loss: NDArray[_F],
    grad: NDArray[_F],
    weight: NDArray[_F] | None = None,
    beta: float = 1,
    n_threads: int = 1,
) -> None: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def force_instruction_set(name: str) -> None: ...
