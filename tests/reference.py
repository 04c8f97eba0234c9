"""The truth of the tests: slow, obviously right, 50 digits, independent of the product and of NumPy's exp.

Rows are sequences of floats (or of `Decimal`, for differences finer than a float), results are `Decimal`. The corners
are written out as the rules they are. The losses of the links, and `MEMBERS`, are in tests/reference_losses.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext

Number = float | Decimal
Row = Sequence[Number]

DIGITS = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_MORE_DIGITS = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_NOTHING = -1_000_000  # exp of less is 0 in every floating format
NAN = Decimal("NaN")
INFINITY = Decimal("Infinity")
ZERO, ONE = Decimal(0), Decimal(1)


def exact(x: Number) -> Decimal:
    """Take a number as it is, without rounding."""
    return x if isinstance(x, Decimal) else Decimal(float(x))


def scaled(row: Row, temperature: Number) -> list[Decimal]:
    """Divide by the temperature."""
    return [exact(x) / exact(temperature) for x in row]


def _exp(x: Decimal) -> Decimal:
    return ZERO if x < _NOTHING else x.exp()


def limits(row: Row) -> list[Decimal] | None:
    """Probabilities of a row that is a limit: a NaN: all NaN; j times +inf: 1 / j each; nothing finite: zeros."""
    if any(math.isnan(x) for x in row):
        return [NAN] * len(row)
    if math.inf in row:
        share = DIGITS.divide(ONE, sum(x == math.inf for x in row))
        return [share if x == math.inf else ZERO for x in row]
    return [ZERO] * len(row) if all(x == -math.inf for x in row) else None


def _shares(z: Row, weight: Callable[[Decimal], Decimal]) -> list[Decimal]:
    """Weights over their sum; -inf is not there and weighs nothing."""
    if (p := limits(z)) is not None:
        return p
    with localcontext(DIGITS):
        weights = [weight(exact(v)) if v > -math.inf else ZERO for v in z]
        total = sum(weights, ZERO)
        return [w / total for w in weights]


def logarithms(p: Sequence[Decimal]) -> list[Decimal]:
    """Take logarithms; that of 0 is -inf."""
    with localcontext(DIGITS):
        return [v.ln() for v in p]


def softmax(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """exp(x / T) over its sum."""
    with localcontext(DIGITS):
        z = scaled(row, temperature)
        top = max((v for v in z if v.is_finite()), default=ZERO)
        return _shares(z, lambda v: _exp(v - top))


def logsumexp(row: Row, temperature: Number = 1.0, weights: Sequence[float] | None = None) -> Decimal:
    """Log of the sum of weight times exp(x / T); of nothing, or of -inf: -inf. What has weight 0 is not there."""
    if any(math.isnan(x) for x in row):
        return NAN
    pairs = [(x, exact(w)) for x, w in zip(row, weights or [1.0] * len(row), strict=True) if x > -math.inf and w != 0]
    if not pairs or any(x == math.inf for x, _ in pairs):
        return INFINITY if pairs else -INFINITY
    with localcontext(DIGITS):
        z = scaled([x for x, _ in pairs], temperature)
        top = max(z)
        return top + sum((w * _exp(v - top) for v, (_, w) in zip(z, pairs, strict=True)), ZERO).ln()


def log_softmax(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """Subtract logsumexp(x / T) from x / T; in rows that are limits the logarithms of what `softmax` gives."""
    if (p := limits(row)) is not None:
        return logarithms(p)
    with localcontext(DIGITS):
        total = logsumexp(row, temperature)
        return [v - total for v in scaled(row, temperature)]


def taylor_weight(t: Decimal, degree: int) -> Decimal:
    """f_n(t): sum of t^i / i! for i = 0 ... n."""
    return sum((t**i / math.factorial(i) for i in range(1, degree + 1)), ONE)


def taylor_softmax(row: Row, temperature: Number = 1.0, degree: int = 2) -> list[Decimal]:
    """f_n(x / T) over its sum."""
    with localcontext(DIGITS):
        return _shares(scaled(row, temperature), lambda v: taylor_weight(v, degree))


def spherical_softmax(row: Row, temperature: Number = 1.0, eps: float = 1e-3) -> list[Decimal]:
    """(x / T)^2 + eps over its sum."""
    with localcontext(DIGITS):
        return _shares(scaled(row, temperature), lambda v: v * v + exact(eps))


def pseudo_softmax(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """2^(x / T) over its sum: softmax at T / ln 2."""
    return softmax(row, base_2(temperature))


def base_2(temperature: Number) -> Decimal:
    """The temperature at which e^(x / it) is 2^(x / T)."""
    with localcontext(DIGITS):
        return exact(temperature) / Decimal(2).ln()


def with_margin(row: Row, target: Sequence[float], temperature: Number = 1.0, margin: float = 0.5) -> list[Decimal]:
    """Take margin * target off x / T; `target` is one-hot or a distribution."""
    with localcontext(DIGITS):
        return [z - exact(margin) * exact(q) for z, q in zip(scaled(row, temperature), target, strict=True)]


def soft_margin_softmax(
    row: Row, target: Sequence[float], temperature: Number = 1.0, margin: float = 0.5
) -> list[Decimal]:
    """Softmax with a margin off the target, as in training."""
    return softmax(with_margin(row, target, temperature, margin))


def sm_taylor_softmax(
    row: Row, target: Sequence[float], temperature: Number = 1.0, degree: int = 2, margin: float = 0.5
) -> list[Decimal]:
    """Taylor softmax with a margin off the target, as in training."""
    return taylor_softmax(with_margin(row, target, temperature, margin), degree=degree)


def sparsemax(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """max(x / T - tau, 0); tau from the largest k of the sorted row with 1 + k u_k > sum of the first k."""
    if (p := limits(row)) is not None:
        return p
    with localcontext(DIGITS):
        z = _below_top(scaled(row, temperature))
        u = sorted((v for v in z if v.is_finite()), reverse=True)
        sums = [sum(u[:k], ZERO) for k in range(1, len(u) + 1)]
        k = max(k for k in range(1, len(u) + 1) if 1 + k * u[k - 1] > sums[k - 1])
        return [max(v - (sums[k - 1] - 1) / k, ZERO) for v in z]


def _below_top(z: list[Decimal]) -> list[Decimal]:
    """Measure from the largest, so that the digits suffice at any size."""
    return [v - max(z) for v in z]


def entmax15(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """max(x / 2T - tau, 0)^2; tau from the largest k of the sorted row whose quadratic has its root below u_k."""
    if (p := limits(row)) is not None:
        return p
    with localcontext(_MORE_DIGITS):
        z = [v / 2 for v in _below_top(scaled(row, temperature))]
        u = sorted((v for v in z if v.is_finite()), reverse=True)
        tau = ZERO
        for k in range(1, len(u) + 1):
            mean = sum(u[:k], ZERO) / k
            left = 1 - sum(((v - mean) ** 2 for v in u[:k]), ZERO)
            if left < 0 or mean - (left / k).sqrt() > u[k - 1]:
                break
            tau = mean - (left / k).sqrt()
        return [max(v - tau, ZERO) ** 2 for v in z]


def entmax(row: Row, temperature: Number = 1.0, alpha: Number = 1.5) -> list[Decimal]:
    """max((a - 1) x / T - tau, 0)^(1 / (a - 1)); tau by halving to 60 digits; a = 1 is softmax."""
    if alpha == 1 or limits(row) is not None:
        return softmax(row, temperature)
    with localcontext(_MORE_DIGITS):
        rate = exact(alpha) - 1
        z = [v * rate for v in _below_top(scaled(row, temperature))]

        def p(tau: Decimal) -> list[Decimal]:
            return [(v - tau) ** (1 / rate) if v > tau else ZERO for v in z]

        low, high = -ONE, -(Decimal(len(row)) ** -rate)
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if sum(p(middle)) >= 1 else (low, middle)
        total = sum(p(low), ZERO)
        return [v / total for v in p(low)]


def entmax_slope(row: Row, temperature: Number = 1.0, alpha: Number = 1.5) -> list[Decimal]:
    """Derivative of `entmax` in alpha. Source: Correia, Niculae & Martins 2019, arXiv 1909.00015."""
    p = entmax(row, temperature, alpha)
    if limits(row) is not None:
        return [v * 0 for v in p]
    with localcontext(DIGITS):
        rate = exact(alpha) - 1
        log_p = [v.ln() if v else ZERO for v in p]
        if rate == 0:
            square = sum((v * t * t for v, t in zip(p, log_p, strict=True)), ZERO)
            return [v * (square - t * t) / 2 for v, t in zip(p, log_p, strict=True)]
        s = [v ** (1 - rate) if v else ZERO for v in p]
        q = [v / sum(s) for v in s]
        h = [-v * t for v, t in zip(p, log_p, strict=True)]
        entropy = sum(h, ZERO)
        return [(a - b) / rate**2 + (c - b * entropy) / rate for a, b, c in zip(p, q, h, strict=True)]


def sigmoid(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """1 / (1 + exp(-x / T)), each for itself: 1 at +inf, 0 at -inf."""
    with localcontext(DIGITS):
        return [_exp(-max(-z, ZERO)) / (1 + _exp(-abs(z))) if z == z else NAN for z in scaled(row, temperature)]


def log_sigmoid(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    """min(x / T, 0) - log(1 + exp(-|x / T|))."""
    with localcontext(DIGITS):
        return [min(z, ZERO) - _log_1_plus(_exp(-abs(z))) if z == z else NAN for z in scaled(row, temperature)]


def _log_1_plus(e: Decimal) -> Decimal:
    """log(1 + e) by its series where the digits of 1 + e do not reach."""
    return e - e**2 / 2 + e**3 / 3 - e**4 / 4 if e < Decimal("1e-12") else (1 + e).ln()


def tanh(row: Row) -> list[Decimal]:
    """2 sigmoid(2 x) - 1."""
    with localcontext(DIGITS):
        return [2 * s - 1 for s in sigmoid(row, 0.5)]


def normalize(row: Row) -> list[Decimal]:
    """Divide x by its sum, for rows without negative numbers and with a positive sum."""
    if any(x < 0 for x in row) or all(x == 0 for x in row):
        raise ValueError("no probabilities come of this row")
    return _shares(row, lambda v: v)


def mellowmax(row: Row, omega: float = 1.0) -> Decimal:
    """(logsumexp(omega x) - log K) / omega, K the number of logits there are; of nothing: NaN."""
    there = sum(x != -math.inf for x in row)
    with localcontext(DIGITS):
        return (logsumexp(row, 1 / exact(omega)) - Decimal(there).ln()) / exact(omega) if there else NAN


def boltzmann_mean(row: Row, temperature: Number = 1.0) -> Decimal:
    """Sum of softmax(x / T) times x, where 0 times infinity is 0; of nothing: NaN."""
    p = softmax(row, temperature)
    with localcontext(DIGITS):
        return sum((v * exact(x) for v, x in zip(p, row, strict=True) if v != 0), ZERO) if any(p) else NAN


def cross_entropy(row: Row, target: Sequence[float], temperature: Number = 1.0) -> Decimal:
    """-sum of target times log_softmax, where 0 times -inf is 0."""
    return negative_log_likelihood(log_softmax(row, temperature), target)


def negative_log_likelihood(log_p: Sequence[Decimal], target: Sequence[Number]) -> Decimal:
    """-sum of target times log p, where 0 times -inf is 0; a NaN: NaN."""
    with localcontext(DIGITS):
        terms = [exact(q) * v for q, v in zip(target, log_p, strict=True) if q != 0]
        return NAN if any(v.is_nan() for v in log_p) else -sum(terms, ZERO)


def gradient(row: Row, target: Sequence[float], temperature: Number = 1.0) -> list[Decimal]:
    """Differentiate `cross_entropy` in the row; 0 at rows with +inf or of nothing but -inf."""
    p = softmax(row, temperature)
    if limits(row) is not None:
        return [v * 0 for v in p]
    with localcontext(DIGITS):
        mass = sum((exact(q) for q in target), ZERO)
        return [(mass * v - exact(q)) / exact(temperature) for v, q in zip(p, target, strict=True)]


def one_hot(class_id: int, n_classes: int) -> list[float]:
    """Make the distribution that a class id stands for."""
    return [float(k == class_id) for k in range(n_classes)]
