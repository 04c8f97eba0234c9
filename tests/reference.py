"""The truth of the tests: slow, obviously right, 50 digits, independent of the product and of NumPy's exp.

Rows are sequences of floats, results are `Decimal`. The corners are written out as the rules they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

_DIGITS = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_NOTHING = -1_000_000  # exp of less is 0 in every floating format
NAN = Decimal("NaN")
INFINITY = Decimal("Infinity")


def _scaled(row: Sequence[float], temperature: float) -> list[Decimal]:
    return [Decimal(float(x)) / Decimal(float(temperature)) for x in row]


def _exp(x: Decimal) -> Decimal:
    return Decimal(0) if x < _NOTHING else x.exp()


def softmax(row: Sequence[float], temperature: float = 1.0) -> list[Decimal]:
    """exp(x / T) over its sum; j times +inf: 1 / j each; nothing finite: zeros; a NaN: all NaN."""
    if any(math.isnan(x) for x in row):
        return [NAN] * len(row)
    if math.inf in row:
        share = Decimal(1) / sum(x == math.inf for x in row)
        return [share if x == math.inf else Decimal(0) for x in row]
    if all(x == -math.inf for x in row):
        return [Decimal(0)] * len(row)
    with localcontext(_DIGITS):
        z = _scaled(row, temperature)
        top = max(z)
        powers = [_exp(v - top) for v in z]
        total = sum(powers, Decimal(0))
        return [power / total for power in powers]


def logsumexp(row: Sequence[float], temperature: float = 1.0) -> Decimal:
    """Log of the sum of exp(x / T); an empty row, or one of -inf: -inf."""
    if any(math.isnan(x) for x in row):
        return NAN
    if math.inf in row:
        return INFINITY
    if all(x == -math.inf for x in row):
        return -INFINITY
    with localcontext(_DIGITS):
        z = _scaled(row, temperature)
        top = max(z)
        return top + sum((_exp(v - top) for v in z), Decimal(0)).ln()


def log_softmax(row: Sequence[float], temperature: float = 1.0) -> list[Decimal]:
    """X / T - logsumexp(x / T); with +inf in the row the logarithms of what `softmax` gives."""
    if any(math.isnan(x) for x in row):
        return [NAN] * len(row)
    if math.inf in row:
        with localcontext(_DIGITS):
            share = -Decimal(sum(x == math.inf for x in row)).ln()
        return [share if x == math.inf else -INFINITY for x in row]
    if all(x == -math.inf for x in row):
        return [-INFINITY] * len(row)
    with localcontext(_DIGITS):
        total = logsumexp(row, temperature)
        return [v - total if v.is_finite() else -INFINITY for v in _scaled(row, temperature)]


def cross_entropy(row: Sequence[float], target: Sequence[float], temperature: float = 1.0) -> Decimal:
    """-sum of target times log_softmax, where 0 times -inf is 0."""
    with localcontext(_DIGITS):
        terms = zip(target, log_softmax(row, temperature), strict=True)
        return -sum((Decimal(float(y)) * log_p for y, log_p in terms if y != 0), Decimal(0))


def gradient(row: Sequence[float], target: Sequence[float], temperature: float = 1.0) -> list[Decimal]:
    """Differentiate `cross_entropy` in the row; 0 at rows with +inf or of nothing but -inf."""
    if any(math.isnan(x) for x in row):
        return [NAN] * len(row)
    if math.inf in row or all(x == -math.inf for x in row):
        return [Decimal(0)] * len(row)
    with localcontext(_DIGITS):
        mass = sum((Decimal(float(y)) for y in target), Decimal(0))
        p = softmax(row, temperature)
        return [(mass * a - Decimal(float(y))) / Decimal(float(temperature)) for a, y in zip(p, target, strict=True)]


def one_hot(class_id: int, n_classes: int) -> list[float]:
    """Make the distribution that a class id stands for."""
    return [float(k == class_id) for k in range(n_classes)]
