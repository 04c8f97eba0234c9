"""Softmax regression: the optimum, proven by certificate, then compared with a peer."""

from __future__ import annotations

import pickle
import warnings
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import estimator_checks_generator

from luce import SoftmaxRegression
from luce.links import log_softmax, softmax
from luce.regression import Penalty, Rows, choose_strength, gap_bound, mean_and_deviation, solve
from luce.regression.lbfgs import minimize
from luce.regression.objective import loss_and_grad

Float64 = NDArray[np.float64]


def blobs(n: int, d: int, k: int, seed: int = 0) -> tuple[Float64, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    return rng.normal(size=(k, d))[y] + rng.normal(size=(n, d)), y


def rows_of(x: NDArray[np.generic], y: NDArray[np.int64], weight: Float64) -> tuple[Rows, Float64]:
    weight = weight / weight.sum(axis=0)
    center, deviation = mean_and_deviation(x, weight.mean(axis=1))
    return Rows(x, y, weight, center, int(y.max()) + 1), deviation


def plain_objective(
    x: Float64, y: NDArray[np.int64], weight: Float64, coef: Float64, intercept: Float64, penalty: Penalty
) -> float:
    """The objective as it is written down, in float64."""
    log_p = log_softmax(x @ coef.T + intercept)[np.arange(len(y)), y]
    return float(-weight @ log_p + penalty.strength / 2 * np.sum((coef * penalty.scale) ** 2))


@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.float32, np.float64]), st.integers(1, 3))
@settings(max_examples=30)
def test_the_gradient_is_that_of_the_loss(seed: int, dtype: type, n_problems: int) -> None:
    rng = np.random.default_rng(seed)
    n, d, k = 40, 4, 3
    x: NDArray[Any] = (rng.random((n, d)) * 20).astype(dtype)
    y = rng.integers(0, k, n)
    y[:k] = np.arange(k)
    rows, _ = rows_of(x, y, rng.random((n, n_problems)))
    weights, bias = rng.normal(size=(n_problems, k, d)) / 5, rng.normal(size=(n_problems, k))
    loss, grad, grad_bias = loss_and_grad(rows, weights, bias)
    x64 = x.astype(np.float64) - rows.center
    for b in range(n_problems):
        z = x64 @ weights[b].T + bias[b]
        residual = softmax(z)
        residual[np.arange(n), y] -= 1
        residual *= rows.weight[:, b, None]
        tolerance = 1e-12 if dtype is np.float64 else 2e-5
        assert loss[b] == pytest.approx(-rows.weight[:, b] @ log_softmax(z)[np.arange(n), y], rel=tolerance)
        np.testing.assert_allclose(grad[b], residual.T @ x64, atol=tolerance * 20)
        np.testing.assert_allclose(grad_bias[b], residual.sum(axis=0), atol=tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_mean_and_deviation_survive_a_large_offset(dtype: type) -> None:
    rng = np.random.default_rng(0)
    offset = 0 if dtype is np.uint8 else 10_000
    x: NDArray[Any] = (rng.random((5000, 3)) * 100 + offset).astype(dtype)
    x[:, 2] = 7
    weight = rng.random(5000)
    weight /= weight.sum()
    mean, deviation = mean_and_deviation(x, weight)
    x64 = x.astype(np.float64)
    expected = weight @ x64
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(weight @ (x64 - expected) ** 2), rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("standardised", [True, False])
def test_the_bound_holds_and_closes(strength: float, standardised: bool) -> None:
    x, y = blobs(300, 6, 4)
    x[:, 0] *= 10
    rows, deviation = rows_of(x, y, np.ones((300, 1)))
    penalty = Penalty(strength, deviation if standardised else np.ones(6))
    best = solve(rows, penalty, deviation, tol=1e-15)
    assert gap_bound(rows, penalty, best) < 1e-7
    bounds = []
    for tol in (1e-2, 1e-4, 1e-6):
        rough = solve(rows, penalty, deviation, tol=tol)
        bounds.append(gap_bound(rows, penalty, rough))
        assert float(rough.value[0] - best.value[0]) <= bounds[-1] + 1e-12
    assert bounds[2] < bounds[0] / 10


def test_a_wrong_solution_gets_a_large_bound() -> None:
    x, y = blobs(300, 6, 4)
    rows, deviation = rows_of(x, y, np.ones((300, 1)))
    penalty = Penalty(0.01, np.ones(6))
    start = solve(rows, penalty, deviation, max_iter=0)
    best = solve(rows, penalty, deviation, tol=1e-14)
    assert gap_bound(rows, penalty, start) >= float(start.value[0] - best.value[0]) > 0.1
    assert gap_bound(rows, Penalty(0.0, np.ones(6)), best) == float("inf")


def test_problems_solved_together_equal_problems_solved_alone() -> None:
    x, y = blobs(200, 5, 3)
    weight = np.random.default_rng(1).random((200, 4))
    rows, deviation = rows_of(x, y, weight)
    penalty = Penalty(0.01, deviation)
    together = solve(rows, penalty, deviation, tol=1e-13)
    for b in range(4):
        one = Rows(x, y, rows.weight[:, b : b + 1], rows.center, 3)
        alone = solve(one, penalty, deviation, tol=1e-13)
        np.testing.assert_allclose(together.weights[b], alone.weights[0], atol=1e-5)
        assert together.value[b] == pytest.approx(alone.value[0], rel=1e-10)


def test_the_result_does_not_depend_on_the_threads_or_the_units() -> None:
    x, y = blobs(2000, 5, 3)
    units = np.array([1e-3, 1, 1e3, 1, 1e6])
    one = SoftmaxRegression(standardize=True, n_threads=1).fit(x, y)
    two = SoftmaxRegression(standardize=True, n_threads=2).fit(x, y)
    assert np.array_equal(one.coef_, two.coef_)
    other = SoftmaxRegression(standardize=True).fit(x * units, y)
    np.testing.assert_allclose(other.coef_ * units, one.coef_, atol=2e-3)
    assert other.n_iter_ <= one.n_iter_ + 3


def test_rosenbrock_like_valleys_converge() -> None:
    scales = np.array([[1.0, 1e2, 1e4], [1.0, 1.0, 1.0]])

    def quadratic(x: Float64) -> tuple[Float64, Float64]:
        return 1 + 0.5 * np.einsum("bp,bp,bp->b", scales, x, x), scales * x

    found = minimize(quadratic, np.ones((2, 3)), tol=1e-14, max_iter=200)
    assert found.converged.all()
    np.testing.assert_allclose(found.x, 0, atol=1e-5)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_optimum_is_scikit_learns(c: float, dtype: type) -> None:
    x, y = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).random(len(y))
    ours = SoftmaxRegression(C=c, tol=1e-9, max_iter=5000).fit(x.astype(dtype), y, sample_weight=weight)
    peer = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9).fit(x, y, sample_weight=weight)
    penalty = Penalty(1 / (c * weight.sum()), np.ones(64))
    w = weight / weight.sum()
    ours_value = plain_objective(x, y, w, ours.coef_, ours.intercept_, penalty)
    peer_value = plain_objective(x, y, w, peer.coef_, peer.intercept_, penalty)
    assert ours_value <= peer_value + (1e-8 if dtype is np.float64 else 1e-6)
    assert ours_value - peer_value <= ours.certificate_.gap + 1e-9
    if dtype is np.float64 and c <= 1:
        np.testing.assert_allclose(ours.predict_proba(x), peer.predict_proba(x), atol=2e-3)


def test_uint8_features_are_used_as_they_are() -> None:
    x, y = load_digits(return_X_y=True)
    a = SoftmaxRegression(tol=1e-9).fit(x.astype(np.uint8), y)
    b = SoftmaxRegression(tol=1e-9).fit(x, y)
    np.testing.assert_allclose(a.predict_proba(x.astype(np.uint8)), b.predict_proba(x), atol=2e-3)


def test_scikit_learns_contract() -> None:
    failed = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # some checks use max_iter=1
        for estimator, check in estimator_checks_generator(SoftmaxRegression()):
            try:
                check(estimator)
            except SkipTest as skip:  # scikit-learn's own: the check needs what is not installed here
                if "pandas" not in str(skip) and "SCIPY_ARRAY_API" not in str(skip):
                    failed.append(f"{check}: skipped: {skip}")
            except Exception as error:  # collected to show all of them at once
                failed.append(f"{check}: {error!r}")
    assert failed == []


def test_class_weights_and_strings() -> None:
    x, y = blobs(300, 3, 3)
    names = np.array(["cat", "dog", "eel"])[y]
    model = SoftmaxRegression(class_weight={"cat": 5.0, "dog": 1.0, "eel": 1.0}).fit(x, names)
    weight = np.where(y == 0, 5.0, 1.0)
    same = SoftmaxRegression().fit(x, names, sample_weight=weight)
    np.testing.assert_allclose(model.coef_, same.coef_, atol=1e-6)
    assert set(model.predict(x)) <= {"cat", "dog", "eel"}
    balanced = SoftmaxRegression(class_weight="balanced").fit(x[:250], names[:250])
    assert balanced.predict_proba(x).sum(axis=1) == pytest.approx(np.ones(300))


def test_not_converged_is_said() -> None:
    x, y = load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="max_iter=3 steps, at most .* above the optimum"):
        SoftmaxRegression(max_iter=3).fit(x, y)


def test_hard_data_converges() -> None:
    x, y = blobs(100, 4, 3)
    separable = x + 100 * np.eye(4)[y][:, :4]
    for data in (separable, np.hstack([x, x]), np.hstack([x, np.ones((100, 2))]), x * 1e6, x + 1e5):
        model = SoftmaxRegression(tol=1e-9, standardize=True).fit(data, y)
        assert np.isfinite(model.coef_).all()
        assert model.certificate_.gap < 1e-3


def test_constant_columns_get_no_weight() -> None:
    x, y = blobs(100, 3, 2)
    model = SoftmaxRegression(standardize=True).fit(np.hstack([x, np.full((100, 1), 3.0)]), y)
    np.testing.assert_allclose(model.coef_[:, 3], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "y", "words"),
    [
        ({"C": 0.0}, [0, 1], "C must be positive, got 0.0"),
        ({"C": -1.0}, [0, 1], "C must be positive"),
        ({}, [1, 1], "at least 2 classes"),
        ({"class_weight": {5: 1.0}}, [0, 1], "classes"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], y: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SoftmaxRegression(**arguments).fit([[0.0], [1.0]], y)  # type: ignore[arg-type]  # the point of the test


def test_pickle_keeps_the_model() -> None:
    x, y = blobs(100, 3, 3)
    model = SoftmaxRegression().fit(x, y)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(x), model.predict_proba(x))


def test_cross_validation_chooses_the_least_out_of_fold_loss() -> None:
    x, y = blobs(240, 20, 3)
    x = x + np.random.default_rng(5).normal(0, 2, x.shape)
    fold = np.arange(240) % 4
    choice = choose_strength(x.astype(np.float32), y, np.ones(240), fold, 3)
    losses = dict(choice.path)
    assert losses[choice.strength] == min(losses.values())
    # the out-of-fold logits are those of models that did not see the row
    for f in range(4):
        held = fold == f
        rows, deviation = rows_of(x[~held], y[~held], np.ones((int((~held).sum()), 1)))
        _, scale = mean_and_deviation(x, np.full(240, 1 / 240))
        alone = solve(rows, Penalty(choice.strength, scale), deviation, tol=1e-10)
        z = (x[held] - rows.center) @ alone.weights[0].T + alone.bias[0]
        assert np.abs(softmax(z) - softmax(choice.logits[held])).max() < 0.05


def test_the_search_goes_to_stronger_penalties_when_weaker_ones_are_worse() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 30)).astype(np.float32), np.arange(120) % 3  # nothing to learn
    choice = choose_strength(x, y, np.ones(120), np.arange(120) // 3 % 5, 3)
    tried = [strength for strength, _ in choice.path]
    assert choice.strength == 1.0
    assert tried == sorted(tried, reverse=True)
    assert 1.0 in tried
    assert len(tried) <= 4


def test_the_search_goes_to_weaker_penalties_while_they_are_better() -> None:
    x, y = blobs(400, 3, 3)
    choice = choose_strength(x.astype(np.float32), y, np.ones(400), np.arange(400) % 4, 3)
    tried = [strength for strength, _ in choice.path]
    assert max(tried) <= 0.11
    assert choice.strength < 0.1
    assert choice.mean[0].shape == (1, 3, 3)
    assert choice.mean[1].shape == (1, 3)


def test_a_row_whose_class_its_model_never_saw_does_not_count() -> None:
    x, y = blobs(200, 3, 3)
    x = x.astype(np.float32)
    y[:] = y % 2
    y[0] = 2  # the only one of its class
    fold = np.arange(200) % 4
    choice = choose_strength(x, y, np.ones(200), fold, 3)
    assert np.flatnonzero(~choice.known).tolist() == [0]
    p = softmax(choice.logits[1:])
    loss = -np.log(p[np.arange(199), y[1:]]).mean()
    assert dict(choice.path)[choice.strength] == pytest.approx(loss, rel=2e-3)


def test_classes_that_never_part_cannot_be_cross_validated() -> None:
    x, y = blobs(30, 3, 3)
    with pytest.raises(ValueError, match="each class lies in one fold"):
        choose_strength(x.astype(np.float32), y, np.ones(30), y.astype(np.int64), 3)
