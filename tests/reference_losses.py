"""Losses and gradients of every link, and of focal and Brier, in 50 digits; `MEMBERS` for tests that loop over links.

Targets are lists of K numbers: one-hot or a distribution. Gradients are in the row, before the temperature. In rows
with +inf, or with nothing finite, they are 0 (the limit). A logit of -inf gets 0; where its target q is positive the
loss is +inf, and members of exp and projections keep the pull -q / T, polynomials (Taylor, spherical) have none. The
sigmoid asks every class for itself, so there no entry changes what another gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from tests import reference as ref
from tests.reference import DIGITS, INFINITY, ONE, ZERO, Number, Row, exact

Target = Sequence[float]


def _still(row: Row) -> list[Decimal] | None:
    """Gradients of rows that are limits: NaN with a NaN, else 0."""
    p = ref.limits(row)
    return None if p is None else [v * 0 for v in p]


def _rated(p: list[Decimal], target: Target, rates: list[Decimal], temperature: Number) -> list[Decimal]:
    """Gradient of -sum q log p for p = w / sum w: rate (sum(q) p - q) / T, with the rates w' / w."""
    with localcontext(DIGITS):
        mass = sum((exact(q) for q in target), ZERO)
        terms = zip(rates, p, target, strict=True)
        return [rate * (mass * v - exact(q)) / exact(temperature) for rate, v, q in terms]


def taylor_loss(row: Row, target: Target, temperature: Number = 1.0, degree: int = 2) -> Decimal:
    """-sum q log p of Taylor softmax."""
    return sm_taylor_loss(row, target, temperature, degree, margin=0.0)


def taylor_gradient(row: Row, target: Target, temperature: Number = 1.0, degree: int = 2) -> list[Decimal]:
    """Differentiate `taylor_loss` in the row."""
    return sm_taylor_gradient(row, target, temperature, degree, margin=0.0)


def sm_taylor_loss(
    row: Row, target: Target, temperature: Number = 1.0, degree: int = 2, margin: float = 0.5
) -> Decimal:
    """-sum q log p of Taylor softmax with a margin off the target."""
    p = ref.sm_taylor_softmax(row, target, temperature, degree, margin)
    return ref.negative_log_likelihood(ref.logarithms(p), target)


def sm_taylor_gradient(
    row: Row, target: Target, temperature: Number = 1.0, degree: int = 2, margin: float = 0.5
) -> list[Decimal]:
    """Differentiate `sm_taylor_loss`: the rates are f_(n-1) / f_n, 0 at -inf."""
    if (still := _still(row)) is not None:
        return still
    a = ref.with_margin(row, target, temperature, margin)
    p = ref.taylor_softmax(a, degree=degree)
    with localcontext(DIGITS):
        rates = [ref.taylor_weight(v, degree - 1) / ref.taylor_weight(v, degree) if v.is_finite() else ZERO for v in a]
    return _rated(p, target, rates, temperature)


def soft_margin_loss(row: Row, target: Target, temperature: Number = 1.0, margin: float = 0.5) -> Decimal:
    """Cross-entropy with a margin off the target."""
    return ref.cross_entropy(ref.with_margin(row, target, temperature, margin), target)


def soft_margin_gradient(row: Row, target: Target, temperature: Number = 1.0, margin: float = 0.5) -> list[Decimal]:
    """Differentiate `soft_margin_loss` in the row."""
    with localcontext(DIGITS):
        inner = ref.gradient(ref.with_margin(row, target, temperature, margin), target)
        return [v / exact(temperature) for v in inner]


def spherical_loss(row: Row, target: Target, temperature: Number = 1.0, eps: float = 1e-3) -> Decimal:
    """-sum q log p of spherical softmax."""
    return ref.negative_log_likelihood(ref.logarithms(ref.spherical_softmax(row, temperature, eps)), target)


def spherical_gradient(row: Row, target: Target, temperature: Number = 1.0, eps: float = 1e-3) -> list[Decimal]:
    """Differentiate `spherical_loss`: the rates are 2 z / (z^2 + eps), 0 at -inf."""
    if (still := _still(row)) is not None:
        return still
    with localcontext(DIGITS):
        z = ref.scaled(row, temperature)
        rates = [2 * v / (v * v + exact(eps)) if v.is_finite() else ZERO for v in z]
    return _rated(ref.spherical_softmax(row, temperature, eps), target, rates, temperature)


def pseudo_loss(row: Row, target: Target, temperature: Number = 1.0) -> Decimal:
    """-sum q log p of pseudo-softmax."""
    return ref.cross_entropy(row, target, ref.base_2(temperature))


def pseudo_gradient(row: Row, target: Target, temperature: Number = 1.0) -> list[Decimal]:
    """Differentiate `pseudo_loss` in the row."""
    return ref.gradient(row, target, ref.base_2(temperature))


def entropy(p: Sequence[Number], alpha: Number) -> Decimal:
    """Tsallis' entropy, sum of (p - p^a) / (a (a - 1)); Shannon's, -sum p log p, for a = 1."""
    with localcontext(DIGITS):
        a, there = exact(alpha), [exact(v) for v in p if v > 0]
        if a == 1:
            return -sum((v * v.ln() for v in there), ZERO)
        return sum((v - v**a for v in there), ZERO) / (a * (a - 1))


def _fenchel_young(p: list[Decimal], row: Row, target: Target, temperature: Number, alpha: Number) -> Decimal:
    """H(p) - H(q) + (p - q) z. At +inf: its limit, where the target, too, is all on the largest; else +inf."""
    with localcontext(DIGITS):
        if any(v.is_nan() for v in p):
            return p[0]
        gaps = [(v - exact(q), z) for v, q, z in zip(p, target, ref.scaled(row, temperature), strict=True)]
        if INFINITY in (z for _, z in gaps):
            gaps = [(g, ZERO if z == INFINITY else -INFINITY) for g, z in gaps]
        inner = sum((g * z for g, z in gaps if g != 0), ZERO)
        return entropy(p, alpha) - entropy(target, alpha) + inner


def _projected_gradient(p: list[Decimal], row: Row, target: Target, temperature: Number) -> list[Decimal]:
    """(p - q) / T: what every Fenchel-Young loss has."""
    if (still := _still(row)) is not None:
        return still
    with localcontext(DIGITS):
        return [(v - exact(q)) / exact(temperature) for v, q in zip(p, target, strict=True)]


def entmax_loss(row: Row, target: Target, temperature: Number = 1.0, alpha: Number = 1.5) -> Decimal:
    """Fenchel-Young loss of entmax; for alpha = 1 cross-entropy less the target's entropy."""
    return _fenchel_young(ref.entmax(row, temperature, alpha), row, target, temperature, alpha)


def entmax_gradient(row: Row, target: Target, temperature: Number = 1.0, alpha: Number = 1.5) -> list[Decimal]:
    """Differentiate `entmax_loss` in the row."""
    return _projected_gradient(ref.entmax(row, temperature, alpha), row, target, temperature)


def sparsemax_loss(row: Row, target: Target, temperature: Number = 1.0) -> Decimal:
    """Fenchel-Young loss of sparsemax."""
    return _fenchel_young(ref.sparsemax(row, temperature), row, target, temperature, 2)


def sparsemax_gradient(row: Row, target: Target, temperature: Number = 1.0) -> list[Decimal]:
    """Differentiate `sparsemax_loss` in the row."""
    return _projected_gradient(ref.sparsemax(row, temperature), row, target, temperature)


def sigmoid_loss(row: Row, target: Target, temperature: Number = 1.0) -> Decimal:
    """Sum of -q log s(z) - (1 - q) log s(-z), where 0 times infinity is 0."""
    yes, no = ref.log_sigmoid(row, temperature), ref.log_sigmoid([-exact(x) for x in row], temperature)
    with localcontext(DIGITS):
        rest = [1 - exact(q) for q in target]
        return ref.negative_log_likelihood(yes, target) + ref.negative_log_likelihood(no, rest)


def sigmoid_gradient(row: Row, target: Target, temperature: Number = 1.0) -> list[Decimal]:
    """Differentiate `sigmoid_loss` in the row, each entry for itself."""
    with localcontext(DIGITS):
        terms = zip(ref.sigmoid(row, temperature), target, strict=True)
        return [(v - exact(q)) / exact(temperature) for v, q in terms]


def _through_softmax(p: list[Decimal], slopes: list[Decimal]) -> list[Decimal]:
    """Turn p dL/dp of each class, the slopes, into the gradient in the logits: slope - p sum of slopes."""
    total = sum(slopes, ZERO)
    return [s - v * total for v, s in zip(p, slopes, strict=True)]


def focal_loss(row: Row, target: Target, gamma: float = 2.0) -> Decimal:
    """-sum q (1 - p)^gamma log p, p = softmax, where 0 times -inf is 0."""
    with localcontext(DIGITS):
        terms = zip(ref.softmax(row), ref.log_softmax(row), strict=True)
        return ref.negative_log_likelihood([_power(1 - p, gamma) * log_p for p, log_p in terms], target)


def focal_gradient(row: Row, target: Target, gamma: float = 2.0) -> list[Decimal]:
    """Differentiate `focal_loss` in the row: p dL/dp = q (gamma p (1 - p)^(gamma - 1) log p - (1 - p)^gamma)."""
    if (still := _still(row)) is not None:
        return still
    with localcontext(DIGITS):
        p, g = ref.softmax(row), exact(gamma)
        slopes = []
        for v, q in zip(p, target, strict=True):
            bend = g * v * _power(1 - v, g - 1) * v.ln() if 0 < v < 1 else ZERO
            slopes.append(exact(q) * (bend - _power(1 - v, g)))
        return _through_softmax(p, slopes)


def _power(base: Decimal, exponent: Number) -> Decimal:
    return ONE if exponent == 0 else base ** exact(exponent)


def brier_loss(row: Row, target: Target) -> Decimal:
    """Sum of (p - q)^2, p = softmax."""
    with localcontext(DIGITS):
        return sum(((p - exact(q)) ** 2 for p, q in zip(ref.softmax(row), target, strict=True)), ZERO)


def brier_gradient(row: Row, target: Target) -> list[Decimal]:
    """Differentiate `brier_loss` in the row: p dL/dp = 2 p (p - q)."""
    if (still := _still(row)) is not None:
        return still
    with localcontext(DIGITS):
        p = ref.softmax(row)
        return _through_softmax(p, [2 * v * (v - exact(q)) for v, q in zip(p, target, strict=True)])


@dataclass(frozen=True, slots=True)
class Member:
    """The truth about a link: functions of (row, temperature, **parameters), and of (row, target, ...) for losses.

    Attributes:
        probabilities: at test time, so without margin, which is accepted and not looked at.
        log_probabilities: their logarithms.
        loss: of one row.
        gradient: of the loss in the row.
    """

    probabilities: Callable[..., list[Decimal]]
    log_probabilities: Callable[..., list[Decimal]]
    loss: Callable[..., Decimal]
    gradient: Callable[..., list[Decimal]]


def _unmargined(function: Callable[..., list[Decimal]]) -> Callable[..., list[Decimal]]:
    def without(row: Row, temperature: Number = 1.0, margin: float = 0.5, **parameters: Any) -> list[Decimal]:
        return function(row, temperature, **parameters)

    return without


def _logged(function: Callable[..., list[Decimal]]) -> Callable[..., list[Decimal]]:
    return lambda row, *arguments, **parameters: ref.logarithms(function(row, *arguments, **parameters))


def _pseudo_logarithms(row: Row, temperature: Number = 1.0) -> list[Decimal]:
    return ref.log_softmax(row, ref.base_2(temperature))


_plain, _log, _taylor = _unmargined(ref.softmax), _unmargined(ref.log_softmax), _unmargined(ref.taylor_softmax)
_ball = ref.spherical_softmax
MEMBERS: dict[str, Member] = {
    "softmax": Member(ref.softmax, ref.log_softmax, ref.cross_entropy, ref.gradient),
    "taylor": Member(ref.taylor_softmax, _logged(ref.taylor_softmax), taylor_loss, taylor_gradient),
    "soft_margin": Member(_plain, _log, soft_margin_loss, soft_margin_gradient),
    "sm_taylor": Member(_taylor, _logged(_taylor), sm_taylor_loss, sm_taylor_gradient),
    "spherical": Member(_ball, _logged(_ball), spherical_loss, spherical_gradient),
    "sparsemax": Member(ref.sparsemax, _logged(ref.sparsemax), sparsemax_loss, sparsemax_gradient),
    "entmax": Member(ref.entmax, _logged(ref.entmax), entmax_loss, entmax_gradient),
    "sigmoid": Member(ref.sigmoid, ref.log_sigmoid, sigmoid_loss, sigmoid_gradient),
    "pseudo": Member(ref.pseudo_softmax, _pseudo_logarithms, pseudo_loss, pseudo_gradient),
}
