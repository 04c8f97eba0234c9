"""What every member of the family is: logits to probabilities, with a loss and its gradient."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import ArrayLike, NDArray


class Link(Protocol):
    """What every member of the family can do. Each is a frozen dataclass of its parameters."""

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Loss of each row and its gradient in the logits, computed together.

        Args:
            logits: (N, K).
            target: (N,) class ids of any integer dtype, or (N, K) distributions, floating.
            out: (N, K), where the gradient goes; it may be `logits` itself.

        Returns:
            Loss (N,) in nats, gradient (N, K) of each row's loss.

        Raises:
            TypeError, ValueError: the message names the argument, and the row of a wrong class id.
        """
