"""Each metric against a plain-Python version written from its definition."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce import metrics
from luce.links import Sparsemax, softmax, sparsemax


def plain_ece(p: NDArray[np.float64], y: NDArray[np.int64], n_bins: int) -> float:
    members: list[list[tuple[float, bool]]] = [[] for _ in range(n_bins)]
    for row, target in zip(p.tolist(), y.tolist(), strict=True):
        confidence = max(row)
        number = n_bins - 1
        for b in range(n_bins - 1):
            if confidence < (b + 1) / n_bins:
                number = b
                break
        members[number].append((confidence, row.index(confidence) == target))
    total = 0.0
    for inside in members:
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(p) * abs(accuracy - confidence)
    return total


def plain_brier(p: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    rows = zip(p.tolist(), y.tolist(), strict=True)
    return sum(sum((v - (k == t)) ** 2 for k, v in enumerate(row)) for row, t in rows) / len(p)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, k = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    logits = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 10.0])), (n, k))
    return logits, rng.integers(0, k, n)


@given(cases())
def test_metrics_equal_their_definitions(case: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    logits, y = case
    p = softmax(logits)
    n = len(y)
    assert metrics.ece(p, y) == pytest.approx(plain_ece(p, y, 15), abs=1e-12)
    assert metrics.ece(p, y, n_bins=4) == pytest.approx(plain_ece(p, y, 4), abs=1e-12)
    assert metrics.brier(p, y) == pytest.approx(plain_brier(p, y), abs=1e-12)
    assert metrics.nll(p, y) == pytest.approx(-sum(math.log(p[i, y[i]]) for i in range(n)) / n, rel=1e-12)
    assert metrics.accuracy(p, y).value == pytest.approx(sum(p[i].argmax() == y[i] for i in range(n)) / n)
    bins = metrics.reliability(p, y)
    assert sum(b.count for b in bins) == n
    gap = sum(b.count * abs(b.accuracy - b.confidence) for b in bins if b.accuracy is not None and b.confidence)
    assert gap / n == pytest.approx(metrics.ece(p, y), abs=1e-12)


def test_confidence_one_is_counted() -> None:
    # torchmetrics issue 3510: the last bin is closed, so 0.95 and 1.0 share a bin: |0.5 - 0.975|
    p = np.array([[0.95, 0.05], [1.0, 0.0]])
    assert metrics.ece(p, np.array([0, 1]), n_bins=10) == pytest.approx(0.475)


def test_a_confidence_on_an_edge_belongs_to_the_bin_above() -> None:
    bins = metrics.reliability(np.array([[0.5, 0.5]]), np.array([0]), n_bins=2)
    assert [b.count for b in bins] == [0, 1]


def test_brier_goes_up_to_two() -> None:
    assert metrics.brier(np.array([[1.0, 0.0]]), np.array([1])) == 2.0


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (306, 328), (1, 2), (999, 1000)])
def test_wilson_solves_the_score_equation(successes: int, n: int) -> None:
    low, high = metrics.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    ends = [end for end in (low, high) if 0 < end < 1]
    assert len(ends) == (1 if successes in (0, n) else 2)
    for p in ends:
        assert (p - successes / n) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n)


def test_measure_agrees_with_the_single_metrics() -> None:
    rng = np.random.default_rng(3)
    z, y = rng.normal(0, 3, (200, 4)), rng.integers(0, 4, 200)
    m = metrics.measure(z, y, temperature=1.7)
    p = softmax(z / 1.7)
    assert m.ece.value == pytest.approx(metrics.ece(p, y))
    assert m.nll.value == pytest.approx(metrics.nll(p, y))
    assert m.brier.value == pytest.approx(metrics.brier(p, y))
    assert m.ece_uncalibrated.value == pytest.approx(metrics.ece(softmax(z), y))
    assert m.nll_uncalibrated.value == pytest.approx(metrics.nll(softmax(z), y))
    assert m.confusion.sum() == 200
    assert m.confusion.trace() / 200 == m.accuracy.value
    assert m.confusion[1, 2] == np.sum((y == 1) & (z.argmax(axis=1) == 2))


def test_bootstrap_intervals_have_the_width_of_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (400, 1))
    means = metrics.bootstrap_means(values, seed=1)
    assert means[0, 0] == pytest.approx(values.mean())
    assert len(means) == 1001
    assert means[1:].std() == pytest.approx(values.std() / 20, rel=0.1)
    assert np.array_equal(means, metrics.bootstrap_means(values, seed=1))
    assert not np.array_equal(means, metrics.bootstrap_means(values, seed=2))


def test_an_impossible_target_has_infinite_nll() -> None:
    assert metrics.nll(np.array([[1.0, 0.0]]), np.array([1])) == math.inf


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([[0.5, 0.5]], [2], r"\[0, 2\); got 2 at row 0"),
        ([[0.5, 0.5]], [-1], "got -1 at row 0"),
        ([[0.5, 0.5]], [0.0], "integer class ids"),
        ([[0.5, 0.5]], [0, 1], "must be 1 integer"),
        ([0.5, 0.5], [0], "shape"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
    ],
)
def test_wrong_arguments_are_named(p: object, y: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.ece(p, y)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_intervals_hold_their_value_and_have_the_spread_of_resamples(temperature: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 4)) * 2
    y = np.array([rng.choice(4, p=p) for p in softmax(z)])
    m = metrics.measure(z, y, temperature=temperature)
    for estimate in (m.accuracy, m.nll, m.brier, m.ece, m.nll_uncalibrated, m.ece_uncalibrated):
        assert 0 <= estimate.low <= estimate.value <= estimate.high
    p = softmax(z, temperature=temperature)
    again = [rng.integers(0, 300, 300) for _ in range(1000)]
    for name in ("nll", "brier", "ece"):
        spread = np.std([getattr(metrics, name)(p[rows], y[rows]) for rows in again])
        estimate = getattr(m, name)
        if estimate.low > 0:
            assert (estimate.high - estimate.low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.15)


def test_the_interval_of_a_small_calibration_error_holds_it() -> None:
    """Here 97.5 % of the resamples have a larger error than the rows themselves: resampling adds its own."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(400, 3)) * 2
    y = np.array([rng.choice(3, p=p) for p in softmax(z)])
    p = softmax(z)
    resampled = [metrics.ece(p[rows], y[rows]) for rows in rng.integers(0, 400, (1000, 400))]
    ece = metrics.measure(z, y).ece
    assert np.percentile(resampled, 2.5) > ece.value
    assert ece.low < ece.value < ece.high


def test_a_probability_of_0_for_a_target_makes_the_likelihood_infinite_and_nothing_else() -> None:
    z = np.array([[3.0, 0.0, 0.0], [0.2, 0.0, -3.0], [0.0, 2.0, 0.0], [0.1, 0.0, 0.2]])
    right, wrong = [0, 1, 1, 0], [0, 2, 2, 0]
    m = metrics.measure(z, right, link=Sparsemax())
    assert m.n_zero == 0
    assert m.nll.value == pytest.approx(-np.mean(np.log([1.0, 0.4, 1.0, 1 / 3])))
    m = metrics.measure(z, wrong, link=Sparsemax())
    assert m.n_zero == 2
    assert m.nll.value == m.nll.low == m.nll.high == np.inf
    p = sparsemax(z)
    assert m.brier.value == pytest.approx(metrics.brier(p, wrong))
    assert m.ece.value == pytest.approx(metrics.ece(p, wrong))
    assert np.isfinite([m.brier.low, m.brier.high, m.ece.low, m.ece.high]).all()
    figures = m.to_dict()
    assert (figures["nll"], figures["nll_low"], figures["nll_high"], figures["n_zero"]) == (None, None, None, 2)
    json.dumps(figures, allow_nan=False)
    warm = metrics.measure(z, wrong, link=Sparsemax(), temperature=10.0)
    assert warm.n_zero == 0
    assert np.isfinite(warm.nll.value)
    assert warm.nll_uncalibrated.value == np.inf
