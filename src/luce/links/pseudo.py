"""Pseudo-softmax: base 2 in the place of e, which hardware computes by shifting exponents.

p_k = 2^z_k / sum_j 2^z_j, which is softmax at temperature 1 / ln 2 = 1.4427. For int8 logits it is computed as in
hardware, with integers only: 2^z is a shift, the sum is brought into [1, 2) by another, and the reciprocal of what
remains is two straight lines with slopes that are sums of two powers of two, 51/32 - 5/8 s below 1.5 and 36/32 - 5/16 s
from there on, off by -3.13 % to +1.60 %. Rows then need not sum to 1: divide by the sum before any metric.
Source: Cardarilli et al. 2021, Sci. Rep. 11:15307, doi 10.1038/s41598-021-94691-7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from luce import _native
from luce.arrays import as_array, enter, positive
from luce.links.fused import loss_rows
from luce.links.softmax import SOFTMAX, log_softmax
from luce.maps import ARGMAX, apply

NATURAL = 1 / math.log(2.0)  # the temperature at which softmax has base 2
_FRACTION = 24  # bits behind the point in the integer version


def pseudo_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    scale: float | None = None,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]:
    """Probabilities proportional to 2^x; for int8 logits with a `scale`, by integer arithmetic as in hardware.

    Args:
        x: logits, real numbers of any shape; with `scale` an int8 array.
        axis: of the classes.
        scale: the logits are `scale * x`: a power of two from 1/128 to 1. The fraction of an exponent, if there is
            one, counts as in a floating number: 2^(n + f) is taken as 2^n (1 + f).
        where: booleans that broadcast to `x`; entries that are `False` get probability 0.
        out: array of the shape of `x` and the result's dtype; it is returned.
        dtype: float16, bfloat16, float32 or float64, instead of the one that follows from `x` (float32 with `scale`).

    Returns:
        Array of the shape of `x`. Rows sum to 1; with `scale` within 3.2 % and K / 2^24, for what shifts cut off.

    Raises:
        TypeError: `x` is not of real numbers, or not int8 although there is a `scale`.
        ValueError: `scale` is no such power of two, or a shape or `axis` does not fit.

    >>> pseudo_softmax([1.0, 2.0, 3.0]).round(4)
    array([0.1429, 0.2857, 0.5714])
    >>> pseudo_softmax(np.array([1, 2, 3], np.int8), scale=1.0).round(4)
    array([0.1445, 0.2891, 0.5781], dtype=float32)
    """
    if scale is None:
        return apply(SOFTMAX, x, axis, name="pseudo_softmax", temperature=NATURAL, where=where, out=out, dtype=dtype)
    logits = as_array("pseudo_softmax", x)
    if logits.dtype != np.int8:
        raise TypeError(f"pseudo_softmax: with scale the logits must be int8, got dtype {logits.dtype}")
    bits = -np.log2(positive("pseudo_softmax", "scale", scale))
    if bits not in range(8):
        raise ValueError(f"pseudo_softmax: scale must be a power of two from 1/128 to 1, got {scale!r}")
    wanted = np.float32 if dtype is None else dtype
    gate = enter("pseudo_softmax", logits, axis, where=where, out=out, dtype=wanted)  # what is masked is -inf
    p = _by_integers(gate.rows, int(bits)) if gate.rows.size else gate.rows
    return gate.restore(np.ldexp(p, -_FRACTION), out)


def _by_integers(rows: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Probabilities times 2^_FRACTION of whole numbers and -inf: shifts, sums, comparisons of int64, no division."""
    one = np.int64(1) << _FRACTION
    present = rows > -np.inf
    z = np.where(present, rows, -129).astype(np.int64)
    z -= z.max(axis=1, keepdims=True)
    exponent = z >> bits
    mantissa = one + ((z - (exponent << bits)) << (_FRACTION - bits))  # 1 + fraction
    power = np.where(present, mantissa >> np.minimum(-exponent, 62), 0)
    total = power.sum(axis=1, keepdims=True)  # 0, or at least 1
    shift = np.maximum(np.frexp(total.astype(np.float64))[1] - 1 - _FRACTION, 0)  # a hardware's leading-one detector
    s = total >> shift  # in [1, 2)
    low = 51 * one // 32 - (s >> 1) - (s >> 3)
    high = 36 * one // 32 - (s >> 2) - (s >> 4)
    reciprocal = np.where(2 * s < 3 * one, low, high)
    p: NDArray[np.float64] = (((power * reciprocal) >> _FRACTION) >> shift).astype(np.float64)
    return p


@dataclass(frozen=True, slots=True)
class PseudoSoftmax:
    """The pseudo-softmax link in floating numbers: softmax with base 2.

    Attributes:
        temperature: divides the logits, positive.
    """

    name: ClassVar[str] = "pseudo"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive("PseudoSoftmax", "temperature", self.temperature, ARGMAX)

    def probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Probabilities (..., K) for logits (..., K)."""
        return apply(SOFTMAX, logits, -1, name="pseudo_softmax", temperature=self.temperature * NATURAL)

    def log_probabilities(self, logits: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities (..., K)."""
        return log_softmax(logits, temperature=self.temperature * NATURAL)

    def loss_and_grad(
        self, logits: ArrayLike, target: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Cross-entropy of each row and its gradient in the logits, computed together.

        Arguments, results and errors are those of `Softmax.loss_and_grad`.
        """
        return loss_rows(
            "PseudoSoftmax.loss_and_grad",
            _native.softmax_loss,
            logits,
            target,
            temperature=self.temperature * NATURAL,
            out=out,
        )
