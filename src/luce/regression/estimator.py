"""Softmax regression as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from luce.links import log_softmax, softmax
from luce.regression.objective import Rows, mean_and_deviation
from luce.regression.solver import Penalty, gap_bound, solve
from luce.threads import default_threads


@dataclass(frozen=True, slots=True)
class Certificate:
    """How close a fit is to the optimum.

    Attributes:
        relative_gradient: norm of the gradient relative to that at zero weights.
        gap: upper bound on mean objective minus its minimum, from a dual point; infinite without penalty.
        objective: the mean objective that was reached: weighted mean cross-entropy plus penalty, in nats.
    """

    relative_gradient: float
    gap: float
    objective: float


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Multinomial logistic regression, solved to a proven gap.

    Minimises `C * sum(weight * cross_entropy) + ||coef||² / 2`, scikit-learn's objective, for any number of classes
    at once (never one-vs-rest). The intercept is not penalised. float32 and uint8 features are used as they are; the
    solver works in centred, scaled variables and folds them back, so the units of the features do not matter to its
    speed.

    Args:
        C: inverse strength of the penalty, positive.
        standardize: penalise the coefficients of standardised features instead of the raw ones, so that the units of
            the features do not matter to the result either.
        class_weight: `None`, `"balanced"` or `{class: weight}`. Weights change the probabilities.
        tol: relative decrease of the objective below which the solver stops.
        max_iter: greatest number of steps; a fit that ends there warns (`ConvergenceWarning`).
        n_threads: threads of the row kernel; `None` for one per available core.

    Attributes:
        classes_: (K,) the classes, sorted.
        coef_: (K, D) float64.
        intercept_: (K,) float64.
        n_iter_: steps taken.
        certificate_: a `Certificate`.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        standardize: bool = False,
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        tol: float = 1e-7,
        max_iter: int = 1000,
        n_threads: int | None = None,
    ) -> None:
        self.C = C
        self.standardize = standardize
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the model.

        Args:
            X: (N, D) features; uint8, float32 and float64 as they are, other dtypes as float64.
            y: (N,) classes: numbers or strings.
            sample_weight: (N,) not negative.

        Returns:
            The estimator.

        Raises:
            ValueError: fewer than two classes, or a parameter out of range.
        """
        if not self.C > 0:
            raise ValueError(f"SoftmaxRegression: C must be positive, got {self.C!r}")
        features: NDArray[Any]
        features, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.uint8], order="C")
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"SoftmaxRegression needs samples of at least 2 classes; the data holds one class: {self.classes_[0]!r}"
            )
        weight = np.array(_check_sample_weight(sample_weight, features, dtype=np.float64, ensure_non_negative=True))
        per_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=sample_weight)
        weight *= per_class[target]
        total = float(weight.sum())
        if not total > 0:
            raise ValueError("SoftmaxRegression: every sample has weight 0")
        weight /= total
        center, deviation = mean_and_deviation(features, weight)
        n_threads = default_threads() if self.n_threads is None else self.n_threads
        rows = Rows(features, target.astype(np.int64), weight[:, None], center, len(self.classes_), n_threads)
        scale = np.where(deviation > 0, deviation, 1.0) if self.standardize else np.ones(features.shape[1])
        penalty = Penalty(1 / (self.C * total), scale)
        solution = solve(rows, penalty, deviation, tol=self.tol, max_iter=self.max_iter)
        self.coef_ = solution.weights[0]
        self.intercept_ = solution.bias[0] - self.coef_ @ center
        self.n_iter_ = solution.n_iter
        self.certificate_ = Certificate(
            float(solution.relative_gradient[0]), gap_bound(rows, penalty, solution), float(solution.value[0])
        )
        if solution.n_iter >= self.max_iter and not solution.converged[0]:
            warnings.warn(
                f"SoftmaxRegression stopped after max_iter={self.max_iter} steps, at most "
                f"{self.certificate_.gap:.3g} above the optimum; raise max_iter",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits (N, K); for two classes, scikit-learn's convention: their difference (N,), second minus first."""
        z = self._logits(X)
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 else z

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (N, K) in the order of `classes_`; rows sum to one."""
        return softmax(self._logits(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of the probabilities (N, K), exact where the probability itself underflows."""
        return log_softmax(self._logits(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class (N,)."""
        winner = np.argmax(self._logits(X), axis=1)
        return np.asarray(self.classes_[winner])

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32, np.uint8], order="C", reset=False)
        return np.asarray(X @ self.coef_.T + self.intercept_, np.float64)
