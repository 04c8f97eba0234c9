"""Luce: from pictures to class probabilities you can trust.

Arrays: the softmax family as functions and, in `links`, as values with their losses. Pictures: `train` and `load` give
an `ImageClassifier`. Whatever is heavy loads when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from luce import links
from luce.errors import DataError, DownloadError, ImageError, LuceError, LuceWarning, ModelError
from luce.functions import (
    boltzmann,
    boltzmann_mean,
    boltzmann_sample,
    gumbel_softmax,
    mellowmax,
    normalize,
    relu,
    softmax_covariance,
    softmax_vjp,
    tanh,
)
from luce.links import (
    entmax,
    entmax15,
    entmax_slope,
    log_sigmoid,
    log_softmax,
    logsumexp,
    pseudo_softmax,
    sigmoid,
    sm_taylor_softmax,
    soft_margin_softmax,
    softmax,
    sparsemax,
    spherical_softmax,
    taylor_softmax,
)
from luce.losses import brier, brier_and_grad, cross_entropy, focal, focal_and_grad, linear_cross_entropy

if TYPE_CHECKING:
    from luce.classifier import ImageClassifier, Prediction
    from luce.classifier import load_classifier as load
    from luce.datasets import Dataset, open_dataset
    from luce.evaluation import Evaluation
    from luce.regression.estimator import SoftmaxRegression
    from luce.regression.estimator_cv import SoftmaxRegressionCV
    from luce.training import train

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "Dataset",
    "DownloadError",
    "Evaluation",
    "ImageClassifier",
    "ImageError",
    "LuceError",
    "LuceWarning",
    "ModelError",
    "Prediction",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "__version__",
    "boltzmann",
    "boltzmann_mean",
    "boltzmann_sample",
    "brier",
    "brier_and_grad",
    "cross_entropy",
    "entmax",
    "entmax15",
    "entmax_slope",
    "focal",
    "focal_and_grad",
    "gumbel_softmax",
    "linear_cross_entropy",
    "links",
    "load",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "mellowmax",
    "normalize",
    "open_dataset",
    "pseudo_softmax",
    "relu",
    "sigmoid",
    "sm_taylor_softmax",
    "soft_margin_softmax",
    "softmax",
    "softmax_covariance",
    "softmax_vjp",
    "sparsemax",
    "spherical_softmax",
    "tanh",
    "taylor_softmax",
    "train",
]

_LAZY = {
    "Dataset": ("luce.datasets", "Dataset"),
    "Evaluation": ("luce.evaluation", "Evaluation"),
    "ImageClassifier": ("luce.classifier", "ImageClassifier"),
    "Prediction": ("luce.classifier", "Prediction"),
    "SoftmaxRegression": ("luce.regression.estimator", "SoftmaxRegression"),
    "SoftmaxRegressionCV": ("luce.regression.estimator_cv", "SoftmaxRegressionCV"),
    "load": ("luce.classifier", "load_classifier"),
    "open_dataset": ("luce.datasets", "open_dataset"),
    "train": ("luce.training", "train"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'luce' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
