"""A time to train in, as a number of epochs: the schedule must know its end before it begins."""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from luce.torch.recipe import Recipe
from luce.torch.trainer import train_network

_STEPS = 8  # that are measured


def epochs_within(minutes: float, recipe: Recipe, pictures: Tensor, target: Tensor, n_classes: int) -> int:
    """How many epochs fit into a time, at least 1, by the speed of some steps of a network that is thrown away.

    Args:
        minutes: positive.
        recipe: how it is to be trained.
        pictures: (N, H, W, C) uint8 of the training.
        target: (N,) class ids.
        n_classes: K.
    """
    few = min(len(pictures), _STEPS * recipe.batch_size)
    once = replace(recipe, epochs=1, patience=0)
    for _ in range(2):  # the first time the kernels are chosen
        began = time.monotonic()
        train_network(pictures[:few], target[:few], n_classes, once)
        seconds = time.monotonic() - began
    return max(1, int(60 * minutes / (seconds * len(pictures) / few)))
