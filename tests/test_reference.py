"""The truth itself: against published values, against differences finer than any float, and at its corners."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest

from tests import reference as ref
from tests import reference_losses as losses
from tests import vectors
from tests.reference import DIGITS, INFINITY, NAN, one_hot
from tests.reference_losses import MEMBERS

INF = math.inf
Target = list[float]
# name in vectors.py: the function of (row, target), with its parameters
MAPS: dict[str, Callable[[list[float], Target], list[Decimal]]] = {
    "softmax": lambda row, _: ref.softmax(row),
    "log_softmax": lambda row, _: ref.log_softmax(row),
    "softmax, T=2": lambda row, _: ref.softmax(row, 2),
    "softmax, T=0.5": lambda row, _: ref.softmax(row, 0.5),
    "sigmoid": lambda row, _: ref.sigmoid(row),
    "tanh": lambda row, _: ref.tanh(row),
    "normalize": lambda row, _: ref.normalize(row),
    "Taylor, degree 2": lambda row, _: ref.taylor_softmax(row),
    "Taylor, degree 4": lambda row, _: ref.taylor_softmax(row, degree=4),
    "Taylor, degree 6": lambda row, _: ref.taylor_softmax(row, degree=6),
    "soft margin 0.5": ref.soft_margin_softmax,
    "soft margin 0.5, Taylor, degree 2": ref.sm_taylor_softmax,
    "soft margin 0.5, Taylor, degree 4": lambda row, q: ref.sm_taylor_softmax(row, q, degree=4),
    "spherical, eps 1e-3": lambda row, _: ref.spherical_softmax(row),
    "sparsemax": lambda row, _: ref.sparsemax(row),
    "entmax, alpha 1.5": lambda row, _: ref.entmax15(row),
    "entmax, alpha 1.25": lambda row, _: ref.entmax(row, alpha=1.25),
    "pseudo-softmax": lambda row, _: ref.pseudo_softmax(row),
}
REDUCTIONS: dict[str, Callable[[list[float]], Decimal]] = {
    "logsumexp": ref.logsumexp,
    "sparsemax, tau": lambda row: max(Decimal(z) - p for z, p in zip(row, ref.sparsemax(row), strict=True) if p > 0),
    "mellowmax, omega 1": ref.mellowmax,
    "Boltzmann mean, T=1": ref.boltzmann_mean,
}
# name in vectors.py, which is also that of the loss there: the name of a link, or a pair; parameters
LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "softmax, T=2": ("softmax", {"temperature": 2}),
    "softmax, smoothing 0.1": ("softmax", {}),
    "Taylor, degree 2": ("taylor", {}),
    "Taylor, degree 4": ("taylor", {"degree": 4}),
    "soft margin 0.5": ("soft_margin", {}),
    "soft margin 0.5, Taylor, degree 2": ("sm_taylor", {}),
    "soft margin 0.5, Taylor, degree 4": ("sm_taylor", {"degree": 4}),
    "spherical, eps 1e-3": ("spherical", {}),
    "sparsemax": ("sparsemax", {}),
    "entmax, alpha 1.5": ("entmax", {}),
    "pseudo-softmax": ("pseudo", {}),
    "focal, gamma 2": ((losses.focal_loss, losses.focal_gradient), {}),
    "Brier": ((losses.brier_loss, losses.brier_gradient), {}),
}
# For differences: rows on no edge of a support, with targets that may be distributions, and logits that are not there.
PROBLEMS: tuple[tuple[list[float], Target], ...] = (
    (vectors.ROWS["B"], one_hot(1, 3)),
    (vectors.ROWS["C"], one_hot(0, 3)),
    (vectors.ROWS["E"][:6], [0.0, 0.5, 0.0, 0.125, 0.375, 0.0]),
    ([0.3, -INF, 0.9, -0.45, -INF], [0.5, 0.0, 0.25, 0.25, 0.0]),
    ([-INF, 1.7], [0.0, 1.0]),
    ([0.4, 0.1, -0.2], [0.3, 0.3, 0.3]),  # masses that sum to something else
)
PARAMETERS: dict[str, tuple[dict[str, Any], ...]] = {
    "taylor": ({"degree": 2}, {"degree": 4}, {"degree": 10}),
    "soft_margin": ({"margin": 0.5}, {"margin": 2.0}),
    "sm_taylor": ({"degree": 2, "margin": 0.5}, {"degree": 6, "margin": 1.25}),
    "spherical": ({"eps": 1e-3}, {"eps": 0.7}),
    "entmax": tuple({"alpha": alpha} for alpha in (1, 1.125, 1.25, 1.5, 1.7, 2, 2.5)),
}
CASES = [(name, parameters) for name in MEMBERS for parameters in PARAMETERS.get(name, ({},))]


def close(got: list[Decimal], expected: list[Any], rel: str, floor: str = "0") -> None:
    assert len(got) == len(expected)
    for value, other in zip(got, map(Decimal, expected), strict=True):
        assert abs(value - other) <= Decimal(rel) * abs(other) + Decimal(floor), (value, other)


def slope(function: Callable[..., Decimal], row: list[float], k: int, *more: Any, **parameters: Any) -> Decimal:
    """Central difference of a function of a row and more in entry k of the row; its error is about 1e-20."""
    step = Decimal("1e-10")
    up, down = ([Decimal(x) + sign * step * (i == k) for i, x in enumerate(row)] for sign in (1, -1))
    with localcontext(DIGITS):
        return (function(up, *more, **parameters) - function(down, *more, **parameters)) / (2 * step)


def published(table: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "letter"), [(name, letter) for name in table for letter in table[name]])


@published(vectors.MAPS)
def test_published_values_of_maps(name: str, letter: str) -> None:
    row = vectors.ROWS[letter]
    got = MAPS[name](row, one_hot(vectors.TARGETS[letter], len(row)))
    close(got, [str(v) for v in vectors.MAPS[name][letter]], "1e-11")


@published(vectors.REDUCTIONS)
def test_published_values_of_reductions(name: str, letter: str) -> None:
    close([REDUCTIONS[name](vectors.ROWS[letter])], [str(vectors.REDUCTIONS[name][letter])], "1e-11")


@published(vectors.LOSSES)
def test_published_losses_and_gradients(name: str, letter: str) -> None:
    row, (member, parameters) = vectors.ROWS[letter], LOSSES[name]
    q = one_hot(vectors.TARGETS[letter], len(row))
    if "smoothing" in name:
        q = [0.9 * v + 0.1 / len(row) for v in q]
    loss, gradient = (MEMBERS[member].loss, MEMBERS[member].gradient) if isinstance(member, str) else member
    close([loss(row, q, **parameters)], [str(vectors.LOSSES[name][letter])], "1e-11", "1e-45")
    if letter == "C" and name in vectors.GRADIENTS_OF_C:
        close(gradient(row, q, **parameters), [str(v) for v in vectors.GRADIENTS_OF_C[name]], "1e-11", "1e-45")


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_gradients_are_the_slopes_of_losses(name: str, parameters: dict[str, Any]) -> None:
    for row, q in PROBLEMS:
        got = MEMBERS[name].gradient(row, q, 0.7, **parameters)
        for k, x in enumerate(row):
            expected = Decimal(0) if x == -INF else slope(MEMBERS[name].loss, row, k, q, 0.7, **parameters)
            close([got[k]], [expected], "1e-16", "1e-16")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_the_gradient_of_focal_is_the_slope(gamma: float) -> None:
    for row, q in PROBLEMS:
        for k, x in enumerate(row):
            expected = Decimal(0) if x == -INF else slope(losses.focal_loss, row, k, q, gamma)
            close([losses.focal_gradient(row, q, gamma)[k]], [expected], "1e-16", "1e-16")


def test_the_gradient_of_brier_is_the_slope() -> None:
    for row, q in PROBLEMS:
        for k, x in enumerate(row):
            expected = Decimal(0) if x == -INF else slope(losses.brier_loss, row, k, q)
            close([losses.brier_gradient(row, q)[k]], [expected], "1e-16", "1e-16")


def test_the_gradients_of_mellowmax_and_logsumexp_are_softmax() -> None:
    row = vectors.ROWS["E"]
    for k in range(len(row)):
        close([ref.softmax(row, 0.5)[k]], [slope(ref.mellowmax, row, k, 2.0)], "1e-16")
        close([ref.softmax(row)[k]], [slope(ref.logsumexp, row, k)], "1e-16")


@pytest.mark.parametrize("alpha", [1.125, 1.5, 1.7, 2.0, 2.5])
def test_the_slope_of_entmax_in_alpha(alpha: float) -> None:
    step = Decimal("1e-10")
    for row, _ in PROBLEMS:
        up, down = (ref.entmax(row, 1.7, Decimal(alpha) + sign * step) for sign in (1, -1))
        with localcontext(DIGITS):
            expected = [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)]
        close(ref.entmax_slope(row, 1.7, alpha), expected, "1e-15", "1e-15")


def test_the_slope_of_entmax_at_alpha_1_is_the_limit() -> None:
    row = [0.3, -0.2, 0.1]
    close(ref.entmax_slope(row, alpha=1), ref.entmax_slope(row, alpha=1 + Decimal("1e-9")), "1e-7")


@pytest.mark.parametrize("row", [*vectors.ROWS.values(), [0.0, 0.0, 0.0], [2.0], [1.0, -INF, 1.5], [0.0, -1.0]])
def test_entmax_by_halving_is_what_sorting_finds(row: list[float]) -> None:
    for temperature in (1.0, 0.3, 5.0):
        close(ref.entmax(row, temperature, 2), ref.sparsemax(row, temperature), "1e-45", "1e-45")
        close(ref.entmax(row, temperature, 1.5), ref.entmax15(row, temperature), "1e-25", "1e-45")
        near = ref.entmax(row, temperature, 1 + Decimal("1e-12"))
        close(near, ref.softmax(row, temperature), "1e-8", "1e-9")


def test_definitions_that_are_computed_another_way() -> None:
    row, q = vectors.ROWS["C"], one_hot(0, 3)
    powers = [Decimal(2) ** Decimal(x / 0.5) for x in row]
    close(ref.pseudo_softmax(row, 0.5), [v / sum(powers) for v in powers], "1e-26")
    close([losses.entmax_loss(row, q, alpha=1)], [ref.cross_entropy(row, q)], "1e-45")
    close([losses.focal_loss(row, q, 0.0)], [ref.cross_entropy(row, q)], "1e-45")
    weighted = ref.logsumexp([*row, INF], weights=[2.0, 1.0, 1.0, 0.0])
    close([weighted], [ref.logsumexp([*row, row[0]])], "1e-45")
    assert ref.logsumexp(row, weights=[0.0] * 3) == -INFINITY
    with pytest.raises(ValueError, match="no probabilities"):
        ref.normalize(row)


@pytest.mark.parametrize("name", sorted(set(MEMBERS) - {"sigmoid"}))
def test_corners_of_probabilities(name: str) -> None:
    p = MEMBERS[name].probabilities
    assert p([1.0, 2.0, -INF])[2] == 0
    close(p([1.0, 2.0, -INF])[:2], p([1.0, 2.0]), "1e-45")
    assert p([3.0, INF, -INF, INF]) == [0, Decimal("0.5"), 0, Decimal("0.5")]
    assert p([-INF, -INF]) == [0, 0]
    assert all(v.is_nan() for v in p([math.nan, INF, 1.0]))
    assert p([7.0]) == [1]
    assert p([-1e-300, 1e308])[0] < Decimal("1e-300") < p([-1e-300, 1e308])[1] == 1
    assert p([]) == []
    assert MEMBERS[name].log_probabilities([3.0, INF, -INF, INF])[::2] == [-INFINITY] * 2
    for row in (vectors.ROWS["C"], vectors.ROWS["D"]):
        log_p = MEMBERS[name].log_probabilities(row)
        with localcontext(DIGITS):
            close([v.exp() for v in log_p], p(row), "1e-44")


@pytest.mark.parametrize("name", sorted(set(MEMBERS) - {"sigmoid"}))
def test_corners_of_losses(name: str) -> None:
    loss, gradient = MEMBERS[name].loss, MEMBERS[name].gradient
    for row in ([3.0, INF, INF], [-INF, -INF, -INF]):
        assert gradient(row, one_hot(1, 3)) == [0, 0, 0]
        assert loss(row, one_hot(0, 3)) == INFINITY
    assert loss([3.0, INF], one_hot(1, 2)) == 0
    assert Decimal(0) <= loss([3.0, INF, INF], one_hot(1, 3)) < INFINITY
    assert loss([0.0, -INF], one_hot(1, 2)) == INFINITY
    assert loss([math.nan, 1.0], one_hot(1, 2)).is_nan()
    assert all(v.is_nan() for v in gradient([math.nan, 1.0], one_hot(1, 2)))


@pytest.mark.parametrize(("name", "alpha"), [("sparsemax", None), ("entmax", 1.25), ("entmax", 1.5), ("entmax", 3)])
def test_fenchel_young_losses_at_infinity_are_the_limits_of_finite_ones(name: str, alpha: float | None) -> None:
    parameters, q = ({} if alpha is None else {"alpha": alpha}), [0.0, 0.75, 0.25]
    at_infinity = MEMBERS[name].loss([3.0, INF, INF], q, **parameters)
    close([at_infinity], [MEMBERS[name].loss([3.0, 1e9, 1e9], q, **parameters)], "1e-30")


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_the_pull_on_a_logit_that_is_not_there(name: str) -> None:
    pull = 0 if name in ("taylor", "sm_taylor", "spherical") else Decimal("-0.125")
    if name == "pseudo":
        pull = DIGITS.multiply(Decimal("-0.125"), DIGITS.ln(Decimal(2)))
    close(MEMBERS[name].gradient([0.5, 1.0, -INF], [0.25, 0.5, 0.25], 2.0)[2:], [pull], "1e-45")


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2, 3])
def test_fenchel_young_losses_are_0_at_their_own_probabilities_and_positive_elsewhere(alpha: float) -> None:
    for row, _ in PROBLEMS:
        p: list[Any] = ref.entmax(row, 1.7, alpha)
        assert abs(losses.entmax_loss(row, p, 1.7, alpha)) < Decimal("1e-45")
        q = [float(v) / 2 + (k == 1) / 2 for k, v in enumerate(p)]
        assert q == [float(v) for v in p] or losses.entmax_loss(row, q, 1.7, alpha) > Decimal("1e-3")


def test_corners_of_the_sigmoid_are_each_entry_s_own() -> None:
    row, q = [INF, -INF, 0.0], [1.0, 0.0, 0.5]
    assert ref.sigmoid(row) == [1, 0, Decimal("0.5")]
    assert ref.log_sigmoid(row)[:2] == [0, -INFINITY]
    close(ref.log_sigmoid([500.0, 27.7, 27.6]), [-math.log1p(math.exp(-x)) for x in (500.0, 27.7, 27.6)], "1e-15")
    close([losses.sigmoid_loss(row, q)], [losses.sigmoid_loss([0.0], [0.5])], "1e-45")
    assert losses.sigmoid_gradient(row, q) == [0, 0, 0]
    assert losses.sigmoid_loss(row, [0.0, 0.0, 0.5]) == INFINITY
    assert [v.is_nan() for v in ref.sigmoid([math.nan, 1.0])] == [True, False]


def test_corners_of_reductions() -> None:
    assert ref.mellowmax([1.0, INF]) == ref.boltzmann_mean([1.0, INF]) == INFINITY
    assert ref.mellowmax([1.0, -INF]) == ref.boltzmann_mean([1.0, -INF]) == 1
    for nothing in ([], [-INF, -INF], [math.nan, 1.0]):
        assert ref.mellowmax(nothing).is_nan()
        assert ref.boltzmann_mean(nothing).is_nan()
    for gradient in (losses.focal_gradient, losses.brier_gradient):
        assert gradient([3.0, INF, INF], one_hot(1, 3)) == [0, 0, 0]
        assert all(v.is_nan() for v in gradient([math.nan, 1.0], one_hot(1, 2)))
    assert str(NAN) == str(losses.brier_loss([math.nan, 1.0], one_hot(1, 2)))
