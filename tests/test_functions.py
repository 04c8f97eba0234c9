"""The functions around the family, against definitions in 50 digits, in every dtype, shape and axis."""

from __future__ import annotations

import functools
import itertools
import math
import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import luce
from tests import reference
from tests.vectors import ROWS

Array = NDArray[Any]
INF, NAN = math.inf, math.nan
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (3, 4), (2, 3, 4), (2, 1, 3, 2)]
WEIGHTS = [0.5, 0.0, 2.0, 3.0, 1.0, 0.25, 1.5]  # as many as the longest row of SHAPES


def eps(dtype: Any) -> float:
    return float(_info(dtype).eps)


def _info(dtype: Any) -> Any:
    info: Any = ml_dtypes.finfo
    return info(dtype)


def numbers(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Array:
    """Numbers of both signs, some of them equal."""
    return np.asarray(np.random.default_rng(seed).integers(-40, 40, shape) / 8, dtype)


def positives(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).integers(1, 60, shape) / 8, dtype)


def along(truth: Callable[[list[float]], Any], x: Array, axis: int) -> Array:
    """A reference's results for every row along an axis, in float64; one number for a row takes the axis away."""
    rows = np.moveaxis(np.atleast_1d(x.astype(np.float64)), axis, -1)
    flat = [np.asarray(truth(row.tolist()), np.float64) for row in rows.reshape(-1, rows.shape[-1])]
    if flat[0].ndim == 0:
        return np.array(flat).reshape(rows.shape[:-1])
    return np.moveaxis(np.array(flat).reshape(rows.shape), -1, axis).reshape(x.shape)


def close(got: Any, truth: Array, dtype: Any, c: float = 8.0, size: float = 1.0) -> None:
    """Within c eps of the result, or of `size` where results may be small by cancellation."""
    assert np.asarray(got).dtype == dtype
    assert np.shape(got) == truth.shape
    allowed = c * eps(dtype) * np.maximum(np.abs(truth), size) + float(_info(dtype).smallest_subnormal)
    difference = np.abs(np.asarray(got, np.float64) - truth)
    assert (difference <= allowed).all(), (difference / allowed).max()


def _lse(row: Sequence[float]) -> Any:
    return reference.logsumexp(row, weights=WEIGHTS[: len(row)])


def _weighted_logsumexp(x: Array, axis: int = -1, **options: Any) -> Array:
    weights = np.array(WEIGHTS[0])
    if x.ndim:
        weights = np.array(WEIGHTS[: x.shape[axis]]).reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    return luce.logsumexp(x, axis, weights=weights, **options)


# name: (function, truth of a row, how many eps, of what size)
MAPS: dict[str, tuple[Callable[..., Array], Callable[[list[float]], Any], float, float]] = {
    "boltzmann": (luce.boltzmann, reference.softmax, 12.0, 0.0),
    "pseudo_softmax": (luce.pseudo_softmax, reference.pseudo_softmax, 20.0, 0.0),
    "entmax of one alpha a row": (
        lambda x, axis=-1, **o: luce.entmax(
            x, axis, alpha=np.full([1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)], 1.25), **o
        ),
        lambda row: reference.entmax(row, alpha=1.25),
        4.0,
        1.0,
    ),
}
REDUCTIONS: dict[str, tuple[Callable[..., Array], Callable[[list[float]], Any]]] = {
    "mellowmax": (luce.mellowmax, reference.mellowmax),
    "boltzmann_mean": (luce.boltzmann_mean, reference.boltzmann_mean),
    "logsumexp with weights": (_weighted_logsumexp, _lse),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*MAPS, "normalize"])
def test_maps_along_every_axis(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    function, truth, c, size = MAPS.get(name, (luce.normalize, reference.normalize, 3.0, 0.0))
    x = positives(shape, dtype) if name == "normalize" else numbers(shape, dtype)
    for axis in range(-max(x.ndim, 1), max(x.ndim, 1)):
        expected = along(truth, x, axis)
        close(function(x, axis), expected, dtype, c, size)
        for wanted in (np.float64, ml_dtypes.bfloat16, np.float16):
            close(function(x, axis, dtype=wanted), expected, wanted, 2 + c * eps(dtype) / eps(wanted), size)
        for out in (x.copy(), np.empty((*shape, 2), dtype)[..., 0], np.empty(shape[::-1], dtype).T):
            given = out if out.flags.c_contiguous and out.base is None else x  # the first is both x and out
            assert function(given, axis, out=out) is out
            close(out, expected, dtype, c, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_along_every_axis(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    function, truth = REDUCTIONS[name]
    x = numbers(shape, dtype)
    for axis in range(-max(x.ndim, 1), max(x.ndim, 1)):
        expected = along(truth, x, axis)
        finite = np.isfinite(expected)  # logsumexp of one number with weight 0
        got = np.asarray(function(x, axis))
        np.testing.assert_array_equal(got[~finite].astype(float), expected[~finite])
        close(got[finite], expected[finite], dtype, 6, 5)
        kept = function(x, axis, keepdims=True, dtype=np.float64)
        assert np.shape(kept) == tuple(1 if i == axis % x.ndim else n for i, n in enumerate(shape))
        np.testing.assert_allclose(np.reshape(kept, expected.shape), expected, rtol=0, atol=50 * max(eps(dtype), 1e-9))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tanh_and_relu_of_each_number(shape: tuple[int, ...], dtype: Any) -> None:
    x = numbers(shape, dtype)
    mask = numbers(shape, np.float64, seed=1) > 0
    for function, truth in ((luce.tanh, along(reference.tanh, x, -1)), (luce.relu, np.maximum(x.astype(float), 0))):
        close(function(x), truth, dtype, 4, 0)
        close(function(x, where=mask), np.where(mask, truth, 0), dtype, 4, 0)
        out = x.copy()
        assert function(out, out=out) is out
        close(out, truth, dtype, 4, 0)
        close(function(x, dtype=np.float64), truth, np.float64, 4 * eps(dtype) / eps(np.float64), 0)
    np.testing.assert_array_equal(luce.relu(x).astype(float), np.maximum(x, dtype(0)).astype(float))


def test_tanh_and_relu_at_the_ends() -> None:
    x = [-INF, INF, NAN, 0.0, 1e-30, 1e300, -1e300]
    np.testing.assert_array_equal(luce.tanh(x), [-1, 1, NAN, 0, 1e-30, 1, -1])
    np.testing.assert_array_equal(luce.relu(x), [0, INF, NAN, 0, 1e-30, 1e300, 0])
    np.testing.assert_array_equal(luce.relu([3, -3]), [3.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_covariance_is_that_of_a_one_hot_draw(dtype: Any) -> None:
    for shape, temperature in itertools.product(SHAPES, (1.0, 2.5)):
        x = numbers(shape, dtype)
        for axis in range(-max(x.ndim, 1), max(x.ndim, 1)):
            got = luce.softmax_covariance(x, axis, temperature=temperature)
            p = along(functools.partial(reference.softmax, temperature=temperature), x, axis)
            p = np.moveaxis(np.atleast_1d(p), axis, -1)
            truth = np.eye(p.shape[-1]) * p[..., None] - p[..., None] * p[..., None, :]
            close(got, truth, dtype, 4 if eps(dtype) > 1e-4 else 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vjp_is_a_product_with_the_covariance(dtype: Any) -> None:
    for shape, temperature in itertools.product(SHAPES, (1.0, 2.5)):
        p = np.asarray(luce.softmax(numbers(shape, np.float64)), dtype)
        v = numbers(shape, dtype, seed=1)
        for axis in range(-max(p.ndim, 1), max(p.ndim, 1)):
            a, b = (np.moveaxis(np.atleast_1d(t.astype(float)), axis, -1) for t in (p, v))
            truth = a * (b - (a * b).sum(-1, keepdims=True)) / temperature
            truth = np.moveaxis(truth, -1, axis).reshape(shape)
            size = 5 * max(1.0, float(a.sum(-1).max()) ** 2)
            close(luce.softmax_vjp(p, v, axis, temperature=temperature), truth, dtype, 4, size)
            for out in (v.copy(), p.copy()):
                pair = (p, out) if (out == v).all() else (out, v)
                assert luce.softmax_vjp(*pair, axis, temperature=temperature, out=out) is out
                close(out, truth, dtype, 4, size)


def test_what_cannot_happen_does_not_count_in_a_product() -> None:
    np.testing.assert_array_equal(luce.softmax_vjp([1.0, 0.0], [2.0, INF]), [0, 0])
    np.testing.assert_array_equal(luce.softmax_vjp([0.5, 0.5, 0.0], [1.0, 0.0, NAN]), [0.25, -0.25, 0])
    assert np.isnan(luce.softmax_vjp([0.5, 0.5], [INF, 0.0])).any()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_of_the_tables(name: str) -> None:
    row = ROWS[name]
    assert luce.mellowmax(row) == pytest.approx(float(reference.mellowmax(row)), rel=1e-14)
    assert luce.boltzmann_mean(row) == pytest.approx(float(reference.boltzmann_mean(row)), rel=1e-14)
    np.testing.assert_allclose(luce.pseudo_softmax(row), np.array(reference.pseudo_softmax(row), float), rtol=1e-13)


# --- corners ---------------------------------------------------------------------------------------------------------


def test_corners_of_normalize() -> None:
    np.testing.assert_array_equal(luce.normalize([INF, 1.0, INF]), [0.5, 0, 0.5])
    assert np.isnan(luce.normalize([NAN, 1.0, INF])).all()
    np.testing.assert_array_equal(luce.normalize([1e308, 1e308, 0.0]), [0.5, 0.5, 0])
    np.testing.assert_array_equal(luce.normalize([5e-324, 5e-324]), [0.5, 0.5])
    np.testing.assert_array_equal(luce.normalize(np.full(4, 65_504, np.float16)), [0.25] * 4)
    np.testing.assert_array_equal(
        luce.normalize([[2.0, -1.0], [3.0, 1.0]], where=[[True, False], [True, True]])[0], 1 - np.arange(2)
    )
    np.testing.assert_array_equal(luce.normalize([NAN, -INF, 2.0], where=[False, False, True]), [0, 0, 1])
    np.testing.assert_array_equal(luce.normalize([1.0, 2.0], where=False), [0, 0])
    np.testing.assert_array_equal(luce.normalize([3, 1]), [0.75, 0.25])
    for empty in ((0, 3), (3, 0), (0,)):
        assert luce.normalize(np.zeros(empty)).shape == empty


@pytest.mark.parametrize(
    ("x", "where", "message"),
    [
        ([1.0, -1e-30], None, "must not be negative"),
        ([1.0, -INF], None, "must not be negative"),
        ([1.0, -INF], True, "must not be negative"),
        ([0.0, 0.0], None, "a row sums to 0"),
        ([[1.0, 2.0], [0.0, 0.0]], None, "a row sums to 0"),
        ([0.0, 2.0], [True, False], "a row sums to 0"),
    ],
)
def test_normalize_refuses_what_gives_no_probabilities(x: Any, where: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^normalize: .*{message}.*softmax takes any"):
        luce.normalize(x, where=where)


def test_corners_of_the_reductions() -> None:
    for function, nothing in ((luce.mellowmax, NAN), (luce.boltzmann_mean, NAN), (luce.logsumexp, -INF)):
        np.testing.assert_array_equal(
            function([[-INF, -INF], [NAN, 1.0], [INF, -INF], [INF, NAN]]), [nothing, NAN, INF, NAN]
        )
        np.testing.assert_array_equal(function(np.zeros((2, 0))), [nothing] * 2)
        np.testing.assert_array_equal(function([1.0, 2.0], where=False), nothing)
        assert function(np.zeros((0, 2))).shape == (0,)
        assert function(np.zeros((0, 0))).shape == (0,)
        assert function([[1.0, 2.0]], keepdims=True).shape == (1, 1)
        assert function([1, 2]).dtype == np.float64
        x = numbers((4, 6), np.float64)
        mask = numbers((4, 6), np.float64, seed=1) > -3
        alone = [function(row[seen]) for row, seen in zip(x, mask, strict=True)]
        np.testing.assert_allclose(function(x, where=mask), alone, rtol=1e-14)
        gaps = np.where(mask, x, -INF)  # -inf is not there, as if it were masked
        np.testing.assert_allclose(function(gaps), alone, rtol=1e-14)
        np.testing.assert_allclose(function(gaps, where=np.ones((4, 6), bool)), alone, rtol=1e-14)


def test_the_largest_numbers_side_by_side() -> None:
    assert luce.mellowmax([1e308, 1e308]) == 1e308
    assert luce.mellowmax([1.5e308, -1.5e308], omega=1e-320) == pytest.approx(0, abs=1e305)
    for omega in (1e-308, 1e-307, 1.0, 1e308):
        expected = reference.mellowmax([1e308, -1e308, 3e307], omega)
        assert luce.mellowmax([1e308, -1e308, 3e307], omega=omega) == pytest.approx(float(expected), rel=1e-12)
    assert luce.boltzmann_mean([8e307, -8e307], temperature=1e308) == pytest.approx(
        float(reference.boltzmann_mean([8e307, -8e307], 1e308)), rel=1e-12
    )
    assert luce.boltzmann_mean([1e308, -1e308]) == 1e308


# --- logsumexp with weights -----------------------------------------------------------------------------------------


def test_weights_of_zero_take_entries_out() -> None:
    assert luce.logsumexp([5.0, 7.0], weights=[1.0, 0.0]) == 5.0
    assert luce.logsumexp([5.0, 7.0], weights=[0.0, 0.0]) == -INF
    assert luce.logsumexp([-INF, 7.0], weights=[3.0, 1.0]) == 7.0
    assert luce.logsumexp([INF, 7.0], weights=[0.0, 1.0]) == 7.0
    assert luce.logsumexp([INF, 7.0], weights=[1e-300, 1.0]) == INF
    assert np.isnan(luce.logsumexp([NAN, 7.0], weights=[0.5, 1.0]))
    assert luce.logsumexp([1.0, 2.0], weights=2.0) == pytest.approx(math.log(2) + float(luce.logsumexp([1.0, 2.0])))
    assert luce.logsumexp(np.ones(2, np.float32), weights=[1e-300, 1e300]).dtype == np.float32


@given(row=st.lists(st.floats(-700, 700), min_size=1, max_size=9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_weights_count_as_often_as_they_say(row: list[float], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 4, len(row))
    repeated = np.repeat(row, counts)
    got = luce.logsumexp(row, weights=counts)
    assert got == pytest.approx(float(luce.logsumexp(repeated)), rel=1e-14, abs=1e-13)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, NAN], [1.0, 2.0, 3.0]])
def test_wrong_weights_are_named(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^logsumexp: weights"):
        luce.logsumexp([1.0, 2.0], weights=weights)


# --- Gumbel and Boltzmann -------------------------------------------------------------------------------------------


def unlikely(counts: Array, p: Array) -> bool:
    """Whether counts are further from n p than a true sample is once in a million times."""
    expected = counts.sum() * p
    assert (counts[p == 0] == 0).all()
    seen = expected > 0
    statistic = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
    return bool(statistic > stats.chi2.ppf(1 - 1e-6, max(1, int(seen.sum()) - 1)))


N = 20_000
LOGITS = np.array([0.5, -1.25, 2.0, 0.0, 1.0, -0.5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [0.1, 1.0, 1e4])
def test_hard_samples_are_distributed_as_softmax(dtype: Any, tau: float) -> None:
    x = np.broadcast_to(LOGITS.astype(dtype), (N, 6))
    samples = luce.gumbel_softmax(x, hard=True, tau=tau, rng=1)
    assert samples.dtype == dtype
    assert set(np.unique(samples.astype(float))) == {0.0, 1.0}
    np.testing.assert_array_equal(samples.astype(float).sum(1), 1)
    assert not unlikely(samples.astype(float).sum(0), luce.softmax(LOGITS))


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ([1e17, 1e17, 1e17], None),  # noise must not drown
        ([INF, 3.0, INF, -INF], None),
        ([-INF, 0.0, 1.0, -INF], None),
        ([0.0, 1.0, 2.0, 0.5], [True, False, True, True]),
        ([NAN, 1.0, INF, 0.5], [False, True, False, True]),
    ],
)
def test_samples_in_corners(row: list[float], where: Any) -> None:
    p = luce.softmax(row, where=where)
    x = np.broadcast_to(row, (N, len(row)))
    hard = luce.gumbel_softmax(x, hard=True, rng=2, where=where)
    assert not unlikely(hard.sum(0), p)
    drawn = luce.boltzmann_sample(x, rng=3, where=where)
    assert not unlikely(np.bincount(drawn, minlength=len(row)), p)
    soft = luce.gumbel_softmax(x, rng=2, where=where)
    np.testing.assert_array_equal(soft[:, p == 0], 0)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-14)


def test_rows_of_nothing_and_of_nan() -> None:
    for hard in (False, True):
        got = luce.gumbel_softmax([[-INF, -INF], [NAN, INF], [1.0, -INF]], hard=hard, rng=0)
        np.testing.assert_array_equal(got, [[0, 0], [NAN, NAN], [1, 0]])
        np.testing.assert_array_equal(luce.gumbel_softmax([1.0, 2.0], where=False, hard=hard), [0, 0])
        assert luce.gumbel_softmax(3.0, hard=hard) == 1
        for empty in ((0, 3), (3, 0), (0, 0)):
            assert luce.gumbel_softmax(np.zeros(empty), hard=hard).shape == empty


def test_the_relaxation_between_its_limits() -> None:
    x = np.broadcast_to(LOGITS, (500, 6))
    hard = luce.gumbel_softmax(x, hard=True, rng=4)
    cold = luce.gumbel_softmax(x, tau=1e-12, rng=4)
    np.testing.assert_allclose(cold, hard, atol=1e-6)
    np.testing.assert_allclose(luce.gumbel_softmax(x, tau=1e9, rng=4), 1 / 6, atol=1e-7)
    for tau in (0.3, 1.0, 3.0):  # hard is where soft is largest, whatever tau is
        soft = luce.gumbel_softmax(x, tau=tau, rng=4)
        np.testing.assert_array_equal(soft.argmax(1), hard.argmax(1))
        np.testing.assert_array_equal(luce.gumbel_softmax(x, tau=tau, hard=True, rng=4), hard)
    p = luce.gumbel_softmax(np.broadcast_to(LOGITS, (N, 6)), tau=0.05, rng=5).mean(0)
    np.testing.assert_allclose(p, luce.softmax(LOGITS), atol=0.02)


def test_a_seed_fixes_the_sample_and_a_generator_goes_on() -> None:
    x = np.zeros((3, 8))
    np.testing.assert_array_equal(luce.gumbel_softmax(x, rng=7), luce.gumbel_softmax(x, rng=7))
    assert (luce.gumbel_softmax(x) != luce.gumbel_softmax(x)).any()
    rng = np.random.default_rng(7)
    first, second = (luce.gumbel_softmax(x, rng=rng) for _ in range(2))
    np.testing.assert_array_equal(first, luce.gumbel_softmax(x, rng=7))
    assert (first != second).any()
    for out in (np.empty((3, 8)), np.empty((8, 3)).T, np.empty((3, 16))[:, ::2]):
        assert luce.gumbel_softmax(x, rng=7, out=out) is out
        np.testing.assert_array_equal(out, first)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_actions_are_drawn_from_the_policy(temperature: float) -> None:
    x = np.broadcast_to(LOGITS[:, None], (6, N))
    drawn = luce.boltzmann_sample(x, 0, temperature=temperature, rng=6)
    assert drawn.dtype == np.int64
    assert drawn.shape == (N,)
    assert not unlikely(np.bincount(drawn, minlength=6), luce.softmax(LOGITS, temperature=temperature))


def test_shapes_of_drawn_actions() -> None:
    assert luce.boltzmann_sample(3.0) == 0
    assert isinstance(luce.boltzmann_sample([1, 2]), np.int64)
    assert luce.boltzmann_sample(np.zeros((2, 3, 4)), 1).shape == (2, 4)
    assert luce.boltzmann_sample(np.zeros((0, 3))).shape == (0,)
    assert luce.boltzmann_sample(np.zeros((0, 0))).shape == (0,)
    assert luce.boltzmann_sample([1e300, -1e300], temperature=1e-300) == 0
    assert luce.boltzmann_sample(np.array([-60_000, 60_000], np.float16)) == 1


@pytest.mark.parametrize("row", [[NAN, 1.0], [-INF, -INF], []])
def test_no_action_to_draw(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^boltzmann_sample: a row has no action to draw from, or holds a NaN"):
        luce.boltzmann_sample([row, row])


def test_the_policy_is_softmax() -> None:
    x = numbers((4, 5), np.float32)
    for options in ({}, {"temperature": 0.5}, {"where": x > 0}, {"dtype": np.float16}):
        np.testing.assert_array_equal(luce.boltzmann(x, 0, **options), luce.softmax(x, 0, **options))


def test_the_expected_value_lies_between_mean_and_maximum() -> None:
    assert luce.boltzmann_mean(LOGITS, temperature=1e-9) == LOGITS.max()
    assert luce.boltzmann_mean(LOGITS, temperature=1e12) == pytest.approx(LOGITS.mean(), rel=1e-10)
    by_temperature = [luce.boltzmann_mean(LOGITS, temperature=10.0**i) for i in range(-3, 4)]
    assert (np.diff(by_temperature) <= 0).all()
    far = 1e6 + LOGITS.astype(np.float32)  # float32 has 4 bits left behind the point
    assert luce.boltzmann_mean(far.astype(np.float32)) == pytest.approx(
        float(reference.boltzmann_mean(far.astype(np.float32).tolist())), abs=0.0626
    )


# --- mellowmax ------------------------------------------------------------------------------------------------------

FINITE = st.floats(-1e6, 1e6)
PAIRS = st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=12)
OMEGAS = st.floats(-6, 6).map(lambda power: 10.0**power)


@given(pairs=PAIRS, omega=OMEGAS)
@settings(deadline=None, max_examples=200)
def test_mellowmax_is_monotone_and_not_expanding(pairs: list[tuple[float, float]], omega: float) -> None:
    x, y = np.array(pairs).T
    slack = 1e-15 * (np.abs(x).max() + np.abs(y).max()) + 1e-14 / omega
    a, b = luce.mellowmax(x, omega=omega), luce.mellowmax(y, omega=omega)
    assert abs(a - b) <= np.abs(x - y).max() + slack
    assert luce.mellowmax(np.maximum(x, y), omega=omega) >= max(a, b) - slack
    assert x.mean() - slack <= a <= x.max() + slack


@given(row=st.lists(st.floats(-50, 50), min_size=1, max_size=8), omega=OMEGAS)
@settings(deadline=None, max_examples=60)
def test_mellowmax_is_its_definition(row: list[float], omega: float) -> None:
    assert luce.mellowmax(row, omega=omega) == pytest.approx(
        float(reference.mellowmax(row, omega)), rel=1e-13, abs=1e-13
    )


@pytest.mark.parametrize("name", sorted(ROWS))
def test_mellowmax_between_mean_and_maximum(name: str) -> None:
    row = ROWS[name]
    for omega in (1e-300, 1e-12):
        assert luce.mellowmax(row, omega=omega) == pytest.approx(np.mean(row), rel=1e-10, abs=1e-10)
    for omega in (1e15, 1e300, 1.7e308):
        assert luce.mellowmax(row, omega=omega) == pytest.approx(max(row), rel=1e-13)
    by_omega = [luce.mellowmax(row, omega=10.0**i) for i in range(-6, 7)]
    assert (np.diff(by_omega) >= -1e-12).all()


def test_mellowmax_of_many_equal_numbers_is_that_number() -> None:
    assert luce.mellowmax(np.full(1_000_003, 0.1)) == pytest.approx(0.1, rel=1e-15)
    row = np.zeros(1_000_000)
    row[0] = 1e3
    assert luce.mellowmax(row) == pytest.approx(1e3 - math.log(1e6), rel=1e-14)


# --- entmax: its slope in alpha, and one alpha for each row ---------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.1, 1.25, 1.5, 1.9, 2.2, 2.6])  # away from where a class comes or goes
@pytest.mark.parametrize("name", ["A", "B", "C", "E"])
def test_slope_in_alpha_is_a_difference(name: str, alpha: float) -> None:
    row, h = ROWS[name], 1e-5
    slope = luce.entmax_slope(row, alpha=alpha)
    near, far = (luce.entmax(row, alpha=alpha + n * h) - luce.entmax(row, alpha=alpha - n * h) for n in (1, 2))
    np.testing.assert_allclose(slope, (8 * near - far) / (12 * h), atol=1e-8)
    np.testing.assert_allclose(slope, np.array(reference.entmax_slope(row, alpha=alpha), float), atol=1e-11)


@pytest.mark.parametrize("alpha", [1.0, 1.00001, 1.00009, 1.00011, 1.001])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_slope_at_and_near_one(alpha: float, temperature: float) -> None:
    row = ROWS["C"]
    slope = luce.entmax_slope(row, alpha=alpha, temperature=temperature)
    truth = np.array(reference.entmax_slope(row, temperature, alpha), float)
    np.testing.assert_allclose(slope, truth, atol=2e-4 if alpha < 1.0001 else 1e-7)
    if alpha == 1:
        one, two = (luce.entmax(row, alpha=1 + n * 1e-3, temperature=temperature) for n in (1, 2))
        difference = (4 * one - two - 3 * luce.softmax(row, temperature=temperature)) / 2e-3
        np.testing.assert_allclose(slope, truth, atol=1e-14)
        np.testing.assert_allclose(slope, difference, atol=1e-5)


def test_slope_along_any_axis_and_in_corners() -> None:
    x = numbers((3, 4, 2), np.float32)
    for axis in range(-3, 3):
        rows = luce.entmax_slope(np.moveaxis(x, axis, -1).copy())
        np.testing.assert_array_equal(luce.entmax_slope(x, axis).astype(float), np.moveaxis(rows, -1, axis))
        np.testing.assert_allclose(luce.entmax_slope(x, axis).sum(axis), 0, atol=1e-14)
    for alpha in (1.0, 1.5, 2.0):
        got = luce.entmax_slope([[-INF, -INF], [INF, 1.0], [1.0, -INF]], alpha=alpha)
        np.testing.assert_array_equal(got, np.zeros((3, 2)))
        masked = luce.entmax_slope([0.0, 9.0, 0.5], alpha=alpha, where=[True, False, True])
        np.testing.assert_allclose(masked[[0, 2]], luce.entmax_slope([0.0, 0.5], alpha=alpha), atol=1e-15)
        assert masked[1] == 0
        assert luce.entmax_slope(np.zeros((0, 3)), alpha=alpha).shape == (0, 3)
    for alpha in (0.5, INF):
        with pytest.raises(ValueError, match="alpha must be at least 1"):
            luce.entmax_slope([1.0], alpha=alpha)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_alpha_for_each_row(dtype: Any) -> None:
    x = numbers((5, 4), dtype)
    alphas = np.array([1.0, 1.1, 1.5, 2.0, 4.0])
    each = np.stack([luce.entmax(row, alpha=a) for row, a in zip(x, alphas.tolist(), strict=True)])
    np.testing.assert_array_equal(luce.entmax(x, alpha=alphas[:, None]).astype(float), each.astype(float))
    turned = luce.entmax(x.T, 0, alpha=alphas[None], where=True)
    assert turned.dtype == dtype
    np.testing.assert_array_equal(turned.T.astype(float), each.astype(float))
    mask = numbers((5, 4), np.float64, seed=3) > -2
    each = np.stack([luce.entmax(r, alpha=a, where=m) for r, a, m in zip(x, alphas.tolist(), mask, strict=True)])
    np.testing.assert_array_equal(luce.entmax(x, alpha=alphas[:, None], where=mask).astype(float), each.astype(float))
    out = x.copy()
    assert luce.entmax(out, alpha=alphas[:, None], where=mask, out=out) is out
    np.testing.assert_array_equal(out.astype(float), each.astype(float))


@pytest.mark.parametrize("alpha", [[[1.5], [0.9]], [[1.5], [NAN]], [[1.5], [INF]], [[1.5, 1.5, 1.5]], [1.5, 1.5]])
def test_wrong_alphas_are_named(alpha: Any) -> None:
    with pytest.raises(ValueError, match=r"^entmax: alpha"):
        luce.entmax(np.zeros((2, 3)), alpha=np.array(alpha))


# --- pseudo-softmax by integers -------------------------------------------------------------------------------------


def step_by_step(row: Sequence[int], bits: int) -> list[Fraction]:
    """The hardware's steps on Python's integers, with 24 bits behind the point."""
    one = 2**24
    powers = []
    for q in row:
        n, fraction = divmod(q - max(row), 2**bits)
        powers.append((one + fraction * 2 ** (24 - bits)) // 2**-n)
    shift = sum(powers).bit_length() - 25
    s = sum(powers) // 2**shift
    assert one <= s < 2 * one
    steep, flat = one * 51 // 32 - s // 2 - s // 8, one * 36 // 32 - s // 4 - s // 16
    reciprocal = steep if s < one + one // 2 else flat
    return [Fraction(power * reciprocal // one // 2**shift, one) for power in powers]


def in_fractions(row: Sequence[int], bits: int) -> list[Fraction]:
    """2^(n + f) = 2^n (1 + f) over the sum, without anything cut off."""
    parts = [divmod(q - max(row), 2**bits) for q in row]
    powers = [Fraction(2) ** n * (1 + Fraction(f, 2**bits)) for n, f in parts]
    return [power / sum(powers) for power in powers]


BYTES = st.lists(st.integers(-128, 127), min_size=1, max_size=40)


@given(row=BYTES, bits=st.integers(0, 7))
@settings(deadline=None, max_examples=150)
def test_integers_take_the_steps_of_the_hardware(row: list[int], bits: int) -> None:
    got = luce.pseudo_softmax(np.array(row, np.int8), scale=2.0**-bits)
    assert got.dtype == np.float32
    assert [Fraction(float(p)) for p in got] == step_by_step(row, bits)
    cut = Fraction(len(row), 2**24)
    for p, exact in zip(got, in_fractions(row, bits), strict=True):
        error = Fraction(float(p)) - exact
        assert exact * Fraction(-3_125, 100_000) - cut <= error <= exact * Fraction(1_602, 100_000) + cut
    assert abs(float(got.astype(float).sum()) - 1) <= 0.032 + len(row) / 2**24


def test_the_reciprocal_is_off_by_what_is_written() -> None:
    """The sums of two bytes go through both straight lines."""
    errors = []
    for q in range(-128, 128):
        row = [127, q]
        got = float(luce.pseudo_softmax(np.array(row, np.int8), scale=1 / 128)[0])
        errors.append(got / float(in_fractions(row, 7)[0]) - 1)
    assert min(errors) == pytest.approx(-0.03125, abs=1e-6)
    assert max(errors) == pytest.approx(0.0160156, abs=2e-5)


def test_the_fraction_of_an_exponent_is_a_straight_line() -> None:
    """Against 2^x itself: 1 + f lies up to 6.2 % above 2^f."""
    x = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    got = luce.pseudo_softmax(x, scale=1 / 16).astype(float)
    got /= got.sum(1, keepdims=True)
    np.testing.assert_allclose(got, luce.pseudo_softmax(x / 16), rtol=0.062)


def test_integers_along_any_axis_with_masks_and_outs() -> None:
    x = np.random.default_rng(0).integers(-128, 128, (3, 4, 5)).astype(np.int8)
    for axis in range(-3, 3):
        rows = np.moveaxis(x, axis, -1)
        truth = np.array([[[float(p) for p in step_by_step(row.tolist(), 2)] for row in rows_] for rows_ in rows])
        expected = np.moveaxis(truth, -1, axis)
        np.testing.assert_array_equal(luce.pseudo_softmax(x, axis, scale=0.25), expected)
        for dtype in DTYPES:
            for out in (np.empty(x.shape, dtype), np.empty((5, 4, 3), dtype).T, np.empty((3, 4, 10), dtype)[..., ::-2]):
                assert luce.pseudo_softmax(x, axis, scale=0.25, out=out, dtype=dtype) is out
                np.testing.assert_array_equal(out.astype(float), expected.astype(dtype).astype(float))
    swapped = np.empty(x.shape, ">f4")
    assert luce.pseudo_softmax(x, scale=0.25, out=swapped) is swapped
    np.testing.assert_array_equal(swapped, luce.pseudo_softmax(x, scale=0.25))
    mask = np.array([True, False, True, True, False])
    masked = luce.pseudo_softmax(x, scale=1.0, where=mask)
    np.testing.assert_array_equal(masked[..., mask], luce.pseudo_softmax(x[..., mask], scale=1.0))
    np.testing.assert_array_equal(masked[..., ~mask], 0)
    np.testing.assert_array_equal(luce.pseudo_softmax(x, scale=1.0, where=False), 0)
    assert luce.pseudo_softmax(np.int8(5), scale=1.0) == np.float32(0.96875)
    for empty in ((0, 3), (3, 0)):
        assert luce.pseudo_softmax(np.zeros(empty, np.int8), scale=1.0).shape == empty


def test_many_integers_lose_what_shifts_cut_off() -> None:
    for k in (1_000, 100_000):
        total = luce.pseudo_softmax(np.zeros(k, np.int8), scale=1.0).astype(float).sum()
        assert abs(total - 1) <= 0.032 + k / 2**24


# --- errors ---------------------------------------------------------------------------------------------------------

EIGHT = np.zeros(2, np.int8)
READ_ONLY = np.broadcast_to(0.0, (2,))
WRONG_CALLS: tuple[tuple[type[Exception], str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], ...] = (
    (TypeError, "tanh: needs real numbers", luce.tanh, ([True],), {}),
    (ValueError, "relu: out is read-only", luce.relu, ([1.0, 2.0],), {"out": READ_ONLY}),
    (ValueError, "normalize: axis must lie", luce.normalize, ([1.0],), {"axis": 1}),
    (ValueError, "softmax_covariance: temperature must", luce.softmax_covariance, ([1.0],), {"temperature": 0}),
    (ValueError, "softmax_covariance: axis must lie", luce.softmax_covariance, ([1.0],), {"axis": 2}),
    (ValueError, "softmax_vjp: vector must have the shape", luce.softmax_vjp, ([1.0], [1.0, 2.0]), {}),
    (TypeError, "softmax_vjp: vector: needs real numbers", luce.softmax_vjp, ([1.0], ["a"]), {}),
    (TypeError, "softmax_vjp: out must be a NumPy array", luce.softmax_vjp, ([1.0], [1.0]), {"out": [1.0]}),
    (ValueError, "softmax_vjp: out is read-only", luce.softmax_vjp, ([1.0, 0], [1.0, 0]), {"out": READ_ONLY}),
    (ValueError, "softmax_vjp: out must have shape", luce.softmax_vjp, ([1.0], [1.0]), {"out": np.zeros(2)}),
    (ValueError, "gumbel_softmax: tau must be positive.*argmax", luce.gumbel_softmax, ([1.0],), {"tau": 0}),
    (ValueError, "gumbel_softmax: axis must lie", luce.gumbel_softmax, ([1.0],), {"axis": 3}),
    (TypeError, "gumbel_softmax: rng must be a seed", luce.gumbel_softmax, ([1.0],), {"rng": "x"}),
    (ValueError, "gumbel_softmax: rng must be a seed", luce.gumbel_softmax, ([1.0],), {"rng": -1}),
    (ValueError, "boltzmann: temperature must be positive", luce.boltzmann, ([1.0],), {"temperature": -1}),
    (TypeError, "boltzmann: needs real numbers", luce.boltzmann, ([None],), {}),
    (ValueError, "boltzmann_sample: temperature must be", luce.boltzmann_sample, ([1.0],), {"temperature": INF}),
    (TypeError, "boltzmann_sample: rng must be a seed", luce.boltzmann_sample, ([1.0],), {"rng": 0.5}),
    (ValueError, "boltzmann_mean: temperature must be", luce.boltzmann_mean, ([1.0],), {"temperature": 0}),
    (ValueError, "mellowmax: omega must be positive.*use the mean", luce.mellowmax, ([1.0],), {"omega": 0.0}),
    (TypeError, "mellowmax: omega must be a number", luce.mellowmax, ([1.0],), {"omega": None}),
    (TypeError, "pseudo_softmax: with scale the logits must be int8", luce.pseudo_softmax, ([1.0],), {"scale": 1.0}),
    (ValueError, "pseudo_softmax: scale must be a power of two", luce.pseudo_softmax, (EIGHT,), {"scale": 0.3}),
    (ValueError, "pseudo_softmax: scale must be a power of two", luce.pseudo_softmax, (EIGHT,), {"scale": 2.0}),
    (TypeError, "pseudo_softmax: dtype must be float16", luce.pseudo_softmax, (EIGHT,), {"scale": 1.0, "dtype": int}),
    (ValueError, "pseudo_softmax: out must have", luce.pseudo_softmax, (EIGHT,), {"scale": 1.0, "out": READ_ONLY}),
    (ValueError, "pseudo_softmax: axis must lie", luce.pseudo_softmax, ([1.0],), {"axis": 1}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message", "function", "arguments", "options"),
    WRONG_CALLS,
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_a_wrong_argument_is_named(
    error: type[Exception],
    message: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        function(*arguments, **options)


def test_logsumexp_of_a_read_only_array_needs_no_array_of_its_size() -> None:
    x = np.zeros((4, 100_000))
    x.flags.writeable = False
    tracemalloc.start()
    luce.logsumexp(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 100
