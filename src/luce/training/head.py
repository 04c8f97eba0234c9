"""The last layer: softmax regression on the features, its penalty chosen and its temperature fitted out of fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce import model_file
from luce.backbones import open_session, run
from luce.calibration import Temperature, fit_temperature
from luce.datasets import Dataset, folds
from luce.links import Link, Softmax
from luce.regression import Penalty, Rows, choose_strength, mean_and_deviation, solve, standard
from luce.training.options import ClassWeight, Options, Prior, Progress

N_FOLDS = 5
_DEFAULT_STRENGTH = 0.03  # where there is too little data to choose
_FEWEST_ROWS = 10  # with fewer rows cross-validation is noise
_FINAL_TOL = 1e-4  # of the objective, proven


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A fitted head: scores = features @ weights.T + bias, for raw features, and what `luce.heads` puts behind them.

    Attributes:
        weights: (K, D).
        bias: (K,).
        strength: of the penalty, on standardised features.
        path: (strength, out-of-fold negative log-likelihood) for every strength tried; empty when there was too
            little data to choose.
        temperature: fitted on the out-of-fold logits.
        link: at test time.
        shift: (K,) added to the logarithms of the probabilities, for other class shares.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    path: tuple[tuple[float, float], ...]
    temperature: Temperature
    link: Link = field(default_factory=Softmax)
    shift: NDArray[np.float64] | None = None

    def graph(self, dtype: np.dtype[Any]) -> bytes:
        """The nodes that the model file holds, on their own, for features of the given dtype."""
        return model_file.build_head(
            self.weights, self.bias, self.temperature.value, dtype=dtype, link=self.link, shift=self.shift
        )

    def logits(self, features: NDArray[np.generic]) -> NDArray[np.float64]:
        """Logits (N, K) of features (N, D), as the model file computes them."""
        return run(open_session(self.graph(features.dtype)), features)[0].astype(np.float64)


def fit_head(
    dataset: Dataset,
    features: NDArray[np.generic],
    units: NDArray[np.int64],
    options: Options,
    progress: Progress,
) -> Head:
    """Choose the penalty by cross-validation, fit, and calibrate on the out-of-fold logits.

    Args:
        dataset: the N pictures to train on; every class has one at least.
        features: (N, D).
        units: (N,) rows with the same number stay in the same fold.
        options: class weights, prior, seed of the folds, threads.
        progress: called with (stage, done, total).
    """
    target, n_classes = dataset.labels, len(dataset.classes)
    weight = class_weights(dataset, options.class_weight)[target]
    weight = weight if dataset.weights is None else weight * dataset.weights
    shift = prior_shift(dataset, weight, options.prior)
    n_folds = min(N_FOLDS, len(np.unique(units)))
    units_per_class = np.bincount(np.unique(np.stack([target, units]), axis=1)[0])
    strength, start, basis = _DEFAULT_STRENGTH, None, None
    path: tuple[tuple[float, float], ...] = ()
    temperature = fit_temperature(np.zeros((0, n_classes)), target[:0])
    if len(target) >= _FEWEST_ROWS and units_per_class.max() >= 2:
        choice = choose_strength(
            features,
            target,
            weight,
            folds(target, n_folds, options.seed, units),
            n_classes,
            n_threads=options.threads,
            progress=lambda done, total: progress("Choosing the penalty", done, total),
        )
        strength, path, start, basis = choice.strength, choice.path, choice.mean, choice.features
        stated = np.exp(shift)[target] * weight  # rows weighted to the stated prior
        known = choice.known
        temperature = fit_temperature(choice.logits[known] + shift, target[known], stated[known])
    progress("Fitting", 0, 1)
    share = weight / weight.sum()
    center, deviation = mean_and_deviation(features, share, options.threads)
    rows = Rows(features, target, share[:, None], center, n_classes, n_threads=options.threads)
    penalty = Penalty(np.array([strength]), standard(deviation))
    solution = solve(rows, penalty, deviation, features=basis, start=start, tol=_FINAL_TOL)
    weights = solution.weights[0]
    bias = solution.bias[0] - weights @ center + shift
    progress("Fitting", 1, 1)
    return Head(weights, bias - bias.mean(), strength, path, temperature)


def class_weights(dataset: Dataset, wanted: ClassWeight) -> NDArray[np.float64]:
    """Weight of each class (K,)."""
    n_classes = len(dataset.classes)
    if wanted is None:
        return np.ones(n_classes)
    if isinstance(wanted, str):
        return np.asarray(len(dataset) / (n_classes * np.bincount(dataset.labels, minlength=n_classes)))
    return np.array([wanted.get(name, 1.0) for name in dataset.classes])


def prior_shift(dataset: Dataset, weight: NDArray[np.float64], prior: Prior) -> NDArray[np.float64]:
    """What to add to the logits so that they follow the stated prior: log(stated / trained with), (K,).

    Weights change the class shares that the model believes in; this takes them back.
    """
    n_classes = len(dataset.classes)
    trained = np.bincount(dataset.labels, weight, minlength=n_classes)
    if prior == "train":
        stated = np.bincount(dataset.labels, dataset.weights, minlength=n_classes).astype(float)
    elif isinstance(prior, str):
        stated = np.ones(n_classes)
    else:
        stated = np.array([prior[name] for name in dataset.classes])
    return np.asarray(np.log(stated / stated.sum()) - np.log(trained / trained.sum()))
