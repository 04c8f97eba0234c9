"""What margin heads are made of: checked inputs, cosines, the target's logit taken out, lowered and put back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luce.arrays import not_negative, number
from luce.links.fused import checked_target
from luce.maps import foreign
from luce.maps.formulas import widened

LARGEST_MULTIPLE = 4
LEAST_SQUARED_SINE = {torch.float64: 1e-12, torch.float32: 1e-7}  # below it, rounding of the cosine is all there is


@dataclass(frozen=True, slots=True)
class Annealing:
    """How a margin comes in: the target's logit is (lambda * plain + with margin) / (1 + lambda).

    lambda = max(floor, start * (1 + gamma * steps) ** -power); Liu et al. 2016, arXiv 1612.02295.

    Attributes:
        start: lambda before the first step.
        gamma: how soon it shrinks.
        power: how fast it shrinks.
        floor: where it stops; more than 0 for data on which the whole margin does not converge.
    """

    start: float = 1000.0
    gamma: float = 2.5e-5
    power: float = 35.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("start", "gamma", "power", "floor"):
            not_negative("Annealing", name, getattr(self, name))

    @classmethod
    def over(cls, steps: int) -> Annealing:
        """The one that lets the margin in within so many steps: lambda falls from 1000 to 0.1.

        >>> round(float(Annealing.over(500).at(torch.tensor(500))), 6)
        0.1
        """
        return cls(gamma=(1e4 ** (1 / 35) - 1) / whole("Annealing", "steps", steps, 1))

    def at(self, steps: Tensor) -> Tensor:
        """Lambda after a number of steps, in float64."""
        return (self.start * (1 + self.gamma * steps.double()) ** -self.power).clamp(min=self.floor)

    def mixed(self, plain: Tensor, lowered: Tensor, steps: Tensor) -> Tensor:
        """The target's logit at a step."""
        share = self.at(steps).to(plain.dtype)
        return (share * plain + lowered) / (1 + share)


def whole(name: str, parameter: str, value: int, least: int, most: int | None = None) -> int:
    """Check a whole number.

    Raises:
        TypeError: no number.
        ValueError: not whole, or out of range.
    """
    given = number(name, parameter, value)
    if not (least <= given < math.inf and given.is_integer() and (most is None or given <= most)):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: {parameter} must be a whole number, {span}, got {value!r}")
    return int(given)


def between(name: str, parameter: str, value: float, most: float, said: str) -> float:
    """Check a number from 0 to `most`, which the message calls `said`.

    Raises:
        TypeError: no number.
        ValueError: out of range.
    """
    given = number(name, parameter, value)
    if not 0 <= given <= most:
        raise ValueError(f"{name}: {parameter} must lie from 0 to {said}, got {value!r}")
    return given


def new_weight(name: str, n_features: int, n_classes: int, *before: int) -> nn.Parameter:
    """Weights (..., K, D), uniform within 1 / sqrt(D) of 0.

    Raises:
        TypeError, ValueError: a size is no whole number, or not positive.
    """
    d, k = whole(name, "n_features", n_features, 1), whole(name, "n_classes", n_classes, 1)
    return nn.Parameter(torch.empty(*before, k, d).uniform_(-1 / math.sqrt(d), 1 / math.sqrt(d)))


def check_rows(name: str, features: Tensor, target: Any, weight: Tensor) -> None:
    """Check shapes and dtypes everywhere, and class ids where looking at them costs nothing.

    Raises:
        TypeError: the target is not of integers.
        ValueError: a shape does not fit, or a class id is out of range; the message names its row.
    """
    k, d = weight.shape[-2:]
    if features.ndim != 2 or features.shape[1] != d:
        raise ValueError(f"{name}: features must have shape (rows, {d}), got {tuple(features.shape)}")
    if target is None:
        return
    if not isinstance(target, Tensor) or str(target.dtype).rpartition(".")[2].startswith(("float", "bfloat", "bool")):
        got = f"dtype {target.dtype}" if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"{name}: target must be a tensor of integer class ids, got {got}")
    n = len(features)
    if target.shape != (n,):
        raise ValueError(f"{name}: target must hold one class id for each of {n} rows, got shape {tuple(target.shape)}")
    if target.device.type == "cpu" and foreign.visible(torch, target):
        values = target.numpy()
        checked_target(name, values, n, k, values.dtype)


def norm(x: Tensor) -> Tensor:
    """Lengths (..., 1) of rows (..., D), halves in float32; the gradient at 0 is 0."""
    wide: Tensor = widened(torch, x)
    lengths: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return lengths


def quotient(x: Tensor, length: Tensor) -> Tensor:
    """`x` over lengths; where there is none, x itself, which is 0 or next to it."""
    return x / torch.where(length > 0, length, 1.0)


def unit(x: Tensor) -> Tensor:
    """Rows (..., D) of length 1, in the dtype of `x`; a row of zeros stays."""
    return quotient(x, norm(x)).to(x.dtype)


def of_target(logits: Tensor, target: Tensor) -> Tensor:
    """The targets' logits (N, 1), halves in float32."""
    picked: Tensor = widened(torch, logits.gather(1, target.long()[:, None]))
    return picked


def with_target(logits: Tensor, target: Tensor, values: Tensor) -> Tensor:
    """Logits (N, K) with those of the targets replaced by values (N, 1)."""
    return logits.scatter(1, target.long()[:, None], values.to(logits.dtype))


def psi(cosine: Tensor, multiple: int) -> Tensor:
    """(-1)^k cos(m t) - 2 k of the cosines of t, with t in [k pi / m, (k + 1) pi / m].

    cos(m t) by Chebyshev's recurrence. Where k changes the slope in the cosine is 0 on both sides, so psi is smooth.
    """
    before, value = torch.ones_like(cosine), cosine
    for _ in range(multiple - 1):
        before, value = value, 2 * cosine * value - before
    k = torch.zeros_like(cosine)
    for j in range(1, multiple):
        k = k + (cosine < math.cos(j * math.pi / multiple))
    return (1 - 2 * (k % 2)) * value - 2 * k


def of_wider_angle(cosine: Tensor, margin: float) -> Tensor:
    """cos(t + margin) of the cosines of t, and past t + margin = pi a line that goes on falling."""
    least = LEAST_SQUARED_SINE[cosine.dtype]
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=least).sqrt()
    falling = cosine - margin * math.sin(margin)
    return torch.where(cosine >= -math.cos(margin), cosine * math.cos(margin) - sine * math.sin(margin), falling)
