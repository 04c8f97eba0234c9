"""How far a member's results may lie from the truth: bounds derived from how each is computed.

With w the weight of a logit t = x / T and eps the machine epsilon, relative errors are counted in eps:

- Taylor's weight, a sum by Horner's rule, is off by the condition of that sum, sum |t|^i / i! over f_n(t);
- t itself is rounded where T is not 1, or a margin was taken off, which moves w by the condition |t w' / w|;
- the sum of weights is off by the mean of these errors, weighted by the probabilities;
- exp, log, quotient and product add a constant: C in tests/tolerances.py, measured and raised.

entmax is computed in double and rounded once, so that its own errors count in the epsilon of float64, times the
condition 1 / (alpha - 1) of its power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from luce.links import Entmax, Link, PseudoSoftmax, Sigmoid, Sparsemax, Spherical
from tests.reference import DIGITS, ONE, ZERO, base_2, with_margin
from tests.reference_losses import MEMBERS
from tests.tolerances import C, eps

ULP_64 = Decimal(2) ** -52


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for one row: one for each probability, its logarithm and the gradient, and one for the loss."""

    probabilities: list[Decimal]
    log_probabilities: list[Decimal]
    loss: Decimal
    gradient: list[Decimal]


def parameters(link: Any) -> dict[str, Any]:
    """The parameters of a link, its temperature among them."""
    return {field.name: getattr(link, field.name) for field in fields(link)}


def bounds(name: str, link: Link, row: Sequence[float], target: Sequence[float], dtype: DTypeLike) -> Bounds:
    """Bounds for the results of a link on a row and its target."""
    c, unit = Decimal(C[name, np.dtype(dtype).name]), eps(dtype)
    smallest = Decimal(float(np.finfo(dtype).smallest_subnormal))
    given = parameters(link)
    temperature = Decimal(float(given["temperature"]))
    member = MEMBERS[name]
    with localcontext(DIGITS):
        loss = member.loss(list(row), target, **given)
        p = member.probabilities(list(row), **given)
        log_p = member.log_probabilities(list(row), **given)
        q = [Decimal(v) for v in target]
        if isinstance(link, Entmax | Sparsemax) and getattr(link, "alpha", 2) != 1:
            return _entmax(link, row, p, log_p, q, loss, c, unit, temperature)
        if isinstance(link, PseudoSoftmax):
            temperature = base_2(temperature)
        plain = _Weights(link, [v / temperature for v in map(Decimal, row)], temperature != 1)
        taken = plain
        if given.get("margin"):
            taken = _Weights(link, with_margin(row, target, temperature, given["margin"]), True)
        if isinstance(link, Sigmoid):
            total = ZERO
            spread = [c + 1 + plain.rounding * abs(t) for t in plain.t]
            yes = [(v * s) * unit + smallest for v, s in zip(p, spread, strict=True)]
            logs = [(c * abs(v) + plain.rounding * abs(t)) * unit for v, t in zip(log_p, plain.t, strict=True)]
            size = abs(loss) + sum((abs(t) * plain.rounding for t in plain.t), ZERO)
            grads = [(b + k * c * unit) / temperature for b, k in zip(yes, q, strict=True)]
            return Bounds(yes, logs, (c * size + Decimal(len(row)) / 4) * unit, grads)
        total = plain.mean(p)
        relative = [c + s + total for s in plain.errors]
        q_mass = sum(q, ZERO)
        a_p = taken.probabilities()
        mean = taken.mean(a_p)
        own = sum((k * s for k, s in zip(q, taken.errors, strict=True)), ZERO)
        terms = Decimal(sum(v > 0 for v in target))
        loss_bound = (c * (q_mass + 1) + own + mean * q_mass + abs(loss) * (Decimal("1.5") + terms / 2)) * unit
        grads = [
            ((c + mean + e + terms / 2) * v * s * q_mass + k * s * (c + e)) * unit / temperature + smallest
            for v, k, s, e in zip(a_p, q, taken.steepness, taken.errors, strict=True)
        ]
        return Bounds(
            [v * r * unit + smallest for v, r in zip(p, relative, strict=True)],
            [(r + 2 * abs(v)) * unit for r, v in zip(relative, log_p, strict=True)],
            loss_bound,
            grads,
        )


class _Weights:
    """The weights of a row's scaled logits t, and their relative errors in eps."""

    def __init__(self, link: Any, t: list[Decimal], rounded: bool) -> None:
        self.t, self.rounding = t, Decimal("1.5") if rounded else ZERO
        if isinstance(link, Sigmoid):
            return
        degree = getattr(link, "degree", 0)
        if degree:
            sizes = [sum((abs(v) ** i / math.factorial(i) for i in range(1, degree + 1)), ONE) for v in t]
            self.weight = [sum((v**i / math.factorial(i) for i in range(1, degree + 1)), ONE) for v in t]
            slopes = [sum((abs(v) ** i / math.factorial(i) for i in range(1, degree)), ONE) for v in t]
            self.steepness = [s / w for s, w in zip(slopes, self.weight, strict=True)]
            self.errors = [
                s / w + self.rounding * abs(v) * r
                for s, w, v, r in zip(sizes, self.weight, t, self.steepness, strict=True)
            ]
        elif isinstance(link, Spherical):
            self.weight = [v * v + Decimal(link.eps) for v in t]
            self.steepness = [2 * abs(v) / w for v, w in zip(t, self.weight, strict=True)]
            self.errors = [1 + 2 * self.rounding] * len(t)
        else:  # exp, relative to the largest: base 2 rounds its temperature, too
            top = max(t)
            self.weight = [(v - top).exp() for v in t]
            self.steepness = [ONE] * len(t)
            rounding = Decimal("0.55") + self.rounding
            self.errors = [rounding * (top - v) + (abs(v) / 2 if self.rounding else 0) for v in t]

    def probabilities(self) -> list[Decimal]:
        total = sum(self.weight, ZERO)
        return [w / total for w in self.weight]

    def mean(self, p: Sequence[Decimal]) -> Decimal:
        return sum((v * e for v, e in zip(p, self.errors, strict=True)), ZERO)


def _entmax(
    link: Any,
    row: Sequence[float],
    p: Sequence[Decimal],
    log_p: Sequence[Decimal],
    q: Sequence[Decimal],
    loss: Decimal,
    c: Decimal,
    unit: Decimal,
    temperature: Decimal,
) -> Bounds:
    alpha = Decimal(getattr(link, "alpha", 2.0))
    power = max(ONE, 1 / (alpha - 1))
    rounded = ZERO if temperature == 1 else unit  # the inverse temperature is rounded to the dtype
    gaps = [(Decimal(max(row)) - Decimal(v)) / temperature for v in row]
    inner = [power * (c * ULP_64 + rounded * min(g, 2 * power)) for g in gaps]
    own = [v * unit + i for v, i in zip(p, inner, strict=True)]
    logs = [2 * o / v + abs(w) * unit if v > o * 4 else Decimal(10) ** 9 for o, v, w in zip(own, p, log_p, strict=True)]
    reach = sum((k * g for k, g in zip(q, gaps, strict=True)), ZERO)
    leftover = abs(sum(q, -ONE)) * abs(Decimal(max(row))) / temperature  # masses that do not quite sum to 1
    value = abs(loss) * unit + (c * ULP_64 * 4 + rounded) * (1 + reach) + leftover
    grads = [(o + k * unit) / temperature + o * 0 for o, k in zip(own, q, strict=True)]
    return Bounds(own, logs, value, grads)
