"""Links: logits to probabilities, one file per member of the family.

`LINKS` is what the laws, the command line, the documents and the benchmarks read: adding a link is one file and one
line here.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import ArrayLike, NDArray

from luce.links.softmax import Softmax, log_softmax, logsumexp, softmax


class Link(Protocol):
    """What every member of the family can do. Each is a frozen dataclass of its parameters."""

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Loss per row (N,) and its gradient (N, K) in the logits (N, K)."""


LINKS: dict[str, type[Link]] = {"softmax": Softmax}

__all__ = ["LINKS", "Link", "Softmax", "log_softmax", "logsumexp", "softmax"]
