"""Sigmoid: independent questions, each with a probability of its own.

s(t) = 1 / (1 + exp(-t)), evaluated from exp(-|t|); log s(t) = min(t, 0) - log(1 + exp(-|t|)). K sigmoids answer K
yes-or-no questions: the probabilities of a row do not sum to 1, and dividing them by their sum is not softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import positive
from luce.links.fused import loss_rows, one_hot
from luce.maps import ARGMAX, Map, apply, elementwise, formulas

SIGMOID = Map("sigmoid", elementwise(_native.sigmoid), formulas.sigmoid, formulas.sigmoid_vjp, elementwise=True)
LOG_SIGMOID = Map(
    "log_sigmoid", elementwise(_native.log_sigmoid), formulas.log_sigmoid, formulas.log_sigmoid_vjp, elementwise=True
)


def sigmoid(
    x: ArrayLike,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """1 / (1 + exp(-x / temperature)), of each number.

    Args:
        x: real numbers of any shape.
        temperature: divides the numbers, positive.
        where: booleans that broadcast to `x`; entries that are `False` get 0.
        out: array of the shape of `x` and the result's dtype; it may be `x` itself and is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x`.

    Returns:
        Array of the shape of `x`, in [0, 1].

    Raises:
        TypeError: `x` is not of real numbers, or an argument has the wrong type.
        ValueError: `temperature` is not positive, or a shape does not fit.

    >>> sigmoid([-2.0, 0.0, 0.5]).round(4)
    array([0.1192, 0.5   , 0.6225])
    """
    return apply(SIGMOID, x, -1, temperature=temperature, where=where, out=out, dtype=dtype)


def log_sigmoid(
    x: ArrayLike,
    *,
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Logarithm of `sigmoid`, exact where that underflows; masked entries are -inf.

    Arguments, result and errors are those of `sigmoid`.
    """
    return apply(LOG_SIGMOID, x, -1, temperature=temperature, where=where, out=out, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """The sigmoid link: K independent labels. The rows of its probabilities do not sum to 1.

    Attributes:
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "sigmoid"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("Sigmoid", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K), each for itself."""
        return sigmoid(logits, temperature=self.temperature)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_sigmoid(logits, temperature=self.temperature)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sum of the K binary cross-entropies of each row and its gradient, computed together.

        Args:
            logits: (N, K).
            target: (N, K) labels in [0, 1], floating, any number of them 1; or (N,) class ids, each the only label.
            out: (N, K), where the gradient goes; it may be `logits` itself.

        Returns:
            Loss (N,) in nats, gradient (N, K) of each row's loss.

        Raises:
            TypeError, ValueError: the message names the argument, and the row of a wrong class id.
        """
        return loss_rows(
            "Sigmoid.loss_and_grad",
            _labels_loss,
            logits,
            target,
            temperature=self.temperature,
            out=out,
        )


def _labels_loss(
    x: Any, target: Any, loss: Any, grad: Any, weight: Any, beta: float, n_threads: int, *_: float
) -> None:
    """Run the kernel on labels, made of class ids where need be."""
    labels = target if target.ndim == 2 else one_hot(target, x.shape[1], x.dtype)
    if labels.max(initial=0) > 1:
        row = np.flatnonzero((labels > 1).any(axis=1))[0]
        raise ValueError(f"Sigmoid.loss_and_grad: target must lie in [0, 1]; row {row} does not")
    _native.sigmoid_loss(x, labels, loss, grad, weight, beta, n_threads)
