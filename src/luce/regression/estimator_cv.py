"""Softmax regression whose penalty is chosen by cross-validation, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import check_cv
from sklearn.utils.validation import validate_data

from luce.links import Link, Softmax
from luce.regression.cross_validation import make_folds
from luce.regression.estimator import NATIVE, SoftmaxRegression, read_targets, read_weights
from luce.regression.objective import Float64, here
from luce.threads import default_threads


class SoftmaxRegressionCV(SoftmaxRegression):
    """`SoftmaxRegression` with the C of least out-of-fold loss, of a path of them.

    Every C is fitted on all folds side by side, each pass over the data serving all of them, from the strongest
    penalty to the weakest, each starting where the one before ended. The final fit, on all rows, is proven like any
    `SoftmaxRegression`.

    Args:
        Cs: how many, spread evenly in the logarithm over 1e-4 … 1e4, or the values themselves.
        cv: number of stratified folds, or the fold number (N,) of each row, or a scikit-learn splitter or list of
            (train, test) indices whose test parts hold each row once.
        link: as in `SoftmaxRegression`, and so are the rest.
        fit_intercept: whether there is an intercept.
        standardize: penalise the coefficients of standardised features.
        feature_scale: penalise the coefficients of `X * feature_scale`.
        class_weight: `None`, `"balanced"` or `{class: weight}`.
        tol: of the final fit.
        max_iter: of the final fit.
        verbose: 1 for progress on standard error.
        n_threads: `None` for one per available core.

    Attributes:
        C_: the C of least mean loss.
        Cs_: (P,) increasing.
        losses_: (F, P) weighted mean loss of each fold's held-out rows; for softmax the negative log-likelihood.
        oof_logits_: (N, K) float64 at `C_`: row i by the model that did not see it. Calibrate on these.
        oof_known_: (N,) whether that model saw other rows of the class of row i.
        fold_: (N,) fold of each row.

    The attributes of `SoftmaxRegression` belong to the final fit.
    """

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        cv: Any = 5,
        link: Link | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        feature_scale: ArrayLike = 1.0,
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        tol: float = 1e-6,
        max_iter: int = 2000,
        verbose: int = 0,
        n_threads: int | None = None,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.link = link
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.feature_scale = feature_scale
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.verbose = verbose
        self.n_threads = n_threads

    # What the final fit takes from `SoftmaxRegression` and is no choice here.
    label_smoothing = 0.0
    warm_start = False
    alpha = None

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Choose C, then fit.

        Args:
            X: (N, D) features; uint8, float32 and float64 as they are, other dtypes as float64.
            y: (N,) classes, numbers or strings.
            sample_weight: (N,) not negative.
            groups: (N,) for a splitter that wants them.

        Returns:
            The estimator.

        Raises:
            ValueError: a parameter out of range, or folds that do not hold each row once.
        """
        loss = self._check()
        features, given = validate_data(self, X, y, dtype=NATIVE, order="C")
        targets = read_targets(given, loss)
        weight = read_weights(sample_weight, features)
        self.fold_ = self._folds(features, given, groups)
        row_weight = weight * self._class_weights(targets, weight, here)
        folds = make_folds(
            features,
            targets.values,
            row_weight,
            self.fold_,
            len(targets.classes),
            scale=self._penalty_scale,
            link=self.link or Softmax(),
            n_threads=default_threads() if self.n_threads is None else self.n_threads,
            intercept=self.fit_intercept,
        )
        self.Cs_ = self._values()
        self.losses_ = np.full((folds.rows.n_problems, len(self.Cs_)), np.nan)
        share = np.bincount(self.fold_, folds.counted, minlength=len(self.losses_))
        best, last, least = 0, None, np.inf
        for i, c in enumerate(self.Cs_):
            last = solution = folds.solve(1 / (c * folds.totals), last)
            self.losses_[:, i] = folds.losses(folds.logits(solution, rough=True))
            mean = float(np.nansum(self.losses_[:, i] * share) / share.sum())
            if i == 0 or mean < least:
                best, least, chosen = i, mean, solution
        self.C_ = float(self.Cs_[best])
        solution = folds.refine(1 / (self.C_ * folds.totals), chosen)
        self.oof_logits_, self.oof_known_ = folds.logits(solution), folds.known
        start = solution.weights.mean(axis=0, keepdims=True), solution.bias.mean(axis=0, keepdims=True)
        return self._fit(features, targets, weight, loss, basis=folds.features, start=start)

    def _check_penalty(self) -> None:
        self._values()

    def _strength(self, mass: float) -> float:
        return 1 / (self.C_ * mass)

    def _values(self) -> Float64:
        if isinstance(self.Cs, int | np.integer):
            if self.Cs < 1:
                raise ValueError(f"SoftmaxRegressionCV: Cs must be at least 1, got {self.Cs}")
            return np.logspace(-4, 4, int(self.Cs))
        values = np.sort(np.asarray(self.Cs, np.float64))
        if values.ndim != 1 or not len(values) or not ((values > 0) & np.isfinite(values)).all():
            raise ValueError(f"SoftmaxRegressionCV: Cs must be positive numbers, got {self.Cs!r}")
        return values

    def _folds(self, features: NDArray[Any], y: NDArray[Any], groups: ArrayLike | None) -> NDArray[np.int64]:
        """The fold (N,) of each row."""
        if np.ndim(getattr(self.cv, "shape", 0)) and np.shape(self.cv) == (len(y),):
            _, fold = np.unique(self.cv, return_inverse=True)
        else:
            fold = np.full(len(y), -1)
            for number, (_, test) in enumerate(check_cv(self.cv, y, classifier=True).split(features, y, groups)):
                if (fold[test] >= 0).any():
                    raise ValueError("SoftmaxRegressionCV: cv must hold each row out once; some are held out twice")
                fold[test] = number
            if (fold < 0).any():
                raise ValueError("SoftmaxRegressionCV: cv must hold each row out once; some never are")
        if fold.max() < 1:
            raise ValueError("SoftmaxRegressionCV: cv must name at least 2 folds")
        return fold.astype(np.int64)
