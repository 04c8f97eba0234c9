"""The path of penalties: every fold as if it were fitted alone, the least loss chosen, no row predicted by itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.links import log_softmax, softmax
from luce.regression import choose_strength
from tests.plain_regression import blobs

Ids = NDArray[np.int64]


def noisy(n: int, d: int, k: int) -> tuple[NDArray[np.float64], Ids]:
    x, y = blobs(n, d, k)
    return x + np.random.default_rng(5).normal(0, 1.5, x.shape), y


def test_every_fold_is_fitted_as_if_alone() -> None:
    x, y = noisy(200, 6, 3)
    fold = np.arange(200) % 4
    weight = np.random.default_rng(0).random(200) + 0.5
    model = SoftmaxRegressionCV(Cs=[0.01, 1.0, 30.0], cv=fold).fit(x, y, weight)
    assert model.losses_.shape == (4, 3)
    for f in range(4):
        seen, held = fold != f, fold == f
        for i, c in enumerate(model.Cs_):
            alone = SoftmaxRegression(C=c, tol=1e-9).fit(x[seen], y[seen], weight[seen])
            log_p = alone.predict_log_proba(x[held])[np.arange(held.sum()), y[held]]
            assert model.losses_[f, i] == pytest.approx(np.average(-log_p, weights=weight[held]), rel=0.03)
        best = SoftmaxRegression(C=model.C_, tol=1e-9).fit(x[seen], y[seen], weight[seen])
        np.testing.assert_allclose(softmax(model.oof_logits_[held]), best.predict_proba(x[held]), atol=5e-3)
        other = SoftmaxRegression(C=model.C_, tol=1e-9).fit(x, y, weight)  # the twin that saw the rows
        assert np.abs(other.predict_proba(x[held]) - softmax(model.oof_logits_[held])).max() > 0.02


def test_the_least_loss_is_chosen_and_the_final_fit_is_that_of_all_rows() -> None:
    x, y = noisy(300, 10, 3)
    model = SoftmaxRegressionCV(Cs=7, cv=3).fit(x, y)
    counts = np.bincount(model.fold_)
    assert model.C_ == model.Cs_[np.argmin(counts @ model.losses_)]
    assert 0 < np.flatnonzero(model.Cs_ == model.C_)[0] < 6  # neither end
    final = SoftmaxRegression(C=model.C_, tol=1e-9).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(x), final.predict_proba(x), atol=2e-3)
    assert model.certificate_.relative_gap <= model.tol
    assert not hasattr(model, "warm_start") or model.warm_start is False


def test_folds_come_as_a_number_as_fold_numbers_and_as_a_splitter() -> None:
    x, y = noisy(120, 4, 3)
    groups = np.arange(120) // 4
    by_groups = SoftmaxRegressionCV(Cs=2, cv=GroupKFold(3)).fit(x, y, groups=groups)
    assert all(len(set(by_groups.fold_[groups == g])) == 1 for g in range(30))
    by_number = SoftmaxRegressionCV(Cs=2, cv=by_groups.fold_ + 7).fit(x, y)
    np.testing.assert_array_equal(by_number.fold_, by_groups.fold_)
    np.testing.assert_array_equal(by_number.losses_, by_groups.losses_)
    stratified = SoftmaxRegressionCV(Cs=2, cv=5).fit(x, y)
    assert np.ptp(np.bincount(stratified.fold_)) <= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"Cs": []}, "Cs must be positive numbers"),
        ({"Cs": [1.0, -1.0]}, "Cs must be positive numbers"),
        ({"Cs": 0}, "Cs must be at least 1"),
        ({"cv": [(np.arange(30), np.arange(30, 60))]}, "some never are"),
        ({"cv": [(np.arange(30), np.arange(60)), (np.arange(30), np.arange(30))]}, "held out twice"),
        ({"cv": np.zeros(60, int)}, "at least 2 folds"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    x, y = noisy(60, 3, 3)
    with pytest.raises(ValueError, match=words):
        SoftmaxRegressionCV(**arguments).fit(x, y)  # type: ignore[arg-type]  # the point of the test


def test_a_row_whose_class_its_model_never_saw_does_not_count() -> None:
    x, y = noisy(200, 3, 2)
    y[0] = 2  # the only one of its class
    model = SoftmaxRegressionCV(Cs=[1.0], cv=np.arange(200) % 4).fit(x, y)
    assert np.flatnonzero(~model.oof_known_).tolist() == [0]
    log_p = log_softmax(model.oof_logits_)[np.arange(200), y]
    own = model.fold_ == 0
    assert model.losses_[0, 0] == pytest.approx(-log_p[own][1:].mean(), rel=0.02)


def test_a_path_of_another_link_counts_its_own_loss() -> None:
    from luce.links import Entmax

    x, y = noisy(150, 4, 3)
    model = SoftmaxRegressionCV(Cs=[1.0], cv=np.arange(150) % 3, link=Entmax(alpha=1.5)).fit(x, y)
    loss, _ = Entmax(alpha=1.5).loss_and_grad(model.oof_logits_, y)
    assert model.losses_[1, 0] == pytest.approx(loss[model.fold_ == 1].mean(), rel=0.05)


def test_choosing_a_strength_finds_the_least_out_of_fold_loss() -> None:
    x, y = noisy(240, 20, 3)
    fold = np.arange(240) % 4
    choice = choose_strength(x.astype(np.float32), y, np.ones(240), fold, 3)
    losses = dict(choice.path)
    assert losses[choice.strength] == min(losses.values())


def test_the_search_goes_to_stronger_penalties_when_weaker_ones_are_worse() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 30)).astype(np.float32), np.arange(120) % 3  # nothing to learn
    choice = choose_strength(x, y, np.ones(120), np.arange(120) // 3 % 5, 3)
    tried = [strength for strength, _ in choice.path]
    assert choice.strength == 1.0
    assert tried == sorted(tried, reverse=True)
    assert len(tried) <= 4


def test_the_search_goes_to_weaker_penalties_while_they_are_better() -> None:
    x, y = blobs(400, 3, 3)
    choice = choose_strength(x.astype(np.float32), y, np.ones(400), np.arange(400) % 4, 3)
    assert max(strength for strength, _ in choice.path) <= 0.11
    assert choice.strength < 0.1
    assert choice.mean[0].shape == (1, 3, 3)
    assert choice.mean[1].shape == (1, 3)


def test_classes_that_never_part_cannot_be_cross_validated() -> None:
    x, y = blobs(30, 3, 3)
    with pytest.raises(ValueError, match="each class lies in one fold"):
        choose_strength(x.astype(np.float32), y, np.ones(30), y.astype(np.int64), 3)
