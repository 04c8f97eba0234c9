"""An evaluation: what pictures with known classes say about a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from luce.datasets import Dataset, Problem
from luce.errors import ImageError
from luce.links import Link
from luce.metrics import Metrics, measure


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a classifier does on N pictures with known classes.

    Attributes:
        metrics: accuracy, NLL, Brier, calibration error, with intervals.
        classes: the K names that the classifier knows.
        target: (N,) positions in `classes`.
        probabilities: (N, K) float32.
        data: the N pictures; its own labels follow its own class order.
        problems: what was left out, and why.
    """

    metrics: Metrics
    classes: tuple[str, ...]
    target: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    data: Dataset = field(repr=False)
    problems: tuple[Problem, ...] = ()


def evaluate_logits(
    logits: NDArray[np.float64],
    target: NDArray[np.int64],
    data: Dataset,
    classes: tuple[str, ...],
    *,
    temperature: float,
    link: Link,
    problems: Sequence[Problem] = (),
    seed: int = 0,
) -> Evaluation:
    """Measure logits (N, K) of the N pictures of `data` against `target` (N,); see `Evaluation` and `measure`."""
    metrics = measure(logits, target, temperature=temperature, link=link, seed=seed)
    probabilities = link.probabilities(logits / temperature).astype(np.float32)
    return Evaluation(metrics, classes, target, probabilities, data, tuple(problems))


def join_by_name(dataset: Dataset, classes: Sequence[str]) -> tuple[Dataset, NDArray[np.int64], list[Problem]]:
    """Keep the pictures whose class a model knows.

    Args:
        dataset: pictures with their own class order.
        classes: the names that the model knows.

    Returns:
        The pictures kept, their positions in `classes`, and what does not match on either side.
    """
    position = {name: k for k, name in enumerate(classes)}
    ids = np.array([position.get(name, -1) for name in dataset.classes], np.int64)
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    problems = list(dataset.problems)
    for name, k, n in zip(dataset.classes, ids, counts, strict=True):
        if k < 0:
            reason = f"the model does not know this class; its {n} pictures are left out"
            problems.append(Problem("unknown-class", "", reason, name))
    for name in classes:
        if name not in dataset.classes:
            problems.append(Problem("missing-class", "", "the data has no picture of this class", name))
    target = ids[dataset.labels]
    kept = np.flatnonzero(target >= 0)
    return dataset.take(kept), target[kept], problems


def unreadable(dataset: Dataset, row: int, error: ImageError) -> Problem:
    """The problem that a picture of the data set cannot be read."""
    return Problem("unreadable", dataset.identifier(row), error.reason, dataset.classes[dataset.labels[row]])
