"""Softmax regression as a scikit-learn estimator."""

from __future__ import annotations

import math
import sys
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

from luce.links import Link, Softmax, softmax
from luce.regression.fisher import MOST_PARAMETERS, affordable, information, unpenalised_gap
from luce.regression.inference import Inference
from luce.regression.objective import Float64, Rows, Total, affine, here, mean_and_deviation
from luce.regression.preconditioner import Spectrum
from luce.regression.row_loss import SIGMOID, SOFTMAX_LOSS, RowLoss, row_loss
from luce.regression.solver import Penalty, Solution, one_blas_thread, solve
from luce.threads import default_threads

NATIVE = [np.float64, np.float32, np.uint8]


@dataclass(frozen=True, slots=True)
class Certificate:
    """How close a fit is to the optimum.

    Attributes:
        relative_gradient: norm of the gradient relative to that at zero weights.
        gap: upper bound on the mean objective minus its minimum, computed in float64; infinite where nothing is
            proven.
        objective: the mean objective that was reached: weighted mean loss plus penalty, in nats.
    """

    relative_gradient: float
    gap: float
    objective: float

    @property
    def relative_gap(self) -> float:
        """The gap relative to the objective."""
        return self.gap / self.objective if self.objective > 0 else self.gap


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What a model learns from.

    Attributes:
        classes: (K,).
        values: (N,) class ids, or (N, K) distributions or labels, float64.
        several: whether a row may have several labels.
    """

    classes: NDArray[Any]
    values: NDArray[Any]
    several: bool = False


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Multinomial logistic regression, solved to a proven gap.

    Minimises `C * sum(weight * loss) + ||coef||² / 2`, scikit-learn's objective, for any number of classes at once
    (never one-vs-rest). The intercept is not penalised. uint8, float32 and float64 features, and memory maps of them,
    are used as they are: nothing of their size is allocated. The units of the features do not matter to the speed.

    Adding a vector to the coefficients of every class changes no probability. The penalty picks the solution whose
    coefficients sum to zero over the classes, and intercepts are shifted to do so, too; two classes therefore have
    opposite coefficients, each half of scikit-learn's single vector, and C means half as strong a penalty there.

    Args:
        C: inverse strength of the penalty on the summed loss, positive; `inf` for none.
        alpha: strength of the penalty on the mean loss, `mean(weight * loss) + alpha / 2 * ||coef||²`, instead of C.
        link: a link of `luce.links`, softmax if none. The loss is the link's own. `Sigmoid` takes several labels.
        fit_intercept: whether there is an intercept.
        standardize: penalise the coefficients of standardised features instead of the raw ones, so that the units of
            the features do not matter to the result either.
        feature_scale: penalise the coefficients of `X * feature_scale`, a number or (D,): `1 / 255` for uint8 pixels
            gives the result of floats in 0 … 1, without them. `coef_` belongs to X as it is.
        class_weight: `None`, `"balanced"` or `{class: weight}`. Weights change the probabilities.
        label_smoothing: share of each target that is spread evenly over the classes.
        tol: the fit is done when its objective is proven to be within this share of the minimum.
        max_iter: greatest number of steps.
        warm_start: begin with the present coefficients where they fit.
        verbose: 1 to print progress to standard error, a line a second.
        n_threads: threads of a pass over the rows, `None` for one per available core. They change no result.

    Attributes:
        classes_: (K,) the classes, sorted.
        coef_: (K, D) float64.
        intercept_: (K,) float64.
        n_iter_: steps taken.
        n_passes_: passes over the rows.
        certificate_: a `Certificate`. A fit that proves less than `tol` warns (`ConvergenceWarning`) and says why.

    References:
        Krishnapuram et al. 2005, doi 10.1109/TPAMI.2005.127 (the model); Böhning 1992, doi 10.1007/BF00048682 (the
        curvature's bound); Liu & Nocedal 1989, doi 10.1007/BF01589116 (L-BFGS).
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        alpha: float | None = None,
        link: Link | None = None,
        fit_intercept: bool = True,
        standardize: bool = False,
        feature_scale: ArrayLike = 1.0,
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        label_smoothing: float = 0.0,
        tol: float = 1e-6,
        max_iter: int = 2000,
        warm_start: bool = False,
        verbose: int = 0,
        n_threads: int | None = None,
    ) -> None:
        self.C = C
        self.alpha = alpha
        self.link = link
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.feature_scale = feature_scale
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the model.

        Args:
            X: (N, D) features; uint8, float32 and float64 as they are, other dtypes as float64.
            y: (N,) classes, numbers or strings; or (N, K) distributions over classes 0 … K - 1, floating; or, for the
                sigmoid link, (N, K) labels in [0, 1], any number of them 1.
            sample_weight: (N,) not negative.

        Returns:
            The estimator.

        Raises:
            ValueError: fewer than two classes, or a parameter out of range.
        """
        loss = self._check()
        features, given = validate_data(self, X, y, dtype=NATIVE, order="C", multi_output=True)
        targets = read_targets(given, loss)
        weight = read_weights(sample_weight, features)
        return self._fit(features, targets, weight, loss)

    def fit_distributed(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, group: Any = None
    ) -> Self:
        """Fit on the rows of all processes of a `torch.distributed` group, each of which calls this with its own.

        Every process ends with the same model, that of a fit on all rows at once but for the rounding of sums. Only
        sums are exchanged: a gradient each pass, the features' second moments once.

        Args:
            X: (n, D) the rows of this process; it may have few, but not none.
            y: (n,) their classes; classes need not occur in every process.
            sample_weight: (n,) not negative.
            group: of processes; the default group if none.

        Raises:
            RuntimeError: torch or a process group is missing; the message says what to do.
        """
        from luce.regression.distributed import joined

        loss = self._check()
        features, given = validate_data(self, X, y, dtype=NATIVE, order="C", multi_output=True)
        weight = read_weights(sample_weight, features)
        classes, total = joined(group, features, given)
        return self._fit(features, read_targets(given, loss, classes), weight, loss, total)

    def _check(self) -> RowLoss:
        self._check_penalty()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"SoftmaxRegression: label_smoothing must lie in [0, 1), got {self.label_smoothing!r}")
        if not self.tol > 0:
            raise ValueError(f"SoftmaxRegression: tol must be positive, got {self.tol!r}")
        if not self.max_iter >= 1:
            raise ValueError(f"SoftmaxRegression: max_iter must be at least 1, got {self.max_iter!r}")
        return row_loss(Softmax() if self.link is None else self.link)

    def _check_penalty(self) -> None:
        if not self.C > 0:
            raise ValueError(f"SoftmaxRegression: C must be positive, got {self.C!r}")
        if self.alpha is not None and not 0 <= self.alpha < math.inf:
            raise ValueError(f"SoftmaxRegression: alpha must be at least 0, got {self.alpha!r}")

    @one_blas_thread
    def _fit(
        self,
        features: NDArray[Any],
        targets: Targets,
        weight: Float64,
        loss: RowLoss,
        total: Total = here,
        *,
        basis: Spectrum | None = None,
        start: tuple[Float64, Float64] | None = None,
    ) -> Self:
        self.classes_, k = targets.classes, len(targets.classes)
        weight *= self._class_weights(targets, weight, total)
        mass = float(total(np.array([weight.sum()]))[0])
        if not mass > 0:
            raise ValueError("SoftmaxRegression: every sample has weight 0")
        weight /= mass
        n_threads = default_threads() if self.n_threads is None else self.n_threads
        center, deviation = mean_and_deviation(features, weight, n_threads, total)
        target = smoothed(targets.values, k, self.label_smoothing, distributions=loss.member == SIGMOID)
        rows = Rows(features, target, weight[:, None], center, k, loss, self.fit_intercept, n_threads, total)
        strength = self._strength(mass)
        penalty = Penalty(np.array([strength]), self._penalty_scale(deviation))
        solution = solve(
            rows,
            penalty,
            deviation,
            features=basis,
            start=self._start(rows.origin, k) if self.warm_start else start,
            tol=self.tol,
            max_iter=self.max_iter,
            progress=say if self.verbose else None,
        )
        self.coef_ = solution.weights[0]
        self.intercept_ = solution.bias[0] - self.coef_ @ rows.origin
        self.n_iter_, self.n_passes_ = solution.n_iter, solution.n_passes
        self._several = targets.several
        self._certify(rows, solution, float(strength))
        return self

    def _class_weights(self, targets: Targets, weight: Float64, total: Total) -> Float64:
        """The factor (N,) on the weight of each row that its class brings."""
        if self.class_weight is None:
            return np.ones(len(weight))
        if targets.values.ndim != 1:
            raise ValueError("SoftmaxRegression: class_weight needs y of shape (N,), one class for each row")
        k = len(targets.classes)
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            share = total(np.bincount(targets.values, weight, minlength=k).astype(np.float64))
            present = share > 0
            factors = np.divide(share.sum(), share * present.sum(), out=np.zeros(k), where=present)
        else:
            factors = compute_class_weight(self.class_weight, classes=targets.classes, y=targets.classes)
        return np.asarray(factors[targets.values], np.float64)

    def _strength(self, mass: float) -> float:
        """Of the penalty on the mean loss, for rows of this weight."""
        return 1 / (self.C * mass) if self.alpha is None else self.alpha

    def _penalty_scale(self, deviation: Float64) -> Float64:
        scale = np.asarray(self.feature_scale, np.float64)
        if not (np.isfinite(scale).all() and (scale > 0).all()) or scale.shape not in ((), deviation.shape):
            raise ValueError(
                f"SoftmaxRegression: feature_scale must be positive, one number or {len(deviation)}, got "
                f"{self.feature_scale!r}"
            )
        if self.standardize:
            return np.where(deviation > 0, deviation, 1.0)
        return 1 / np.broadcast_to(scale, deviation.shape)

    def _start(self, origin: Float64, k: int) -> tuple[Float64, Float64] | None:
        coef = getattr(self, "coef_", None)
        if coef is None or coef.shape != (k, len(origin)):
            return None
        return coef[None], (self.intercept_ + coef @ origin)[None] * self.fit_intercept

    def _certify(self, rows: Rows, solution: Solution, strength: float) -> None:
        """Set the certificate; warn where it does not prove what was asked for."""
        gap, value = float(solution.gap[0]), float(solution.value[0])
        plain = rows.loss == SOFTMAX_LOSS and rows.intercept and rows.target.ndim == 1 and rows.total is here
        n, d = rows.features.shape
        if strength == 0 and plain and affordable(n, d, rows.n_classes):
            gap = self._unpenalised_gap(rows)
        self.certificate_ = Certificate(float(solution.relative_gradient[0]), gap, value)
        if gap <= self.tol * value:
            return
        known = f"at most {gap:.3g} above the optimum" if gap < math.inf else "at an unknown distance from the optimum"
        stopped = f"stopped after max_iter={self.max_iter} steps, " if solution.n_iter >= self.max_iter else "ended "
        empty = self._without_weight(rows)
        if empty is not None:
            why = f"ended {known}: class {empty!r} has no weight, so its intercept has no finite optimum; leave it out"
        elif not rows.loss.convex:
            why = (
                f"{stopped}where the loss is stationary; this link's loss is not convex, so it need not be the minimum"
            )
        elif strength == 0:
            why = (
                f"without a penalty {stopped}{known}; the classes may be separable, or columns repeat each other: a "
                "penalty (C below infinity) makes the minimum one that can be found and proven"
            )
        elif solution.n_iter >= self.max_iter:
            why = f"{stopped}{known}; raise max_iter"
        else:
            why = (
                f"ended {known}: float64 resolves no more of this data; raise tol, or bring the features to like units"
            )
        warnings.warn(f"SoftmaxRegression {why}", ConvergenceWarning, stacklevel=5)

    def _without_weight(self, rows: Rows) -> Any:
        """A class none of whose rows counts, if there is one."""
        if rows.target.ndim != 1:
            return None
        share = rows.total(np.bincount(rows.target, rows.weight[:, 0], minlength=rows.n_classes).astype(np.float64))
        return None if (share > 0).all() else self.classes_[np.argmin(share)]

    def _unpenalised_gap(self, rows: Rows) -> float:
        p = softmax(self._logits(rows.features))
        weight = rows.weight[:, 0].astype(np.float64)
        residual = p * weight[:, None]
        residual[np.arange(len(p)), rows.target] -= weight
        centred = np.asarray(rows.features, np.float64) - rows.origin
        grad = np.hstack([residual.T @ centred, residual.sum(axis=0)[:, None]])
        return unpenalised_gap(centred, p, weight, grad)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits (N, K); for two classes, scikit-learn's convention: their difference (N,), second minus first."""
        z = self._logits(self._features(X))
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 and not self._several else z

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """The link's probabilities (N, K) in the order of `classes_`; rows sum to one but for the sigmoid's."""
        z = self._logits(self._features(X))
        return np.asarray((Softmax() if self.link is None else self.link).probabilities(z))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of the probabilities (N, K), exact where the probability itself underflows."""
        z = self._logits(self._features(X))
        return np.asarray((Softmax() if self.link is None else self.link).log_probabilities(z))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class (N,); after a fit on labels (N, K), those with a probability of at least 0.5."""
        z = self._logits(self._features(X))
        if self._several:
            return (z >= 0).astype(np.int64)
        p = z if row_loss(self.link or Softmax()).shifts else self.predict_proba(X)
        return np.asarray(self.classes_[np.argmax(p, axis=1)])

    def coef_relative_to(self, name: Any) -> tuple[Float64, Float64]:
        """Coefficients (K, D) and intercepts (K,) less those of one class: its own become 0, probabilities stay.

        Raises:
            ValueError: no such class, or a link whose probabilities would change.
        """
        check_is_fitted(self)
        at = self._place(name)
        return self.coef_ - self.coef_[at], self.intercept_ - self.intercept_[at]

    def inference(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        relative_to: Any = None,
        level: float = 0.95,
    ) -> Inference:
        """Standard errors, z, p and odds ratios of the coefficients relative to a class.

        Without a penalty (`C=inf`) these are maximum likelihood's. With one the covariance is H⁻¹ I H⁻¹, I being the
        Fisher information and H = I plus the penalty's curvature: the estimates' spread, not their bias towards zero.

        Args:
            X: (N, D) the features of the fit.
            sample_weight: (N,) of the fit, taken as frequencies.
            relative_to: the reference class; the first if none.
            level: of the intervals.

        Raises:
            ValueError: more than 6,000 parameters, a singular information (separable classes, repeated columns), or a
                link other than softmax.
        """
        check_is_fitted(self)
        if row_loss(self.link or Softmax()) != SOFTMAX_LOSS or not self.fit_intercept:
            raise ValueError("inference: only for the softmax link at temperature 1, with an intercept")
        features = self._features(X)
        at = 0 if relative_to is None else self._place(relative_to)
        k, d = self.coef_.shape
        if (k - 1) * (d + 1) > MOST_PARAMETERS:
            raise ValueError(
                f"inference: {(k - 1) * (d + 1):,} parameters are more than {MOST_PARAMETERS:,}; take fewer features"
            )
        weight = read_weights(sample_weight, features)
        p = softmax(self._logits(features))
        matrix = information(features, p, weight, at)
        strength = weight.sum() * self._strength(weight.sum())
        bend = np.kron(np.eye(k - 1) - 1 / k, np.diag(np.append(np.full(d, strength), 0.0)))
        if strength and (self.standardize or not np.all(np.asarray(self.feature_scale) == 1)):
            raise ValueError("inference: with a penalty, only for standardize=False and feature_scale=1")
        size = np.sqrt(np.maximum(np.diag(matrix + bend), np.finfo(np.float64).tiny))
        scaled = (matrix + bend) / size / size[:, None]
        certain = float(weight @ (1 - np.vecdot(p, p))) < 1e-6 * float(weight.sum())  # every row, of its class
        if certain or not np.linalg.eigvalsh(scaled)[0] > 1e-12:
            raise ValueError(
                "inference: the information is singular: classes are separable, or a column is constant or repeats "
                "others; take it out, or fit with a penalty"
            )
        inverse = np.linalg.inv(scaled) / size / size[:, None]
        covariance = inverse if strength == 0 else inverse @ matrix @ inverse
        coef, intercept = self.coef_relative_to(self.classes_[at])
        others = [i for i in range(k) if i != at]
        names = getattr(self, "feature_names_in_", None)
        return Inference(
            self.classes_[at],
            tuple(self.classes_[others]),
            (*(map(str, names) if names is not None else (f"x{i}" for i in range(d))), "intercept"),
            np.hstack([coef, intercept[:, None]])[others],
            np.sqrt(np.diag(covariance)).reshape(k - 1, d + 1),
            covariance,
            level,
        )

    def _place(self, name: Any) -> int:
        if not row_loss(self.link or Softmax()).shifts:
            raise ValueError(f"coefficients relative to a class have no meaning for {self.link!r}")
        found = np.flatnonzero(self.classes_ == name)
        if not len(found):
            raise ValueError(f"no class {name!r}; the classes are {', '.join(map(str, self.classes_[:20]))}")
        return int(found[0])

    def _features(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=NATIVE, order="C", reset=False))

    def _logits(self, features: NDArray[Any]) -> Float64:
        n_threads = default_threads() if self.n_threads is None else self.n_threads
        center = np.zeros(features.shape[1])
        return np.asarray(affine(features, self.coef_, self.intercept_, center, n_threads))


def read_weights(sample_weight: ArrayLike | None, features: NDArray[Any]) -> Float64:
    """The weight (N,) of each row, the caller's to change."""
    if sample_weight is None:
        return np.ones(len(features))
    return np.array(_check_sample_weight(sample_weight, features, dtype=np.float64, ensure_non_negative=True))


def read_targets(y: NDArray[Any], loss: RowLoss, classes: NDArray[Any] | None = None) -> Targets:
    """Classes, distributions or labels, told apart by shape, dtype and link; `classes` where they are known."""
    if y.ndim == 2 and y.shape[1] == 1:
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(y, warn=True)
    if y.ndim == 1:
        if y.dtype.kind not in "biu":  # whole numbers are classes
            check_classification_targets(y)
        found, ids = np.unique(y, return_inverse=True)
        if classes is not None:
            ids = np.searchsorted(classes, found)[ids]
        names = found if classes is None else classes
        if len(names) < 2:
            raise ValueError(
                f"SoftmaxRegression needs samples of at least 2 classes; the data holds one class: {names[0]!r}"
            )
        return Targets(names, ids.astype(np.int64))
    values = np.asarray(y, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("SoftmaxRegression: y of shape (N, K) must lie in [0, 1]")
    if loss.member == SIGMOID:
        return Targets(np.arange(y.shape[1]), values, several=True)
    sums = values.sum(axis=1)
    bad = np.flatnonzero(np.abs(sums - 1) > 1e-3)
    if len(bad) or y.dtype.kind != "f":
        which = f"; row {bad[0]} sums to {sums[bad[0]]:g}" if len(bad) else ""
        raise ValueError(
            "SoftmaxRegression: y of shape (N, K) must hold floating distributions that sum to 1"
            f"{which}. For several labels in a row use link=luce.links.Sigmoid()."
        )
    return Targets(np.arange(y.shape[1]), values / sums[:, None])


def smoothed(values: NDArray[Any], k: int, share: float, *, distributions: bool) -> NDArray[Any]:
    """Targets with `share` of each spread evenly; class ids as they are where there is nothing to spread."""
    if values.ndim == 1 and share == 0 and not distributions:
        return values
    q: NDArray[np.float64] = (values[:, None] == np.arange(k)).astype(np.float64) if values.ndim == 1 else values
    return q * (1 - share) + share / k if share else q


def say(n_iter: int, value: float, gap: float) -> None:
    """One line of progress."""
    print(f"SoftmaxRegression: step {n_iter}, objective {value:.8g}, gap {gap:.2g}", file=sys.stderr)
