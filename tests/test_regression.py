"""SoftmaxRegression: the optimum, proven by certificate, then compared with peers; hard data; the contract."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from luce import SoftmaxRegression
from luce.links import LINKS, Entmax, Sigmoid, SoftMargin, Softmax, Sparsemax, Taylor
from luce.regression import Penalty, RowLoss, Rows, row_loss, solve
from tests import plain_regression as plain
from tests.plain_regression import blobs

Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]
NOT_CONVEX = ("taylor", "sm_taylor", "spherical")


def digits() -> tuple[Float64, Ids]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def mean_objective(model: SoftmaxRegression, x: NDArray[Any], y: NDArray[Any], weight: Float64 | None = None) -> float:
    """What the model says it minimises, in float64: the mean loss plus the penalty."""
    w = np.ones(len(x)) if weight is None else weight
    k, d = model.coef_.shape
    rows = Rows(x, y, (w / w.sum())[:, None], np.zeros(d), k, row_loss(model.link or Softmax()))
    strength = 1 / (model.C * w.sum()) if model.alpha is None else model.alpha
    penalty = Penalty(np.array([strength]), 1 / np.broadcast_to(np.asarray(model.feature_scale, float), (d,)))
    return float(plain.objective(rows, penalty, model.coef_[None], model.intercept_[None])[0])


# The optimum.


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_optimum_is_scikit_learns(c: float, dtype: type) -> None:
    x, y = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).random(len(y))
    ours = SoftmaxRegression(C=c, tol=1e-9, max_iter=5000).fit(x.astype(dtype), y, sample_weight=weight)
    peer = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9).fit(x, y, sample_weight=weight)
    value = mean_objective(ours, x, y, weight)
    ours.coef_, ours.intercept_, mine = peer.coef_, peer.intercept_, (ours.coef_, ours.intercept_)
    peer_value = mean_objective(ours, x, y, weight)
    ours.coef_, ours.intercept_ = mine
    assert value - peer_value <= ours.certificate_.gap + 1e-9
    assert ours.certificate_.gap <= 1e-9 * ours.certificate_.objective
    # within g of the optimum the penalised coefficients are within sqrt(2 g / strength), which moves a row's logits
    # (and so its probabilities) by its length times as much
    reach = np.sqrt(2 * (2e-9 * value) * c * weight.sum()) * np.linalg.norm(x - x.mean(axis=0), axis=1).max()
    np.testing.assert_allclose(ours.predict_proba(x), peer.predict_proba(x), atol=max(1e-5, float(reach)))


@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_probabilities_are_scikit_learns_to_five_digits(c: float) -> None:
    x, y = digits()
    ours = SoftmaxRegression(C=c, tol=1e-10).fit(x, y)
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), peer.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("c", [1.0, 100.0])
def test_a_tight_tolerance_is_proven_where_float64_resolves_it(c: float) -> None:
    x, y = load_digits(return_X_y=True)
    proof = SoftmaxRegression(C=c, tol=1e-9).fit(x, y).certificate_  # to 1e-12 nats
    assert proof.relative_gap <= 1e-9


def test_for_two_classes_scikit_learns_c_is_twice_ours() -> None:
    x, y = blobs(300, 4, 2)
    peer = LogisticRegression(C=2.0, tol=1e-12, max_iter=1000).fit(x, y)
    models = {c: SoftmaxRegression(C=c, tol=1e-12).fit(x, y) for c in (1.0, 2.0, 4.0)}
    apart = {c: np.abs(m.predict_proba(x) - peer.predict_proba(x)).max() for c, m in models.items()}
    assert apart[1.0] < 1e-6
    assert min(apart[2.0], apart[4.0]) > 1e-3
    ours = models[1.0]  # holds w and -w for scikit-learn's 2 w, whose penalty is twice theirs
    np.testing.assert_allclose(ours.coef_[1], peer.coef_[0] / 2, atol=1e-5)
    np.testing.assert_allclose(ours.coef_[0], -ours.coef_[1], atol=1e-14)
    np.testing.assert_allclose(ours.decision_function(x), peer.decision_function(x), atol=1e-5)


@pytest.mark.parametrize("k", [3, 8])
def test_sigmoid_on_labels_is_a_binary_regression_for_each(k: int) -> None:
    x, _ = blobs(300, 4, 3)
    rng = np.random.default_rng(0)
    labels = (x @ rng.normal(size=(4, k)) + rng.normal(size=(300, k)) > 0.5).astype(int)
    ours = SoftmaxRegression(C=2.0, link=Sigmoid(), tol=1e-12).fit(x, labels)
    assert ours.certificate_.relative_gap <= 1e-12
    for j in range(k):
        peer = LogisticRegression(C=2.0, tol=1e-12, max_iter=1000).fit(x, labels[:, j])
        np.testing.assert_allclose(ours.predict_proba(x)[:, j], peer.predict_proba(x)[:, 1], atol=1e-5)
        np.testing.assert_array_equal(ours.predict(x)[:, j], peer.predict(x))
        np.testing.assert_allclose(ours.coef_[j], peer.coef_[0], atol=1e-5)


@given(
    st.integers(0, 10_000),
    st.sampled_from([2, 3, 6]),
    st.floats(-3, 3),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_fit_that_does_not_warn_is_within_its_gap(
    seed: int, k: int, exponent: float, units: list[float], dtype: type, intercept: bool
) -> None:
    x, y = blobs(50, 3, k, seed)
    x = (x * 10.0 ** np.array(units)).astype(dtype)
    weight = np.random.default_rng(seed).random(50) ** 2
    model = SoftmaxRegression(C=10.0**exponent, fit_intercept=intercept)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(x, y, sample_weight=weight)
    proof = model.certificate_
    value = mean_objective(model, x.astype(np.float64), y, weight)
    assert proof.objective == pytest.approx(value, rel=1e-6)
    assert proof.gap <= 1e-6 * proof.objective or [w.category for w in told] == [ConvergenceWarning]
    better = clone(model).set_params(tol=1e-10, max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 1e-10 may be beyond float64 here: any point will do
        better.fit(x.astype(np.float64), y, sample_weight=weight)
    assert value - mean_objective(better, x.astype(np.float64), y, weight) <= proof.gap + 1e-12 * value
    assert (model.intercept_ == 0).all() or intercept


def test_what_is_proven_is_about_the_given_weights_and_targets() -> None:
    x, y = blobs(200, 3, 3)
    weight = np.random.default_rng(0).random(200) ** 4
    model = SoftmaxRegression(tol=1e-11).fit(x, y, sample_weight=weight)
    value = mean_objective(model, x, y, weight)
    assert model.certificate_.objective == pytest.approx(value, rel=1e-12)
    smooth = SoftmaxRegression(tol=1e-11, label_smoothing=0.1).fit(x, y)
    value = mean_objective(smooth, x, 0.9 * np.eye(3)[y] + 0.1 / 3)
    assert smooth.certificate_.objective == pytest.approx(value, rel=1e-12)


# What cannot be proven is said.


def test_not_converged_is_said() -> None:
    x, y = load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=3 steps, at most \S+ above the optimum; raise max_iter"):
        model = SoftmaxRegression(max_iter=3).fit(x, y)
    assert model.n_iter_ == 3
    assert model.certificate_.relative_gap > 1e-6


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_a_loss_that_is_not_convex_says_so(name: str) -> None:
    x, y = blobs(200, 3, 3)
    with pytest.warns(ConvergenceWarning, match="loss is not convex, so it need not be the minimum"):
        model = SoftmaxRegression(link=LINKS[name]()).fit(x, y)
    assert np.isinf(model.certificate_.gap)
    assert model.certificate_.relative_gradient < 1e-2


def test_without_a_penalty_separable_classes_are_said_to_be() -> None:
    x, y = blobs(100, 3, 3)
    with pytest.warns(ConvergenceWarning, match=r"without a penalty .* the classes may be separable"):
        model = SoftmaxRegression(C=np.inf, max_iter=200).fit(x + 50 * np.eye(3)[y], y)
    assert np.isfinite(model.coef_).all()
    assert model.score(x + 50 * np.eye(3)[y], y) == 1


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_a_penalty_ordinary_data_is_proven(k: int, dtype: type) -> None:
    x, y = blobs(400, 3, k)
    x = x.astype(dtype)
    model = SoftmaxRegression(C=np.inf).fit(x, y)
    proof = model.certificate_
    assert 0 <= proof.gap <= 1e-6 * proof.objective
    rough = []
    for tol in (1e-2, 1e-3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it may stop between two proofs
            rough.append(SoftmaxRegression(C=np.inf, tol=tol).fit(x, y))
    best = SoftmaxRegression(C=np.inf, tol=1e-12).fit(x.astype(np.float64), y)
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(best.predict_proba(x), peer.predict_proba(x.astype(np.float64)), atol=1e-5)
    for found in (model, *rough):
        distance = mean_objective(found, x.astype(np.float64), y) - mean_objective(best, x.astype(np.float64), y)
        assert distance <= found.certificate_.gap + 1e-12


def test_alpha_of_zero_is_no_penalty() -> None:
    x, y = blobs(400, 3, 3)
    a, b = SoftmaxRegression(alpha=0.0).fit(x, y), SoftmaxRegression(C=np.inf).fit(x, y)
    np.testing.assert_array_equal(a.coef_, b.coef_)
    assert a.certificate_ == b.certificate_


# Hard data: the probabilities of a float64 reference, or a warning that says why; never NaN.


def hard(name: str) -> tuple[NDArray[Any], NDArray[Any], Float64]:
    x, y = blobs(100, 4, 3)
    weight = np.ones(100)
    if name == "separable":
        return x + 100 * np.eye(4)[y], y, weight
    if name == "constant columns":
        return np.hstack([x, np.full((100, 1), 3.0), np.zeros((100, 1))]), y, weight
    if name == "columns twice":
        return np.hstack([x, x]), y, weight
    if name == "a large offset":
        return x + 1e5, y, weight
    if name == "units":
        return x * np.array([1e-6, 1e-2, 1e2, 1e6]), y, weight
    if name == "a value of 1e30":
        x[5, 2] = 1e30
        return x, y, weight
    if name == "one column":
        return x[:, :1], y, weight
    if name == "two rows":
        return x[:2], y[:2], weight[:2]
    if name == "rows of weight zero":
        weight[::3] = 0
        x[::3] = 1e6
        return x, y, weight
    if name == "a class of weight zero":
        weight[y == 1] = 0
        return x, y, weight
    if name == "weights far apart":
        return x, y, 10.0 ** np.linspace(-30, 30, 100)
    assert name == "all rows alike"
    return np.ones((100, 4)), y, weight


HARD = (
    "separable",
    "constant columns",
    "columns twice",
    "a large offset",
    "units",
    "a value of 1e30",
    "one column",
    "two rows",
    "rows of weight zero",
    "a class of weight zero",
    "weights far apart",
    "all rows alike",
)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", HARD)
def test_hard_data_is_solved_or_said_to_be_hard(name: str, dtype: type, standardize: bool) -> None:
    x, y, weight = hard(name)
    x = x.astype(dtype)
    model = SoftmaxRegression(standardize=standardize, max_iter=300)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(x, y, sample_weight=weight)
    assert {w.category for w in told} <= {ConvergenceWarning}
    for values in (model.coef_, model.intercept_, model.predict_proba(x)):
        assert np.isfinite(values).all()
    if told:
        assert any(
            word in str(told[0].message) for word in ("max_iter", "float64 resolves", "separable", "has no weight")
        )
        assert name in ("units", "a large offset", "a value of 1e30", "weights far apart", "a class of weight zero")
        return
    proof = model.certificate_
    assert proof.relative_gap <= 1e-6
    if name in ("weights far apart", "a value of 1e30"):
        return  # too far apart for what follows, which does not know how to be careful
    # a reference: the same objective on features that are centred and in the penalty's units, in float64
    x64 = x.astype(np.float64)
    rows, deviation = plain.rows_of(x64, y.astype(np.int64), weight[:, None], n_classes=len(model.classes_))
    scale = np.where(deviation > 0, deviation, 1.0) if standardize else np.ones(x.shape[1])
    plain_rows, spread = plain.rows_of((x64 - rows.center) / scale, y, weight[:, None], n_classes=rows.n_classes)
    penalty = Penalty(np.array([1 / weight.sum()]), np.ones(len(scale)))
    best = solve(plain_rows, penalty, spread, tol=1e-10)
    value = plain.objective(
        plain_rows, penalty, (model.coef_ * scale)[None], (model.intercept_ + model.coef_ @ rows.center)[None]
    )[0]
    # float32 keeps 7 digits of a deviation that divides
    assert value - best.value[0] <= proof.gap + (1e-6 if dtype == np.float32 else 1e-10) * value
    assert best.value[0] - value <= best.gap[0] + (1e-6 if dtype == np.float32 else 1e-10) * value


def test_constant_columns_get_no_weight() -> None:
    x, y = blobs(100, 3, 2)
    for standardize in (True, False):
        model = SoftmaxRegression(standardize=standardize).fit(np.hstack([x, np.full((100, 1), 3.0)]), y)
        np.testing.assert_allclose(model.coef_[:, 3], 0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.int8, np.uint8, np.bool_, np.float32])
def test_any_dtype_is_fitted_like_float64(dtype: type) -> None:
    x, y = blobs(200, 3, 3)
    x = np.abs(x * 8).astype(dtype)
    exact = SoftmaxRegression(tol=1e-10).fit(x.astype(np.float64), y)
    model = SoftmaxRegression(tol=1e-10).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x), exact.predict_proba(x.astype(np.float64)), atol=2e-5)
    assert model.coef_.dtype == model.predict_proba(x).dtype == np.float64


def test_any_layout_is_fitted_alike(tmp_path: Path) -> None:
    x, y = blobs(200, 4, 3)
    exact = SoftmaxRegression().fit(x, y)
    np.save(tmp_path / "x.npy", x)
    wide = np.zeros((400, 8))
    wide[::2, ::2] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    for same in (np.asfortranarray(x), wide[::2, ::2], np.load(tmp_path / "x.npy", mmap_mode="r"), frozen, x.tolist()):
        model = SoftmaxRegression().fit(same, y)
        np.testing.assert_array_equal(model.coef_, exact.coef_)
        np.testing.assert_array_equal(model.predict_proba(same), exact.predict_proba(x))
    np.testing.assert_array_equal(frozen, x)


def test_the_arguments_are_left_alone() -> None:
    x, y = blobs(200, 4, 3)
    q = np.eye(3)[y]
    weight = np.random.default_rng(0).random(200)
    for target in (y, q):
        copies = x.copy(), target.copy(), weight.copy()
        SoftmaxRegression(label_smoothing=0.1).fit(x, target, sample_weight=weight)
        for now, before in zip((x, target, weight), copies, strict=True):
            np.testing.assert_array_equal(now, before)


# Links.


def test_every_link_has_a_row_loss_that_is_its_own() -> None:
    z, rng = np.random.default_rng(0).normal(size=(20, 4)), np.random.default_rng(1)
    q = rng.dirichlet(np.ones(4), 20)
    for name, link in LINKS.items():
        loss = row_loss(link())
        assert isinstance(loss, RowLoss), name
        expected = link().loss_and_grad(z, q)
        for found, want in zip(plain.row_losses(loss, z, q), expected, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12, err_msg=name)
    with pytest.raises(TypeError, match=r"link must be one of luce\.links"):
        row_loss("softmax")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("name", LINKS)
def test_every_link_learns_the_digits(name: str) -> None:
    x, y = digits()
    model = SoftmaxRegression(link=LINKS[name]())
    held = np.arange(len(y)) % 4 == 0
    target = np.eye(10, dtype=int)[y] if name == "sigmoid" else y
    if name in NOT_CONVEX:
        with pytest.warns(ConvergenceWarning, match="not convex"):
            model.fit(x[~held], y[~held])
    else:
        model.fit(x[~held], y[~held])
        assert model.certificate_.relative_gap <= 1e-6
    assert model.score(x[held], y[held]) >= 0.9
    if name == "sigmoid":  # a class for each row is a label for each row
        labels = SoftmaxRegression(link=Sigmoid()).fit(x[~held], target[~held])
        np.testing.assert_allclose(labels.predict_proba(x), model.predict_proba(x), atol=1e-3)
    p = model.predict_proba(x)
    np.testing.assert_allclose(p, LINKS[name]().probabilities(model._logits(x)), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), p.argmax(axis=1))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(model.predict_log_proba(x), np.log(p), rtol=1e-7, atol=1e-12)


def test_coefficients_sum_to_zero_over_the_classes() -> None:
    x, y = digits()
    for link in (None, SoftMargin(), Sparsemax(), Entmax()):
        model = SoftmaxRegression(link=link, C=0.1).fit(x, y)
        np.testing.assert_allclose(model.coef_.sum(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(model.intercept_.sum(), 0, atol=1e-11)


def test_coefficients_relative_to_a_class_change_no_probability() -> None:
    x, y = blobs(200, 3, 3)
    names = np.array(["cat", "dog", "eel"])[y]
    model = SoftmaxRegression().fit(x, names)
    coef, intercept = model.coef_relative_to("dog")
    assert (coef[1] == 0).all()
    assert intercept[1] == 0
    np.testing.assert_allclose(Softmax().probabilities(x @ coef.T + intercept), model.predict_proba(x), atol=1e-12)
    assert np.sum(model.coef_**2) < np.sum(coef**2)
    with pytest.raises(ValueError, match="no class 'fox'; the classes are cat, dog, eel"):
        model.coef_relative_to("fox")
    labels = SoftmaxRegression(link=Sigmoid()).fit(x, np.eye(3)[y])
    with pytest.raises(ValueError, match="no meaning for Sigmoid"):
        labels.coef_relative_to(0)


# Parameters.


def test_alpha_is_the_penalty_on_the_mean() -> None:
    x, y = blobs(200, 3, 3)
    weight = np.random.default_rng(0).random(200)
    by_alpha = SoftmaxRegression(alpha=0.03, tol=1e-10).fit(x, y, sample_weight=weight)
    by_c = SoftmaxRegression(C=1 / (0.03 * weight.sum()), tol=1e-10).fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(by_alpha.coef_, by_c.coef_, atol=1e-7)
    again = SoftmaxRegression(alpha=0.03, tol=1e-10).fit(x, y, sample_weight=weight * 7)
    np.testing.assert_allclose(again.coef_, by_alpha.coef_, atol=1e-6)


def test_scaled_bytes_are_fitted_like_floats() -> None:
    x, y = load_digits(return_X_y=True)
    whole = (x * 15).astype(np.uint8)
    by_bytes = SoftmaxRegression(feature_scale=1 / 255, tol=1e-10).fit(whole, y)
    floats = SoftmaxRegression(tol=1e-10).fit(whole / 255, y)
    assert by_bytes.certificate_.objective == pytest.approx(floats.certificate_.objective, rel=2e-10)
    np.testing.assert_allclose(by_bytes.coef_ * 255, floats.coef_, atol=2e-4)
    np.testing.assert_allclose(by_bytes.predict_proba(whole), floats.predict_proba(whole / 255), atol=2e-5)
    each = np.linspace(0.5, 2, 64)
    np.testing.assert_allclose(
        SoftmaxRegression(feature_scale=each / 16, tol=1e-10).fit(x, y).predict_proba(x),
        SoftmaxRegression(tol=1e-10).fit(x / 16 * each, y).predict_proba(x / 16 * each),
        atol=2e-5,
    )


def test_the_units_do_not_matter_to_standardised_features() -> None:
    x, y = blobs(2000, 5, 3)
    units = np.array([1e-3, 1, 1e3, 1, 1e6])
    one = SoftmaxRegression(standardize=True, tol=1e-9).fit(x, y)
    other = SoftmaxRegression(standardize=True, tol=1e-9).fit(x * units, y)
    np.testing.assert_allclose(other.coef_ * units, one.coef_, atol=2e-4)
    assert other.n_iter_ <= one.n_iter_ + 3
    standard = StandardScaler().fit_transform(x)
    peer = SoftmaxRegression(tol=1e-9).fit(standard, y)
    np.testing.assert_allclose(one.predict_proba(x), peer.predict_proba(standard), atol=1e-4)


def test_smoothed_labels_are_distributions() -> None:
    x, y = blobs(200, 3, 4)
    smooth = SoftmaxRegression(label_smoothing=0.2, tol=1e-10).fit(x, y)
    given_ = SoftmaxRegression(tol=1e-10).fit(x, 0.8 * np.eye(4)[y] + 0.05)
    np.testing.assert_allclose(smooth.coef_, given_.coef_, atol=1e-6)
    plain_ = SoftmaxRegression(tol=1e-10).fit(x, y)
    assert np.abs(smooth.predict_proba(x)).max() < np.abs(plain_.predict_proba(x)).max()


@pytest.mark.parametrize("link", [None, Softmax(2.0)], ids=repr)
def test_a_distribution_is_a_row_for_each_class_with_a_weight(link: Softmax | None) -> None:
    x, _ = blobs(100, 3, 3)
    q = np.random.default_rng(0).dirichlet(np.ones(3), 100)
    soft = SoftmaxRegression(link=link, tol=1e-11).fit(x, q)
    repeated = SoftmaxRegression(link=link, tol=1e-11).fit(
        np.repeat(x, 3, axis=0), np.tile(np.arange(3), 100), sample_weight=q.ravel()
    )
    np.testing.assert_allclose(soft.coef_, repeated.coef_, atol=1e-5)
    np.testing.assert_allclose(soft.intercept_, repeated.intercept_, atol=1e-5)
    assert soft.classes_.tolist() == [0, 1, 2]


def test_weights_are_repetitions() -> None:
    x, y = blobs(100, 3, 3)
    counts = np.random.default_rng(0).integers(0, 4, 100)
    counts[:3] = 1
    weighted = SoftmaxRegression(tol=1e-11).fit(x, y, sample_weight=counts)
    repeated = SoftmaxRegression(tol=1e-11).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)


def test_class_weights_and_strings() -> None:
    x, y = blobs(300, 3, 3)
    names = np.array(["cat", "dog", "eel"])[y]
    model = SoftmaxRegression(class_weight={"cat": 5.0, "dog": 1.0, "eel": 1.0}).fit(x, names)
    same = SoftmaxRegression().fit(x, names, sample_weight=np.where(y == 0, 5.0, 1.0))
    np.testing.assert_allclose(model.coef_, same.coef_, atol=1e-6)
    assert set(model.predict(x)) <= {"cat", "dog", "eel"}
    balanced = SoftmaxRegression(class_weight="balanced", tol=1e-10).fit(x[:250], names[:250])
    peer = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=1000).fit(x[:250], names[:250])
    np.testing.assert_allclose(balanced.predict_proba(x), peer.predict_proba(x), atol=1e-5)


def test_without_an_intercept_it_is_zero_and_the_optimum_scikit_learns() -> None:
    x, y = blobs(300, 3, 4)
    for c in (0.1, 10.0):
        model = SoftmaxRegression(C=c, fit_intercept=False, tol=1e-11).fit(x + 1, y)
        assert (model.intercept_ == 0).all()
        peer = LogisticRegression(C=c, fit_intercept=False, tol=1e-11, max_iter=1000).fit(x + 1, y)
        np.testing.assert_allclose(model.predict_proba(x + 1), peer.predict_proba(x + 1), atol=1e-5)


def test_a_warm_start_takes_fewer_steps() -> None:
    x, y = digits()
    model = SoftmaxRegression(warm_start=True).fit(x, y)
    first = model.n_iter_
    model.fit(x, y)
    assert model.n_iter_ <= first / 10
    model.set_params(C=1.2).fit(x, y)
    assert model.n_iter_ < first
    model.fit(x[:, :10], y)  # does not fit: begins at zero
    assert model.coef_.shape == (10, 10)
    assert SoftmaxRegression().fit(x, y).fit(x, y).n_iter_ == first


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr("luce.regression.solver.time.monotonic", lambda: float(next(clock)))
    x, y = digits()
    SoftmaxRegression(verbose=1).fit(x, y)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("SoftmaxRegression: step ")
    assert "gap" in told.err
    SoftmaxRegression().fit(x, y)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_threads_change_no_bit(dtype: type) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 12, 3000)
    x: NDArray[Any] = (rng.random((3000, 40)) * 100 + 40 * rng.random((12, 40))[y]).astype(dtype)
    models = [SoftmaxRegression(n_threads=n, alpha=0.1, standardize=True).fit(x, y) for n in (1, 2, 5)]
    for other in models[1:]:
        assert other.coef_.tobytes() == models[0].coef_.tobytes()
        assert other.intercept_.tobytes() == models[0].intercept_.tobytes()
        assert other.predict_proba(x).tobytes() == models[0].predict_proba(x).tobytes()
        assert other.certificate_ == models[0].certificate_


# Wrong arguments.


@pytest.mark.parametrize(
    ("arguments", "y", "words"),
    [
        ({"C": 0.0}, [0, 1], "C must be positive, got 0.0"),
        ({"C": -1.0}, [0, 1], "C must be positive, got -1.0"),
        ({"C": np.nan}, [0, 1], "C must be positive, got nan"),
        ({"alpha": -1.0}, [0, 1], "alpha must be at least 0, got -1.0"),
        ({"alpha": np.inf}, [0, 1], "alpha must be at least 0, got inf"),
        ({"tol": 0.0}, [0, 1], "tol must be positive, got 0.0"),
        ({"max_iter": 0}, [0, 1], "max_iter must be at least 1, got 0"),
        ({"label_smoothing": 1.0}, [0, 1], r"label_smoothing must lie in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, [0, 1], "label_smoothing must lie in"),
        ({"feature_scale": 0.0}, [0, 1], "feature_scale must be positive, one number or 1, got 0.0"),
        ({"feature_scale": [1.0, 2.0]}, [0, 1], "feature_scale must be positive, one number or 1"),
        ({"feature_scale": np.nan}, [0, 1], "feature_scale must be positive"),
        ({"class_weight": {5: 1.0}}, [0, 1], "classes"),
        ({"class_weight": "balanced"}, [[0.5, 0.5], [1.0, 0.0]], r"class_weight needs y of shape \(N,\)"),
        ({}, [1, 1], "at least 2 classes; the data holds one class: .*1"),
        ({}, [0.5, 1.2], "[Uu]nknown label type|continuous"),
        ({}, [[1, 0], [0, 1]], r"distributions that sum to 1.*link=luce\.links\.Sigmoid"),
        ({}, [[0.5, 0.4], [1.0, 0.0]], "row 0 sums to 0.9"),
        ({}, [[1.5, -0.5], [1.0, 0.0]], r"must lie in \[0, 1\]"),
        ({"link": Sigmoid()}, [[2, 0], [0, 1]], r"must lie in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], y: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SoftmaxRegression(**arguments).fit([[0.0], [1.0]], y)


def test_wrong_data_is_named() -> None:
    x, y = blobs(20, 3, 2)
    with pytest.raises(TypeError, match=r"link must be one of luce\.links"):
        SoftmaxRegression(link="softmax").fit(x, y)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero number"):
        SoftmaxRegression().fit(x, y, sample_weight=np.zeros(20))
    with pytest.raises(ValueError, match="every sample has weight 0"):
        SoftmaxRegression(class_weight={0: 0.0, 1: 0.0}).fit(x, y)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        SoftmaxRegression().fit(x, y, sample_weight=-np.ones(20))
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxRegression().fit(np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="infinity"):
        SoftmaxRegression().fit(np.where(x > 1, np.inf, x), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        SoftmaxRegression().fit(x, y[:-1])
    with pytest.raises(ValueError, match="2 features, but SoftmaxRegression is expecting 3 features"):
        SoftmaxRegression().fit(x, y).predict(x[:, :2])


# A scikit-learn estimator.


def contract(estimator: Any) -> list[str]:
    """Which of scikit-learn's checks fail."""
    failed = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # some checks use max_iter=1
        for checked, check in estimator_checks_generator(estimator):
            try:
                check(checked)
            except SkipTest as skip:  # scikit-learn's own: the check needs what is not installed here
                if "pandas" not in str(skip) and "SCIPY_ARRAY_API" not in str(skip):
                    failed.append(f"{check}: skipped: {skip}")
            except Exception as error:  # collected to show all of them at once
                failed.append(f"{check}: {error!r}")
    return failed


def test_scikit_learns_contract() -> None:
    assert contract(SoftmaxRegression()) == []


def test_a_clone_has_the_parameters_and_a_pickle_the_model() -> None:
    x, y = blobs(100, 3, 3)
    link = Softmax(2.0)
    model = SoftmaxRegression(C=3.0, link=link, feature_scale=0.5, label_smoothing=0.1).fit(x, y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "coef_")
    again = pickle.loads(pickle.dumps(model))
    assert again.predict_proba(x).tobytes() == model.predict_proba(x).tobytes()
    assert again.certificate_ == model.certificate_


def test_pipelines_and_searches_hold_it() -> None:
    x, y = blobs(150, 3, 3)
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.6
    search = GridSearchCV(pipeline, {"softmaxregression__C": [1e-4, 1.0]}, scoring="neg_log_loss", cv=3).fit(x, y)
    assert search.best_params_ == {"softmaxregression__C": 1.0}


def test_taylor_is_predicted_by_its_probabilities_not_its_logits() -> None:
    model = SoftmaxRegression(link=Taylor())
    x, y = blobs(100, 3, 3)
    with pytest.warns(ConvergenceWarning, match="not convex"):
        model.fit(x, y)
    model.coef_, model.intercept_ = np.eye(3), np.zeros(3)
    assert model.predict([[-9.0, 0.0, 1.0]])[0] == 0  # its polynomial rises again on the left
