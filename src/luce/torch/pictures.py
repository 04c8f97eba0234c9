"""Prepared pictures as tensors: which of them are not trained on, and what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from luce.backbones import Backbone, open_session, run
from luce.datasets import folds
from luce.parallel import map_chunks
from luce.training.ready import Ready, gathered

_CALIBRATION_FOLDS = 10  # one of them is not trained on: it measures each epoch and fits the temperature
_CHUNK = 256


def held_back(ready: Ready, seed: int) -> NDArray[np.bool_]:
    """Which of the pictures to train on are kept from it, to measure each epoch and to fit the temperature."""
    labels = ready.to_train.labels
    n_folds = min(_CALIBRATION_FOLDS, len(np.unique(ready.units)))
    return folds(labels, n_folds, seed, ready.units) == 0 if n_folds > 1 else labels < 0


def as_pictures(values: NDArray[Any], pixels: Backbone) -> torch.Tensor:
    """Rows of pixels as (N, H, W, C) uint8, C being 1 for grey ones."""
    height, width = pixels.preparation.height, pixels.preparation.width
    return torch.from_numpy(values).reshape(len(values), height, width, values.shape[1] // (height * width))


def set_aside(ready: Ready, seed: int) -> tuple[Ready, NDArray[np.bool_]]:
    """The same pictures, with a tenth that is not trained on as the last of them, and which these are."""
    held = held_back(ready, seed)
    order = np.argsort(held, kind="stable")
    values = gathered(ready.train_values, order)
    ready = replace(ready, to_train=ready.to_train.take(order), train_values=values, units=ready.units[order])
    return ready, held[order]


def features_of(backbone: Backbone, pixels: Backbone, values: NDArray[Any], n_threads: int) -> NDArray[np.float32]:
    """The network's features (N, D) of rows of pixels, as the model file computes them."""
    session = open_session(backbone.graph)
    pictures = as_pictures(values, pixels).numpy()

    def part(rows: Sequence[int]) -> Sequence[NDArray[np.generic]]:
        batch = np.broadcast_to(pictures[rows[0] : rows[-1] + 1], (len(rows), *pictures.shape[1:3], 3))
        return list(run(session, np.ascontiguousarray(batch))[0])

    found = list(map_chunks(range(len(pictures)), part, chunk=_CHUNK, n_threads=n_threads))
    return np.asarray(found, np.float32).reshape(len(pictures), backbone.n_features)
