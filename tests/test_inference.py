"""Standard errors and odds ratios against statsmodels on a real data set; the proof without a penalty."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from luce import SoftmaxRegression
from luce.regression.fisher import information
from tests.plain_regression import blobs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what statsmodels does at import is not ours
    import statsmodels.api as sm

Float64 = NDArray[np.float64]


def election() -> tuple[Float64, NDArray[np.int64]]:
    """American National Election Study 1996: 944 people, party identification in 7 grades."""
    data = sm.datasets.anes96.load_pandas()
    return data.exog.to_numpy(np.float64), data.endog.to_numpy(np.int64)


def test_standard_errors_are_statsmodels() -> None:
    x, y = election()
    peer = sm.MNLogit(y, np.hstack([x, np.ones((len(x), 1))])).fit(method="newton", disp=0, tol=1e-12, maxiter=100)
    model = SoftmaxRegression(C=np.inf, tol=1e-12).fit(x, y)
    assert model.certificate_.relative_gap <= 1e-12  # proven, without a penalty
    found = model.inference(x, relative_to=0)
    assert found.features == ("x0", "x1", "x2", "x3", "x4", "intercept")
    np.testing.assert_allclose(found.estimate, peer.params.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.standard_error, peer.bse.T, rtol=1e-4)
    np.testing.assert_allclose(found.z, peer.tvalues.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.p_value, peer.pvalues.T, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(found.odds_ratio, np.exp(peer.params.T), rtol=1e-3)
    np.testing.assert_allclose(np.log(found.interval[1]), peer.conf_int()[..., 1], rtol=1e-3, atol=1e-4)
    assert -len(y) * model.certificate_.objective == pytest.approx(peer.llf, rel=1e-9)


def test_another_reference_says_the_same() -> None:
    x, y = blobs(300, 3, 3)
    model = SoftmaxRegression(C=np.inf, tol=1e-10).fit(x, y)
    one, two = model.inference(x, relative_to=0), model.inference(x, relative_to=1)
    np.testing.assert_allclose(one.estimate[0], -two.estimate[0], rtol=1e-9)  # 1 against 0 and 0 against 1
    np.testing.assert_allclose(one.standard_error[0], two.standard_error[0], rtol=1e-6)
    assert two.classes == (0, 2)


def test_the_information_is_the_sum_as_it_is_written() -> None:
    x, _ = blobs(30, 2, 3)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    weight = np.random.default_rng(1).random(30)
    found = information(x, p, weight, 1)
    expected = np.zeros((6, 6))
    for row, q, w in zip(x, p[:, [0, 2]], weight, strict=True):
        one = np.append(row, 1.0)
        expected += w * np.kron(np.diag(q) - np.outer(q, q), np.outer(one, one))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


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


def test_a_repeated_column_is_said() -> None:
    x, y = blobs(100, 2, 3)
    x = np.hstack([x, x[:, :1]])
    with pytest.warns(ConvergenceWarning, match="columns repeat"):
        model = SoftmaxRegression(C=np.inf).fit(x, y)
    with pytest.raises(ValueError, match="repeats others"):
        model.inference(x)


def test_what_is_asked_wrongly_is_said() -> None:
    from luce.links import Taylor

    x, y = blobs(60, 2, 3)
    model = SoftmaxRegression().fit(x, y)
    with pytest.raises(ValueError, match="no class 'cat'; the classes are 0, 1, 2"):
        model.inference(x, relative_to="cat")
    with pytest.warns(ConvergenceWarning, match="not convex"):
        other = SoftmaxRegression(link=Taylor()).fit(x, y)
    with pytest.raises(ValueError, match="only for the softmax link"):
        other.inference(x)


def test_it_prints_as_a_table() -> None:
    x, y = blobs(60, 2, 3)
    lines = str(SoftmaxRegression().fit(x, np.array(["ant", "bee", "cow"])[y]).inference(x)).splitlines()
    assert lines[0] == "relative to ant"
    assert lines[1].split()[:3] == ["estimate", "std.", "err."]
    assert [line.split()[0] for line in lines[2:]] == ["bee:"] * 3 + ["cow:"] * 3
    assert len({len(line.split("…")[0].split("  ")) > 5 for line in lines[2:]}) == 1
