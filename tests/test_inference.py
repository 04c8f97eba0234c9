"""Standard errors, z, p and odds ratios: statsmodels' on real data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning

from luce import SoftmaxRegression
from luce.links import Entmax, Softmax
from luce.regression.fisher import information, unpenalised_gap
from tests.plain_regression import blobs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what statsmodels does at import is not ours
    import statsmodels.api as sm

Float64 = NDArray[np.float64]
COLUMNS = ["logpopul", "selfLR", "age", "educ", "income"]


def anes() -> tuple[Any, NDArray[np.int64]]:
    """The American National Election Study of 1996: 944 people, seven party identifications."""
    frame = sm.datasets.anes96.load_pandas().data
    return frame[COLUMNS], frame["PID"].to_numpy().astype(np.int64)


@pytest.fixture(scope="module")
def peer() -> Any:
    x, y = anes()
    return sm.MNLogit(y, sm.add_constant(x.to_numpy())).fit(method="newton", disp=False, tol=1e-14)


@pytest.fixture(scope="module")
def model() -> SoftmaxRegression:
    x, y = anes()
    return SoftmaxRegression(C=np.inf, tol=1e-12).fit(x, y)


def ours_first(values: Any) -> Float64:
    """From the peer's (1 + D, K - 1), the constant first, as (K - 1, D + 1), the intercept last."""
    return np.roll(np.asarray(values).T, -1, axis=1)


def test_estimates_and_errors_are_those_of_statsmodels(model: SoftmaxRegression, peer: Any) -> None:
    x, _ = anes()
    found = model.inference(x)
    assert found.reference == 0
    assert found.classes == (1, 2, 3, 4, 5, 6)
    assert found.features == (*COLUMNS, "intercept")
    # the gap, in nats of all 944 people, is half the squared distance in standard errors
    reach = 1.1 * np.sqrt(2 * 944 * model.certificate_.gap) + 1e-6
    assert reach < 1e-4
    error = ours_first(peer.bse)
    assert (np.abs(found.estimate - ours_first(peer.params)) <= reach * error).all()
    np.testing.assert_allclose(found.standard_error, error, rtol=2e-5)
    np.testing.assert_allclose(found.z, ours_first(peer.tvalues), rtol=2e-5, atol=reach)
    np.testing.assert_allclose(found.p_value, ours_first(peer.pvalues), atol=reach)
    np.testing.assert_allclose(found.odds_ratio, np.exp(ours_first(peer.params)), rtol=1e-4)
    order = np.arange(36).reshape(6, 6)[:, [1, 2, 3, 4, 5, 0]].ravel()  # statsmodels': class by class, constant first
    np.testing.assert_allclose(found.covariance, np.asarray(peer.cov_params())[np.ix_(order, order)], atol=1e-6)
    assert model.certificate_.objective == pytest.approx(-peer.llf / 944, rel=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_intervals_are_those_of_statsmodels(model: SoftmaxRegression, peer: Any, level: float) -> None:
    x, _ = anes()
    low, high = model.inference(x, level=level).interval
    expected = np.asarray(peer.conf_int(alpha=1 - level))  # (K - 1, 1 + D, 2)
    np.testing.assert_allclose(low, np.exp(np.roll(expected[..., 0], -1, axis=1)), rtol=1e-4)
    np.testing.assert_allclose(high, np.exp(np.roll(expected[..., 1], -1, axis=1)), rtol=1e-4)


def test_the_reference_is_a_choice_that_changes_no_contrast(model: SoftmaxRegression) -> None:
    x, _ = anes()
    first, third = model.inference(x), model.inference(x, relative_to=3)
    assert third.reference == 3
    assert third.classes == (0, 1, 2, 4, 5, 6)
    np.testing.assert_allclose(third.estimate[0], -first.estimate[2], atol=1e-10)
    np.testing.assert_allclose(third.standard_error[0], first.standard_error[2], rtol=1e-8)
    np.testing.assert_allclose(third.estimate[1], first.estimate[0] - first.estimate[2], atol=1e-10)
    own = first.covariance.reshape(6, 6, 6, 6)
    variance = np.diag(own[0, :, 0] + own[2, :, 2] - own[0, :, 2] - own[2, :, 0])
    np.testing.assert_allclose(third.standard_error[1] ** 2, variance, rtol=1e-8)
    np.testing.assert_array_equal(model.inference(x, relative_to=0).estimate, first.estimate)
    with pytest.raises(ValueError, match="no class 9; the classes are 0, 1, 2, 3, 4, 5, 6"):
        model.inference(x, relative_to=9)


def test_weights_are_frequencies() -> None:
    x, y = blobs(200, 2, 3)
    counts = np.random.default_rng(0).integers(1, 4, 200)
    model = SoftmaxRegression(C=np.inf, tol=1e-10).fit(x, y, sample_weight=counts)
    repeated = SoftmaxRegression(C=np.inf, tol=1e-10).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(
        model.inference(x, counts).standard_error,
        repeated.inference(np.repeat(x, counts, axis=0)).standard_error,
        rtol=1e-5,
    )


def test_the_information_is_the_sum_over_the_rows() -> None:
    x, _ = blobs(30, 2, 4)
    rng = np.random.default_rng(0)
    p, weight = rng.dirichlet(np.ones(4), 30), rng.random(30)
    for reference in range(4):
        others = [k for k in range(4) if k != reference]
        expected = np.zeros((9, 9))
        for row, q, w in zip(np.hstack([x, np.ones((30, 1))]), p[:, others], weight, strict=True):
            expected += w * np.kron(np.diag(q) - np.outer(q, q), np.outer(row, row))
        np.testing.assert_allclose(information(x, p, weight, reference), expected, atol=1e-12)


def test_a_penalty_narrows_the_estimates_as_a_simulation_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2))
    p = Softmax().probabilities(x @ np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -0.5]]).T)
    estimates, errors = [], []
    for _ in range(300):
        y = (p.cumsum(axis=1) < rng.random((150, 1))).sum(axis=1)
        found = SoftmaxRegression(C=1.0).fit(x, y).inference(x)
        estimates.append(found.estimate)
        errors.append(found.standard_error)
    # 300 draws tell a deviation to 1 / sqrt(600) of itself: four such, and a tenth for the curvature of the loss
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(estimates, axis=0), rtol=4 / np.sqrt(600) + 0.1)
    y = (p.cumsum(axis=1) < rng.random((150, 1))).sum(axis=1)
    free = SoftmaxRegression(C=np.inf).fit(x, y).inference(x)
    assert (free.standard_error > errors[-1] * 1.02).any()


def test_p_values_are_two_sided_and_do_not_underflow_early(model: SoftmaxRegression) -> None:
    x, _ = anes()
    found = model.inference(x)
    np.testing.assert_allclose(found.p_value, 2 * norm.sf(np.abs(found.z)), rtol=1e-9)


def test_a_singular_information_is_refused_with_what_to_do() -> None:
    x, y = blobs(100, 3, 3)
    twice = np.hstack([x, x[:, :1]])
    with pytest.warns(UserWarning, match="columns repeat each other"):
        model = SoftmaxRegression(C=np.inf).fit(twice, y)
    with pytest.raises(ValueError, match=r"information is singular: .*take it out, or fit with a penalty"):
        model.inference(twice)
    SoftmaxRegression(C=1.0).fit(twice, y).inference(twice)


def test_what_has_no_information_is_refused() -> None:
    x, y = blobs(100, 3, 3)
    for parameters in ({"link": Entmax()}, {"link": Softmax(2.0)}, {"fit_intercept": False}):
        with pytest.raises(ValueError, match="only for the softmax link at temperature 1, with an intercept"):
            SoftmaxRegression(**parameters).fit(x, y).inference(x)
    with pytest.raises(ValueError, match="only for standardize=False and feature_scale=1"):
        SoftmaxRegression(standardize=True).fit(x, y).inference(x)
    wide = np.random.default_rng(0).normal(size=(100, 3001))
    with pytest.raises(ValueError, match=r"6,004 parameters are more than 6,000; take fewer features"):
        SoftmaxRegression(C=1e-3).fit(wide, y).inference(wide)


def test_a_table_of_it_can_be_read(model: SoftmaxRegression) -> None:
    x, _ = anes()
    found = model.inference(x)
    lines = str(found).splitlines()
    assert len(lines) == 2 + 36
    assert lines[0] == "relative to 0"
    assert lines[1].split() == ["estimate", "std.", "err.", "z", "p", "odds", "95", "%", "of", "the", "odds"]
    row = next(line for line in lines if line.startswith("6: selfLR"))
    estimate, error, z = (float(cell) for cell in row.split()[2:5])
    assert estimate == pytest.approx(found.estimate[5, 1], abs=5e-5)
    assert error == pytest.approx(found.standard_error[5, 1], abs=5e-5)
    assert z == pytest.approx(found.z[5, 1], abs=5e-3)
    assert len({len(line.split("…")[0].rstrip()) for line in lines[2:]}) < 12


def test_the_gap_without_a_penalty_bounds_the_distance() -> None:
    x, y = blobs(300, 2, 3)
    best = SoftmaxRegression(C=np.inf, tol=1e-12).fit(x, y)
    weight = np.full(300, 1 / 300)
    ones = np.hstack([x, np.ones((300, 1))])

    def loss_and_gap(coef: Float64, intercept: Float64) -> tuple[float, float]:
        p = Softmax().probabilities(x @ coef.T + intercept)
        residual = (p - np.eye(3)[y]) / 300
        return -float(np.log(p[np.arange(300), y]).mean()), unpenalised_gap(x, p, weight, residual.T @ ones)

    least, _ = loss_and_gap(best.coef_, best.intercept_)
    rng = np.random.default_rng(0)
    proven = 0
    for size in np.logspace(-6, 0, 40):
        value, gap = loss_and_gap(best.coef_ + size * rng.normal(size=(3, 2)), best.intercept_)
        assert gap >= value - least - 1e-15
        if gap < np.inf:
            proven += 1
            assert gap <= 4 * (value - least) + 1e-11  # and is no idle one
    assert 15 < proven < 40
    coef = best.coef_ * 1.02
    value, gap = loss_and_gap(coef, best.intercept_)
    assert 0 < value - least <= gap < np.inf
    p = Softmax().probabilities(x @ coef.T + best.intercept_)
    assert unpenalised_gap(x, p, weight, np.zeros((3, 3))) < value - least  # blind to the gradient: found out


def test_a_penalty_shrinks_the_errors() -> None:
    x, y = blobs(200, 3, 3)
    free = SoftmaxRegression(C=np.inf).fit(x, y).inference(x)
    held = SoftmaxRegression(C=0.05).fit(x, y).inference(x)
    assert (held.standard_error[:, :3] < free.standard_error[:, :3]).all()


def test_the_bound_without_a_penalty_holds() -> None:
    x, y = blobs(300, 4, 3)
    best = SoftmaxRegression(C=np.inf, tol=1e-12).fit(x, y).certificate_.objective
    for steps in (3, 5, 8):
        with pytest.warns(ConvergenceWarning, match="max_iter"):
            rough = SoftmaxRegression(C=np.inf, tol=1e-13, max_iter=steps).fit(x, y).certificate_
        assert rough.objective - best <= rough.gap
    assert rough.gap < 1e-2


def test_separable_classes_are_said_without_a_penalty() -> None:
    x, y = blobs(60, 2, 2)
    x = x + 50 * y[:, None]
    with pytest.warns(ConvergenceWarning, match="may be separable"):
        model = SoftmaxRegression(C=np.inf).fit(x, y)
    with pytest.raises(ValueError, match="singular"):
        model.inference(x)
