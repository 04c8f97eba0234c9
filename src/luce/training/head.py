"""The last layer: softmax regression on the features, its penalty chosen and its temperature fitted out of fold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luce import model_file
from luce.backbones import open_session, run
from luce.calibration import Temperature, fit_temperature
from luce.datasets import Dataset, folds
from luce.regression import Penalty, Rows, choose_strength, mean_and_deviation, solve

N_FOLDS = 5
_DEFAULT_STRENGTH = 0.03  # where there is too little data to choose
_FEWEST_ROWS = 10  # with fewer rows cross-validation is noise
_FINAL_TOL = 1e-6

Progress = Callable[[str, int, int], None]
ClassWeight = Literal["balanced"] | Mapping[str, float] | None
Prior = Literal["train", "uniform"] | Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A fitted head: logits = features @ weights.T + bias, for raw features.

    Attributes:
        weights: (K, D).
        bias: (K,).
        strength: of the penalty, on standardised features.
        path: (strength, out-of-fold negative log-likelihood) for every strength tried; empty when there was too
            little data to choose.
        temperature: fitted on the out-of-fold logits.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    path: tuple[tuple[float, float], ...]
    temperature: Temperature

    def graph(self, dtype: np.dtype[Any]) -> bytes:
        """The nodes that the model file holds, on their own, for features of the given dtype."""
        return model_file.build_head(self.weights, self.bias, self.temperature.value, dtype=dtype)

    def logits(self, features: NDArray[np.generic]) -> NDArray[np.float64]:
        """Logits (N, K) of features (N, D), as the model file computes them."""
        return run(open_session(self.graph(features.dtype)), features)[0].astype(np.float64)


def fit_head(
    dataset: Dataset,
    features: NDArray[np.generic],
    units: NDArray[np.int64],
    *,
    class_weight: ClassWeight,
    prior: Prior,
    seed: int,
    n_threads: int,
    progress: Progress,
) -> Head:
    """Choose the penalty by cross-validation, fit, and calibrate on the out-of-fold logits.

    Args:
        dataset: the N pictures to train on; every class has one at least.
        features: (N, D).
        units: (N,) rows with the same number stay in the same fold.
        class_weight: see `luce.train`.
        prior: see `luce.train`.
        seed: of the folds.
        n_threads: at least 1.
        progress: called with (stage, done, total).
    """
    target, n_classes = dataset.labels, len(dataset.classes)
    weight = _class_weights(dataset, class_weight)[target]
    weight = weight if dataset.weights is None else weight * dataset.weights
    shift = _prior_shift(dataset, weight, prior)
    n_folds = min(N_FOLDS, len(np.unique(units)))
    units_per_class = np.bincount(np.unique(np.stack([target, units]), axis=1)[0])
    strength = _DEFAULT_STRENGTH
    path: tuple[tuple[float, float], ...] = ()
    temperature = fit_temperature(np.zeros((0, n_classes)), target[:0])
    if len(target) >= _FEWEST_ROWS and units_per_class.max() >= 2:
        choice = choose_strength(
            features,
            target,
            weight,
            folds(target, n_folds, seed, units),
            n_classes,
            n_threads=n_threads,
            progress=lambda done, total: progress("Choosing the penalty", done, total),
        )
        strength, path = choice.strength, choice.path
        stated = np.exp(shift)[target] * weight  # rows weighted to the stated prior
        known = choice.known
        temperature = fit_temperature(choice.logits[known] + shift, target[known], stated[known])
    progress("Fitting", 0, 1)
    weights, bias = _fit(features, target, weight / weight.sum(), n_classes, strength, n_threads)
    progress("Fitting", 1, 1)
    bias = bias + shift
    return Head(weights, bias - bias.mean(), strength, path, temperature)


def _fit(
    features: NDArray[np.generic],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    n_classes: int,
    strength: float,
    n_threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K, D) and bias (K,) for raw features."""
    center, deviation = mean_and_deviation(features, weight)
    rows = Rows(features, target, weight[:, None], center, n_classes, n_threads)
    scale = np.where(deviation > 0, deviation, 1.0)
    solution = solve(rows, Penalty(strength, scale), deviation, tol=_FINAL_TOL)
    weights = solution.weights[0]
    return weights, solution.bias[0] - weights @ center


def _class_weights(dataset: Dataset, wanted: ClassWeight) -> NDArray[np.float64]:
    """Weight of each class (K,)."""
    n_classes = len(dataset.classes)
    if wanted is None:
        return np.ones(n_classes)
    if isinstance(wanted, str):
        return np.asarray(len(dataset) / (n_classes * np.bincount(dataset.labels, minlength=n_classes)))
    return np.array([wanted.get(name, 1.0) for name in dataset.classes])


def _prior_shift(dataset: Dataset, weight: NDArray[np.float64], prior: Prior) -> NDArray[np.float64]:
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


def check_names(classes: tuple[str, ...], class_weight: ClassWeight, prior: Prior) -> None:
    """Check class weights and prior against the classes of the data, before any work is done.

    Raises:
        ValueError: an unknown class, a class without a share, or a value that is not positive and finite.
    """
    for what, values in (("class_weight", class_weight), ("prior", prior)):
        if values is None or isinstance(values, str):
            continue
        for name, value in values.items():
            if name not in classes:
                listed = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
                raise ValueError(f"{what}: no class {name!r}; the classes are {listed}")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{what}: values must be positive numbers, got {value} for {name!r}")
        missing = [name for name in classes if name not in values]
        if missing and what == "prior":
            raise ValueError(f"prior: class {missing[0]!r} has no share; every class needs one")
