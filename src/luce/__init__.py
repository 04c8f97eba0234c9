"""Luce: from pictures to class probabilities you can trust.

Arrays: `softmax`, `log_softmax`, `logsumexp`, `cross_entropy`, and `links` for the family as values. Pictures: `train`
and `load` give an `ImageClassifier`. Whatever is heavy loads when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from luce import links
from luce.errors import DataError, DownloadError, ImageError, LuceError, LuceWarning, ModelError
from luce.links import log_softmax, logsumexp, softmax
from luce.losses import cross_entropy

if TYPE_CHECKING:
    from luce.classifier import ImageClassifier, Prediction
    from luce.classifier import load_classifier as load
    from luce.datasets import Dataset, open_dataset
    from luce.evaluation import Evaluation
    from luce.regression.estimator import SoftmaxRegression
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
    "__version__",
    "cross_entropy",
    "links",
    "load",
    "log_softmax",
    "logsumexp",
    "open_dataset",
    "softmax",
    "train",
]

_LAZY = {
    "Dataset": ("luce.datasets", "Dataset"),
    "Evaluation": ("luce.evaluation", "Evaluation"),
    "ImageClassifier": ("luce.classifier", "ImageClassifier"),
    "Prediction": ("luce.classifier", "Prediction"),
    "SoftmaxRegression": ("luce.regression.estimator", "SoftmaxRegression"),
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
