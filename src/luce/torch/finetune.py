"""The embedded backbone trained on with the user's pictures: what differs from a network trained from scratch.

The last layer begins at the softmax regression on the features as they are, and not at random, which would spoil them
before it is of use (Kumar et al. 2022, arXiv 2202.10054). The result lies half-way between these first weights and the
trained ones (Wortsman et al. 2022, arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luce.backbones import Backbone, open_backbone
from luce.heads import at_test_time
from luce.links import Link, Softmax
from luce.links.parse import split_spec
from luce.torch.augment import Augment, mirrors
from luce.torch.pictures import features_of
from luce.training import Options
from luce.training.head import class_weights, fit_head, prior_shift
from luce.training.options import Progress, Say
from luce.training.ready import Ready

_NAME = "efficientnet_lite0"
NETWORK: Final = f"{_NAME}:frozen=3"  # parts that stay as they are: the stem and two stages
_VARIED: Final = Augment(crop=0.5, mixup=0.2, side=160)  # 160 pixels of parts show things as large as 224 of the whole
_LEAST_EPOCHS, _MOST_EPOCHS, _SEEN = 5, 30, 30_000  # pictures to be seen in all
_RATE, _AVERAGE, _BLEND = 4e-4, 1.0, 0.5


def embedded(progress: Progress) -> Backbone:
    """The backbone that the network begins as."""
    return open_backbone("efficientnet-lite0", (0, 0), grey=False, progress=progress)


def pixels(progress: Progress) -> Backbone:
    """Pixels as the embedded backbone takes them."""
    spec = embedded(progress).preparation
    found = open_backbone("none", (spec.width, spec.height), grey=False, progress=progress)
    assert found.preparation == spec
    return found


def is_meant(network: str) -> bool:
    """Whether a recipe's network is the embedded one."""
    return split_spec("network", network)[0] == _NAME


def begins_fitted(head: str, link: Link) -> bool:
    """Whether the last layer begins at softmax regression: not where it is of another kind, which begins at random."""
    return head == "linear" and at_test_time(link)[0] == Softmax()


def suited(classes: Sequence[str], n: int, head: str, link: Link) -> dict[str, Any]:
    """Fields of a recipe that suit n photos of these classes: a head with a margin takes no mixed targets."""
    mixed = split_spec("head", head)[0] == "linear"
    return {
        "augment": replace(_VARIED, flip=mirrors(classes), mixup=_VARIED.mixup if mixed else 0.0),
        "epochs": min(max(_SEEN // n, _LEAST_EPOCHS), _MOST_EPOCHS),
        "batch_size": 32,
        "learning_rate": _RATE,
        "average": _AVERAGE,
        "blend": _BLEND if begins_fitted(head, link) else 1.0,
        "label_smoothing": 0.1 if mixed else 0.0,
    }


def first_head(
    ready: Ready,
    held: NDArray[np.bool_],
    pixels: Backbone,
    options: Options,
    link: Link,
    progress: Progress,
    say: Say,
) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K,) of softmax regression on the embedded backbone's features, if `begins_fitted`.

    It is fitted as a network is trained, to no stated prior, and rows count alike.

    Args:
        ready: N pictures, and their pixels.
        held: (N,) those that are not trained on.
        pixels: what prepared them.
        options: class weights, seed, threads.
        link: whose loss is minimised.
        progress: called with (stage, done, total).
        say: called with sentences for the user.
    """
    scale = at_test_time(link)[1]
    features = features_of(embedded(progress), pixels, ready.train_values, options.threads)
    data = replace(ready.to_train.take(np.flatnonzero(~held)), weights=None)
    head = fit_head(data, features[~held], ready.units[~held], options, progress)
    weight = class_weights(data, options.class_weight)[data.labels]
    bias = head.bias - prior_shift(data, weight, options.prior)
    if held.any():
        found = (features[held] @ head.weights.T + bias).argmax(1)
        right = float((found == ready.to_train.labels[held]).mean())
        say(f"Before the first epoch {right:.2%} of the calibration pictures are right, by softmax regression.")
    return torch.from_numpy(head.weights / scale).float(), torch.from_numpy(bias / scale).float()
