"""The solver: what it proves is true, also on hard data and where it stops early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from luce.links import Entmax, Link, PseudoSoftmax, Sigmoid, SoftMargin, Softmax, Sparsemax, Spherical, Taylor
from luce.regression import Penalty, Rows, Solution, mean_and_deviation, preconditioner, row_loss, solve
from luce.regression.lbfgs import Point
from luce.regression.preconditioner import spectrum
from luce.regression.solver import Problem, _Search
from tests import plain_regression as plain

Float64 = NDArray[np.float64]
CONVEX: tuple[Link, ...] = (
    Softmax(),
    Softmax(0.4),
    SoftMargin(0.5),
    SoftMargin(2.0),
    Sparsemax(),
    Sparsemax(3.0),
    Entmax(),
    Entmax(alpha=1.2, temperature=0.5),
    Sigmoid(),
    Sigmoid(0.5),
    PseudoSoftmax(),
)


def data(link: Link, *, soft: bool = False, seed: int = 0, n: int = 60) -> tuple[Float64, NDArray[Any]]:
    """Rows of three classes and what a link may learn from."""
    x, y = plain.blobs(n, 3, 3, seed)
    if soft:
        return x, np.random.default_rng(seed).dirichlet(np.full(3, 0.5), n)
    return x, np.eye(3)[y] if isinstance(link, Sigmoid) else y


def penalty_of(strength: float, problems: int = 1, scale: Float64 | None = None) -> Penalty:
    return Penalty(np.full(problems, strength), np.ones(3) if scale is None else scale)


def least(rows: Rows, penalty: Penalty, near: Solution, b: int = 0) -> float:
    """The minimum of the plain objective of problem b, by SciPy, from near it."""
    one = replace(rows, weight=rows.weight[:, b : b + 1])
    k, d = near.weights.shape[1:]
    strength = float(penalty.strength[b])

    def value_and_grad(v: Float64) -> tuple[float, Float64]:
        weights, bias = v[: k * d].reshape(1, k, d), v[k * d :].reshape(1, k) * rows.intercept
        loss, grad, grad_bias = plain.mean_loss(one, weights, bias)
        value = loss[0] + strength / 2 * np.sum((weights * penalty.scale) ** 2)
        slope = grad + strength * weights * penalty.scale**2
        return float(value), np.concatenate([slope.ravel(), grad_bias.ravel() * rows.intercept])

    start = np.concatenate([near.weights[b].ravel(), near.bias[b]])
    found = min(
        (minimize(value_and_grad, at, jac=True, method="BFGS", options={"gtol": 1e-9}) for at in (start, 0 * start)),
        key=lambda result: float(result.fun),
    )
    return float(found.fun)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("link", CONVEX, ids=repr)
def test_the_gap_is_at_least_the_distance_from_the_minimum_and_closes(link: Link, intercept: bool, soft: bool) -> None:
    x, target = data(link, soft=soft)
    weight = np.random.default_rng(1).random((60, 1))
    rows, deviation = plain.rows_of(x, target, weight, loss=row_loss(link), intercept=intercept, n_classes=3)
    penalty = penalty_of(0.02)
    rough = [solve(rows, penalty, deviation, tol=tol) for tol in (1e-2, 1e-4, 1e-6, 1e-9)]
    minimum = least(rows, penalty, rough[-1])
    for solution, tol in zip(rough, (1e-2, 1e-4, 1e-6, 1e-9), strict=True):
        value = plain.objective(rows, penalty, solution.weights, solution.bias)[0]
        assert solution.value[0] == pytest.approx(value, rel=1e-13)
        assert solution.gap[0] >= value - minimum - 1e-14
        assert solution.gap[0] <= tol * solution.value[0]
        assert solution.converged.all()


@pytest.mark.parametrize("problems", [1, 3])
@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-5])
@pytest.mark.parametrize("link", CONVEX, ids=repr)
def test_the_bound_holds_wherever_it_is_taken(link: Link, strength: float, problems: int) -> None:
    for soft in (False, True):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            x, target = data(link, soft=soft, seed=seed)
            weight = rng.random((60, problems)) ** 3
            rows, deviation = plain.rows_of(x, target, weight, loss=row_loss(link), n_classes=3)
            penalty = penalty_of(strength, problems)
            problem = Problem(rows, penalty)
            _, zero_grad = problem(np.zeros((problems, 12)), np.float64)
            best = solve(rows, penalty, deviation, tol=1e-9, max_iter=300)
            for size in (1e-12, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
                step = rng.normal(size=(problems, 12)) * size
                for part in (slice(0, 9), slice(9, 12), slice(0, 12)):
                    at = problem.pack(best.weights, best.bias)
                    at[:, part] += step[:, part]
                    value, grad = problem(at, np.float64)
                    gap = problem.gap(at, value, grad, zero_grad)
                    assert (gap >= value - best.value - 1e-13 * value).all(), (soft, seed, size, part)


def test_a_wrong_solution_gets_a_large_bound() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    penalty = penalty_of(0.01)
    start = solve(rows, penalty, deviation, max_iter=0)
    best = solve(rows, penalty, deviation, tol=1e-12)
    assert start.gap[0] >= float(start.value[0] - best.value[0]) > 0.1
    assert not start.converged[0]
    problem = Problem(rows, penalty)
    _, zero_grad = problem(np.zeros((1, 12)), np.float64)
    for wrong in (-best.weights, best.weights * 1.1, best.weights[:, ::-1]):
        at = problem.pack(wrong, best.bias)
        value, grad = problem(at, np.float64)
        assert problem.gap(at, value, grad, zero_grad)[0] >= value[0] - best.value[0] > 1e-4


def test_a_bound_that_is_blind_to_the_gradient_would_be_found_out() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    penalty = penalty_of(0.01)
    best = solve(rows, penalty, deviation, tol=1e-12)
    problem = Problem(rows, penalty)
    _, zero_grad = problem(np.zeros((1, 12)), np.float64)
    at = problem.pack(best.weights * 1.5, best.bias)
    value, grad = problem(at, np.float64)
    true = value[0] - best.value[0]
    assert problem.gap(at, value, grad, zero_grad)[0] >= true > 1e-3
    assert problem.gap(at, value, 0 * grad, zero_grad)[0] < true


@pytest.mark.parametrize(
    ("of_weights", "of_bias", "decrease", "done"),
    [(0.0, 0.0, 1.0, True), (0.1, 0.0, 1.0, False), (0.0, 1.0, 1.0, False), (0.1, 0.0, 0.0, True)],
)
def test_a_search_is_done_where_the_gap_is_small_or_no_decrease_is_left(
    of_weights: float, of_bias: float, decrease: float, done: bool
) -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    problem = Problem(rows, penalty_of(0.01))
    features = spectrum(rows, np.ones(3), deviation)
    search = _Search(problem, features, np.array([True]), True, 0.01, 10, None)
    zero = search.begin(np.zeros((1, 12)), None, None, np.float64)
    grad = np.zeros((1, 12))
    grad[0, 0], grad[0, 9:] = of_weights, np.array([1, 0, -1]) * of_bias
    assert search.stop(Point(zero.x, zero.value, grad, decrease=[decrease])) == [done]


def test_nothing_is_proven_without_a_penalty_or_for_a_loss_that_is_not_convex() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    free = solve(rows, penalty_of(0.0), deviation)
    assert np.isinf(free.gap).all()
    assert free.converged.all()
    _, grad, grad_bias = plain.mean_loss(rows, free.weights, free.bias)
    assert np.abs(grad).max() < 1e-3
    assert np.abs(grad_bias).max() < 1e-3
    for link in (Taylor(), Spherical()):
        rows, deviation = plain.rows_of(x, y, loss=row_loss(link))
        found = solve(rows, penalty_of(0.01), deviation)
        assert np.isinf(found.gap).all()
        _, grad, grad_bias = plain.mean_loss(rows, found.weights, found.bias)
        assert np.abs(grad + 0.01 * found.weights).max() < 1e-2
        assert np.abs(grad_bias).max() < 1e-2


@pytest.mark.parametrize("link", CONVEX, ids=repr)
def test_without_an_intercept_the_biases_stay_at_zero(link: Link) -> None:
    x, target = data(link)
    rows, deviation = plain.rows_of(x + 1, target, loss=row_loss(link), intercept=False, n_classes=3)
    found = solve(rows, penalty_of(0.01), deviation)
    assert (found.bias == 0).all()
    assert found.converged.all()
    assert found.n_iter < 50


@pytest.mark.parametrize("offset", [0.0, 5.0, 50.0, 1e3])
def test_features_far_from_zero_take_no_more_passes_for_want_of_an_intercept(offset: float) -> None:
    x, y = plain.blobs(3000, 40, 5)
    near, _ = plain.rows_of((x + offset).astype(np.float32), y, intercept=False)
    _, deviation = plain.rows_of(x, y)
    found = solve(near, penalty_of(1e-3, scale=np.ones(40)), deviation, tol=1e-6)
    exact = solve(replace(near, features=x + offset), penalty_of(1e-3, scale=np.ones(40)), deviation, tol=1e-6)
    assert found.converged.all()
    assert found.n_passes <= 1.3 * exact.n_passes


def test_problems_solved_together_equal_problems_solved_alone() -> None:
    x, y = plain.blobs(200, 5, 3)
    weight = np.random.default_rng(1).random((200, 4))
    rows, deviation = plain.rows_of(x, y, weight)
    strengths = np.array([1e-3, 1e-2, 0.1, 1.0])
    together = solve(rows, Penalty(strengths, deviation), deviation, tol=1e-12)
    for b in range(4):
        one = Rows(x, y, rows.weight[:, b : b + 1].copy(), rows.center, 3)
        alone = solve(one, Penalty(strengths[b : b + 1], deviation), deviation, tol=1e-12)
        np.testing.assert_allclose(together.weights[b], alone.weights[0], atol=1e-5)
        assert together.value[b] == pytest.approx(alone.value[0], rel=1e-11)


def test_a_start_is_taken_where_it_is_better_than_nothing() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    penalty = penalty_of(0.01)
    cold = solve(rows, penalty, deviation)
    warm = solve(rows, penalty, deviation, start=cold.start)
    assert warm.n_iter <= 1 < cold.n_iter
    tight = solve(rows, penalty, deviation, tol=1e-10)
    assert solve(rows, penalty, deviation, start=tight.start, tol=1e-3).n_iter == 0
    shifted = (cold.weights + np.arange(3.0), cold.bias + 7)  # the same probabilities
    assert solve(rows, penalty, deviation, start=shifted).n_iter <= 1
    bad = solve(rows, penalty, deviation, start=(cold.weights * -100, cold.bias), max_iter=0)
    assert (bad.weights == 0).all()


def test_a_proof_can_be_left_out() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    proven = solve(rows, penalty_of(0.01), deviation, tol=1e-6)
    quick = solve(rows, penalty_of(0.01), deviation, tol=1e-6, prove=False)
    assert np.isinf(quick.gap).all()
    assert quick.converged.all()
    assert quick.n_passes <= proven.n_passes
    assert quick.value[0] - proven.value[0] <= 1e-5 * proven.value[0]


def test_a_solve_goes_on_from_that_of_another_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditioner, "_GREATEST", 1)  # the metric knows little of how features move together
    x, y = plain.blobs(300, 200, 4)
    weight = np.random.default_rng(2).random((300, 3))
    rows, deviation = plain.rows_of(x, y, weight)
    last: Solution | None = None
    carried, fresh = list[int](), list[int]()
    for strength in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.3):  # and back
        penalty = Penalty(np.full(3, strength), deviation)
        start, trace = (last.start, last.trace) if last else (None, None)
        alone = solve(rows, penalty, deviation, start=start, tol=5e-5, prove=False)
        last = solve(rows, penalty, deviation, start=start, after=trace, tol=5e-5, prove=False)
        carried.append(last.n_passes)
        fresh.append(alone.n_passes)
        best = solve(rows, penalty, deviation, tol=1e-9)
        assert (last.value - best.value <= 2e-4 * np.log(4)).all()
        exact = solve(rows, penalty, deviation, start=start, after=last.trace, tol=1e-12, prove=False)
        np.testing.assert_allclose(exact.value, best.value, rtol=1e-8)
    assert sum(carried[1:-1]) < 0.75 * sum(fresh[1:-1])
    assert carried[-1] == fresh[-1] - 1  # a stronger penalty begins anew, but for zero


@pytest.mark.parametrize("column", range(3))
@pytest.mark.parametrize("strength", [0.03, 0.01, 0.003, 1e-4])
def test_a_first_step_into_certainty_is_taken_back(strength: float, column: int) -> None:
    x, y = plain.blobs(300, 200, 4)  # the first step leaves rows certain of wrong classes: no curvature to go by
    weight = np.random.default_rng(2).random((300, 3))[:, column : column + 1]
    rows, deviation = plain.rows_of(x, y, weight.copy())
    found = solve(rows, Penalty(np.array([strength]), deviation), deviation)
    assert found.converged.all()
    assert found.n_passes < 120


def test_without_a_proof_the_tolerance_is_of_the_loss_at_zero() -> None:
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x + 100 * np.eye(3)[y], y)  # separable: next to nothing is left of the loss
    best = solve(rows, penalty_of(1e-9), deviation, tol=1e-9)
    rough = solve(rows, penalty_of(1e-9), deviation, tol=1e-4, prove=False)
    assert best.value[0] < 1e-5
    assert best.value[0] * 1.1 < rough.value[0] < 1e-3
    assert rough.n_passes < best.n_passes


def test_weights_and_biases_sum_to_zero_over_the_classes() -> None:
    x, y = plain.blobs(300, 3, 3)
    for link in CONVEX:
        if not row_loss(link).shifts:
            continue
        rows, deviation = plain.rows_of(x, y, loss=row_loss(link))
        found = solve(rows, penalty_of(0.01), deviation)
        np.testing.assert_allclose(found.weights.sum(axis=1), 0, atol=1e-14)
        np.testing.assert_allclose(found.bias.sum(axis=1), 0, atol=1e-14)


def hard(name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x, y = plain.blobs(100, 4, 3)
    rng = np.random.default_rng(0)
    twisted: dict[str, Any] = {
        "separable": lambda: x + 100 * np.eye(4)[y],
        "constant columns": lambda: np.hstack([x, np.full((100, 1), 3.0), np.zeros((100, 1))]),
        "columns twice": lambda: np.hstack([x, x]),
        "a large offset": lambda: x + 1e5,
        "units": lambda: x * np.array([1e-6, 1e-2, 1e2, 1e6]),
        "one column": lambda: x[:, :1],
        "more columns than rows": lambda: np.hstack([x, rng.normal(size=(100, 200))]),
        "float32": lambda: x.astype(np.float32),
        "float32 and a large offset": lambda: (x + 1e4).astype(np.float32),
    }
    return np.ascontiguousarray(twisted[name]()), y


HARD = (
    "separable",
    "constant columns",
    "columns twice",
    "a large offset",
    "units",
    "one column",
    "more columns than rows",
    "float32",
    "float32 and a large offset",
)


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("name", HARD)
def test_hard_data_is_solved_on_standardised_features(name: str, strength: float) -> None:
    x, y = hard(name)
    rows, deviation = plain.rows_of(x, y)
    scale = np.where(deviation > 0, deviation, 1.0)
    found = solve(rows, Penalty(np.array([strength]), scale), deviation, tol=1e-8)
    assert found.converged.all()
    assert found.n_iter < 200
    # the same on features that are standardised, in float64
    x64 = x.astype(np.float64)
    plain_rows, ones = plain.rows_of((x64 - rows.center) / scale, y)
    expected = solve(plain_rows, Penalty(np.array([strength]), np.ones(len(scale))), ones, tol=1e-12)
    z = [
        (r.features.astype(np.float64) - r.center) @ s.weights[0].T + s.bias[0]
        for r, s in ((rows, found), (plain_rows, expected))
    ]
    mine, reference = (Softmax().probabilities(v) for v in z)
    np.testing.assert_allclose(mine, reference, atol=2e-4)


@given(
    st.integers(0, 10_000),
    st.sampled_from([2, 3, 5]),
    st.floats(-5, 1),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_units_do_not_matter_to_a_standardised_penalty(
    seed: int, k: int, exponent: float, units: list[float], intercept: bool
) -> None:
    x, y = plain.blobs(80, 3, k, seed)
    unit = 10.0 ** np.array(units)
    values = []
    for data_ in (x, x * unit):
        rows, deviation = plain.rows_of(data_, y, intercept=intercept)
        found = solve(rows, Penalty(np.array([10.0**exponent]), deviation), deviation, tol=1e-9)
        assert found.converged.all()
        values.append(found.value[0])
    assert values[1] == pytest.approx(values[0], rel=2e-9)


def test_the_spectrum_is_left_out_where_it_is_not_worth_its_time() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 40))  # 3 rows: D² beyond what they are worth
    rows, _ = plain.rows_of(x, np.array([0, 1, 0]))
    _, deviation = mean_and_deviation(x, np.full(3, 1 / 3))
    found = solve(rows, penalty_of(0.1, scale=np.ones(40)), deviation)
    assert found.converged.all()


def test_progress_is_told_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr("luce.regression.solver.time.monotonic", lambda: float(next(clock)))
    told: list[tuple[int, float, float]] = []
    x, y = plain.blobs(300, 3, 3)
    rows, deviation = plain.rows_of(x, y)
    solve(rows, penalty_of(0.01), deviation, progress=lambda *line: told.append(line))
    assert [n for n, _, _ in told] == sorted({n for n, _, _ in told})
    assert told[0][1] > told[-1][1] > 0
