"""The penalty by cross-validation: what it chooses, and what its out-of-fold logits are."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.links import Entmax, Softmax, softmax
from luce.regression import Penalty, choose_strength, mean_and_deviation, solve
from tests import plain_regression as plain
from tests.plain_regression import blobs
from tests.test_regression import contract

Float64 = NDArray[np.float64]
Ids = NDArray[np.int64]


def noisy(n: int = 240, k: int = 3) -> tuple[Float64, Ids]:
    """Rows for which neither the weakest nor the strongest penalty is the best."""
    x, y = blobs(n, 20, k)
    return x + np.random.default_rng(5).normal(0, 3, x.shape), y


def folds_of(n: int, count: int = 4) -> Ids:
    return np.random.default_rng(9).permutation(n) % count


def per_fold(
    x: Float64, y: Ids, fold: Ids, c: float, weight: Float64, **parameters: Any
) -> tuple[Float64, list[SoftmaxRegression]]:
    """Logits (N, K) of each row by a model fitted without its fold."""
    z = np.empty((len(y), len(np.unique(y))))
    models = []
    for f in np.unique(fold):
        held = fold == f
        model = SoftmaxRegression(C=c, tol=1e-9, **parameters).fit(x[~held], y[~held], sample_weight=weight[~held])
        z[held] = x[held] @ model.coef_.T + model.intercept_
        models.append(model)
    return z, models


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("link", [None, Softmax(2.0), Entmax()], ids=repr)
def test_losses_and_logits_are_those_of_fits_without_the_fold(link: Any, intercept: bool) -> None:
    x, y = noisy()
    fold, weight = folds_of(240), np.random.default_rng(1).random(240)
    cs = [0.001, 0.01, 0.1, 1.0]
    model = SoftmaxRegressionCV(cs, cv=fold, link=link, fit_intercept=intercept).fit(x, y, sample_weight=weight)
    assert model.losses_.shape == (4, 4)
    for i, c in enumerate(cs):
        z, _ = per_fold(x, y, fold, c, weight, link=link, fit_intercept=intercept)
        loss, _ = (link or Softmax()).loss_and_grad(z, y)
        for f in range(4):
            held = fold == f
            expected = np.average(loss[held], weights=weight[held])
            # the path is solved to 5e-5 of the loss at zero, and where the objective is least a loss on other rows
            # still slopes: it is off by about the square root
            assert model.losses_[f, i] == pytest.approx(expected, rel=2e-2)
        if c == model.C_:  # solved to 5e-6
            np.testing.assert_allclose(softmax(model.oof_logits_), softmax(z), atol=1e-2)
            seen = SoftmaxRegression(C=c, link=link, fit_intercept=intercept).fit(x, y, sample_weight=weight)
            assert np.abs(softmax(x @ seen.coef_.T + seen.intercept_) - softmax(z)).max() > 0.05  # the wrong twin
    share = np.bincount(fold, weight)
    assert model.Cs_[np.argmin(share @ model.losses_)] == model.C_
    assert 0.001 <= model.C_ < 1.0
    np.testing.assert_array_equal(model.fold_, fold)


def test_a_row_is_never_seen_by_the_model_that_predicts_it() -> None:
    x, y = noisy()
    fold = folds_of(240)
    before = SoftmaxRegressionCV([0.1], cv=fold).fit(x, y)
    held = fold == 2
    wrong = y.copy()
    wrong[held] = (y[held] + 1) % 3  # what the rows of fold 2 are called must not matter to their own logits
    after = SoftmaxRegressionCV([0.1], cv=fold).fit(x, wrong)
    np.testing.assert_allclose(after.oof_logits_[held], before.oof_logits_[held], atol=2e-2)
    assert np.abs(after.oof_logits_[~held] - before.oof_logits_[~held]).max() > 0.3


def test_the_final_fit_is_that_of_the_chosen_c() -> None:
    x, y = noisy()
    assert SoftmaxRegressionCV(7, cv=3).fit(x, y).certificate_.relative_gap <= 1e-6
    model = SoftmaxRegressionCV(7, cv=3, tol=1e-13).fit(x, y)
    plain_ = SoftmaxRegression(C=model.C_, tol=1e-13).fit(x, y)
    np.testing.assert_allclose(model.coef_, plain_.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.intercept_, plain_.intercept_, rtol=1e-5, atol=1e-7)
    assert model.certificate_.objective == pytest.approx(plain_.certificate_.objective, rel=1e-12)
    np.testing.assert_allclose(model.Cs_, np.logspace(-4, 4, 7))
    assert 0 < list(model.Cs_).index(model.C_) < 6  # neither end
    assert np.ptp(np.bincount(model.fold_)) <= 3  # stratified
    assert model.warm_start is False


def test_standardised_and_scaled_features_are_those_of_the_whole_data() -> None:
    x, y = noisy()
    units = np.logspace(-3, 3, 20)
    fold = folds_of(240)
    one = SoftmaxRegressionCV([0.01, 0.1, 1.0], cv=fold, standardize=True).fit(x, y)
    other = SoftmaxRegressionCV([0.01, 0.1, 1.0], cv=fold, standardize=True).fit(x * units, y)
    assert one.C_ == other.C_
    np.testing.assert_allclose(other.losses_, one.losses_, rtol=1e-2)
    whole = np.clip(x * 20 + 128, 0, 255).astype(np.uint8)
    by_bytes = SoftmaxRegressionCV([0.1, 1.0], cv=fold, feature_scale=1 / 255).fit(whole, y)
    floats = SoftmaxRegressionCV([0.1, 1.0], cv=fold).fit(whole / 255, y)
    np.testing.assert_allclose(by_bytes.losses_, floats.losses_, rtol=1e-3)


@pytest.mark.parametrize(
    "splitter",
    [KFold(3), KFold(3, shuffle=True, random_state=0), StratifiedKFold(3)],
    ids=lambda s: type(s).__name__,
)
def test_splitters_and_lists_of_indices_say_the_folds(splitter: Any) -> None:
    x, y = noisy()
    model = SoftmaxRegressionCV([0.1], cv=splitter).fit(x, y)
    for number, (_, test) in enumerate(splitter.split(x, y)):
        assert (model.fold_[test] == number).all()
    listed = SoftmaxRegressionCV([0.1], cv=list(splitter.split(x, y))).fit(x, y)
    np.testing.assert_array_equal(listed.fold_, model.fold_)
    np.testing.assert_array_equal(listed.oof_logits_, model.oof_logits_)


def test_groups_stay_together() -> None:
    x, y = noisy()
    groups = np.arange(240) // 8
    model = SoftmaxRegressionCV([0.1], cv=GroupKFold(3)).fit(x, y, groups=groups)
    for group in range(30):
        assert len(set(model.fold_[groups == group])) == 1
    assert set(model.fold_) == {0, 1, 2}


def test_fold_numbers_may_be_any() -> None:
    x, y = noisy()
    fold = folds_of(240)
    expected = SoftmaxRegressionCV([0.1], cv=fold).fit(x, y)
    for same in (fold * 10 - 7, np.array(list("abcd"))[fold]):
        np.testing.assert_array_equal(SoftmaxRegressionCV([0.1], cv=same).fit(x, y).oof_logits_, expected.oof_logits_)


def test_folds_that_do_not_hold_each_row_once_are_refused() -> None:
    x, y = noisy()
    rows = np.arange(240)
    with pytest.raises(ValueError, match="hold each row out once; some never are"):
        SoftmaxRegressionCV(cv=[(rows[:100], rows[100:200]), (rows[100:], rows[:50])]).fit(x, y)
    with pytest.raises(ValueError, match="hold each row out once; some are held out twice"):
        SoftmaxRegressionCV(cv=[(rows[:100], rows[100:]), (rows[100:], rows[:101])]).fit(x, y)
    with pytest.raises(ValueError, match="hold each row out once"):
        SoftmaxRegressionCV(cv=ShuffleSplit(3, random_state=0)).fit(x, y)
    with pytest.raises(ValueError, match="at least 2 folds"):
        SoftmaxRegressionCV(cv=np.zeros(240, int)).fit(x, y)


@pytest.mark.parametrize("cs", [0, -3, [0.0, 1.0], [np.inf], [np.nan], [], [[1.0]], [1.0, -1.0]])
def test_wrong_cs_are_named(cs: Any) -> None:
    x, y = noisy()
    with pytest.raises(ValueError, match=r"SoftmaxRegressionCV: Cs must be"):
        SoftmaxRegressionCV(cs).fit(x, y)


def test_a_row_whose_class_lies_in_its_fold_alone_does_not_count() -> None:
    x, y = noisy()
    y = y % 2
    y[:3] = 2
    fold = folds_of(240)
    fold[:3] = 1
    model = SoftmaxRegressionCV([0.01, 0.1], cv=fold).fit(x, y)
    assert np.flatnonzero(~model.oof_known_).tolist() == [0, 1, 2]
    assert np.isfinite(model.oof_logits_).all()
    loss, _ = Softmax().loss_and_grad(model.oof_logits_, y)
    counted = (fold == 1) & model.oof_known_
    assert model.losses_[1, list(model.Cs_).index(model.C_)] == pytest.approx(loss[counted].mean(), rel=2e-2)
    assert model.classes_.tolist() == [0, 1, 2]


def test_a_fold_of_which_nothing_counts_has_no_loss() -> None:
    x, y = noisy()
    y = y % 2
    y[:3] = 2
    fold = folds_of(240, 3)
    fold[:3] = 3  # by themselves
    model = SoftmaxRegressionCV([0.01, 0.1], cv=fold).fit(x, y)
    assert np.isnan(model.losses_[3]).all()
    assert np.isfinite(model.losses_[:3]).all()
    assert model.C_ in (0.01, 0.1)


def test_classes_and_weights_enter_it() -> None:
    x, y = noisy()
    fold = folds_of(240)
    names = np.array(["cat", "dog", "eel"])[y]
    by_class = SoftmaxRegressionCV([0.1, 1.0], cv=fold, class_weight={"cat": 3, "dog": 1, "eel": 2}).fit(x, names)
    by_row = SoftmaxRegressionCV([0.1, 1.0], cv=fold).fit(x, y, sample_weight=np.array([3.0, 1.0, 2.0])[y])
    np.testing.assert_allclose(by_class.losses_, by_row.losses_, rtol=1e-9)
    np.testing.assert_allclose(by_class.coef_, by_row.coef_, atol=1e-9)
    assert by_class.classes_.tolist() == ["cat", "dog", "eel"]


def test_threads_change_no_bit() -> None:
    x, y = noisy(2000)
    models = [SoftmaxRegressionCV(3, cv=4, n_threads=n).fit(x.astype(np.float32), y) for n in (1, 2, 5)]
    for other in models[1:]:
        assert other.losses_.tobytes() == models[0].losses_.tobytes()
        assert other.oof_logits_.tobytes() == models[0].oof_logits_.tobytes()
        assert other.coef_.tobytes() == models[0].coef_.tobytes()


def test_scikit_learns_contract() -> None:
    # C = 1e4 on 15 separable rows is so flat that rounding in the sums moves logits by more than the contract's 1e-7
    assert contract(SoftmaxRegressionCV([1e-4, 1.0], cv=2)) == []


def test_a_clone_has_the_parameters_and_a_pickle_the_model() -> None:
    x, y = noisy()
    model = make_pipeline(StandardScaler(), SoftmaxRegressionCV(3, cv=3)).fit(x, y)[-1]
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model))
    assert again.oof_logits_.tobytes() == model.oof_logits_.tobytes()
    assert again.C_ == model.C_


# What training takes: the path of strengths.


def test_cross_validation_chooses_the_least_out_of_fold_loss() -> None:
    x, y = blobs(240, 20, 3)
    x = x + np.random.default_rng(5).normal(0, 2, x.shape)
    fold = np.arange(240) % 4
    choice = choose_strength(x.astype(np.float32), y, np.ones(240), fold, 3)
    losses = dict(choice.path)
    assert losses[choice.strength] == min(losses.values())
    _, scale = mean_and_deviation(x, np.full(240, 1 / 240))
    for f in range(4):  # the out-of-fold logits are those of models that did not see the row
        held = fold == f
        rows, deviation = plain.rows_of(x[~held], y[~held])
        alone = solve(rows, Penalty(np.array([choice.strength]), scale), deviation, tol=1e-10)
        z = (x[held] - rows.center) @ alone.weights[0].T + alone.bias[0]
        assert np.abs(softmax(z) - softmax(choice.logits[held])).max() < 5e-3


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
    told: list[tuple[int, int]] = []
    choice = choose_strength(
        x.astype(np.float32), y, np.ones(400), np.arange(400) % 4, 3, progress=lambda *n: told.append(n)
    )
    tried = [strength for strength, _ in choice.path]
    assert max(tried) <= 0.11
    assert choice.strength < 0.1
    assert choice.mean[0].shape == (1, 3, 3)
    assert choice.mean[1].shape == (1, 3)
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(told))
    assert told[-1] == (11, 11)


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
    with pytest.raises(ValueError, match="each class lies in one fold"):
        SoftmaxRegressionCV(cv=y).fit(x, y)
