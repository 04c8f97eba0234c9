"""From a data set to rows of features: read, listed, split, ready to train on and to measure on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luce.backbones import Backbone, FeatureCache, Features, extract, open_backbone, open_session
from luce.datasets import Dataset, Problem, duplicates, split
from luce.errors import DataError, ImageError
from luce.evaluation import unreadable
from luce.images import decode
from luce.paths import cache_dir
from luce.training.options import Options, Progress, Say

SMALL_SIDE = 32  # pictures up to this size go without a network
_PROBES = 24  # pictures looked at to tell size and colour
_GATHERED_BYTES = 1 << 26  # of the columns that are gathered at once


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """Rows of features with their pictures.

    Attributes:
        to_train: the N pictures to train on; every class has one at least.
        train_values: (N, D) their features.
        units: (N,) rows with the same number must not part in cross-validation.
        to_measure: the M pictures held out, of the same classes.
        test_values: (M, D) their features.
        problems: everything found in the data.
        n_cached: pictures whose features were known.
    """

    to_train: Dataset
    train_values: NDArray[np.generic]
    units: NDArray[np.int64]
    to_measure: Dataset
    test_values: NDArray[np.generic]
    problems: tuple[Problem, ...]
    n_cached: int


def make_ready(dataset: Dataset, backbone: Backbone, options: Options, progress: Progress, say: Say) -> Ready:
    """Compute features, list what is wrong, and split.

    Args:
        dataset: every picture.
        backbone: makes the features.
        options: how to split, what to refuse, where to remember.
        progress: called with (stage, done, total).
        say: called with sentences for the user.

    Raises:
        DataError: too much is unreadable, or fewer than two classes are left to train on.
    """
    features = _extract(dataset, backbone, options, progress, say)
    dataset, problems = _without_unreadable(dataset, features, options.max_unreadable)
    problems += duplicates(dataset, features.digests)
    parts = split(dataset, test_share=options.test_share, seed=options.seed, digests=features.digests)
    problems += parts.problems
    dataset, train, test = _with_trained_classes(dataset, parts.train, parts.test, problems)
    values = gathered(features.values, np.concatenate([train, test]))
    return Ready(
        dataset.take(train),
        values[: len(train)],
        parts.units[train],
        dataset.take(test),
        values[len(train) :],
        tuple(problems),
        features.n_cached,
    )


def choose_backbone(dataset: Dataset, options: Options, progress: Progress, say: Say) -> Backbone:
    """Open the backbone that was asked for, or the one that suits the size of the pictures, and say which.

    Raises:
        DataError: none of a few pictures can be read.
        ModelError, DownloadError, ValueError: the backbone cannot be used.
    """
    size, grey = _probe(dataset, options.max_pixels)
    name = options.backbone
    if name is None:
        name = "none" if max(size) <= SMALL_SIDE else "efficientnet-lite0"
        why = "pixels, no network" if name == "none" else name
        say(f"Pictures of about {size[0]} x {size[1]} pixels: features are {why} (--backbone changes it).")
    if name == "none":
        size = (min(size[0], 2 * SMALL_SIDE), min(size[1], 2 * SMALL_SIDE))
    backbone = open_backbone(name, size, grey=grey, progress=progress)
    for note in backbone.notes:
        say(note)
    return backbone


def _probe(dataset: Dataset, max_pixels: int) -> tuple[tuple[int, int], bool]:
    """The median size (width, height) of a few pictures, and whether all of them are grey."""
    sources = dataset.sources
    sizes, grey = [], True
    for i in np.unique(np.linspace(0, len(dataset) - 1, _PROBES).astype(int)):
        try:
            picture = decode(sources[i], min_side=2 * SMALL_SIDE, max_pixels=max_pixels)
        except ImageError:
            continue
        sizes.append(picture.size)
        pixels = picture.pixels
        grey = grey and bool((pixels == pixels[..., :1]).all())
    if not sizes:
        raise DataError(f"{dataset.name}: no picture could be read; `luce check` lists the reasons")
    width, height = np.median(np.array(sizes), axis=0)
    return (int(width), int(height)), grey


def _extract(dataset: Dataset, backbone: Backbone, options: Options, progress: Progress, say: Say) -> Features:
    session = open_session(backbone.graph)

    def run_with(cache: FeatureCache | None) -> Features:
        return extract(
            dataset.sources,
            backbone,
            session,
            cache,
            n_threads=options.threads,
            max_pixels=options.max_pixels,
            progress=lambda done, total: progress("Reading pictures", done, total),
        )

    if not options.cache or backbone.name == "none":
        return run_with(None)
    with FeatureCache(cache_dir() / "features.sqlite", backbone.key, backbone.dtype, backbone.n_features) as cache:
        features = run_with(cache)
    if cache.trouble:
        say(cache.trouble)
    return features


def _without_unreadable(dataset: Dataset, features: Features, max_unreadable: float) -> tuple[Dataset, list[Problem]]:
    problems = list(dataset.problems)
    problems += [unreadable(dataset, row, error) for row, error in features.refused]
    problems += _noted(dataset, features)
    n_bad = len(features.refused)
    if n_bad > max_unreadable * len(dataset):
        first = features.refused[0][1]
        raise DataError(
            f"{dataset.name}: {n_bad} of {len(dataset)} pictures cannot be read, more than the allowed "
            f"{max_unreadable:.0%}. The first: {first}. `luce check` lists them; --max-unreadable allows more"
        )
    return dataset.take(features.rows), problems


def _noted(dataset: Dataset, features: Features) -> list[Problem]:
    """Harmless oddities, one entry for each kind with its count and an example."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for row, notes in zip(features.rows, features.notes, strict=True):
        for note in notes:
            counts[note] += 1
            example.setdefault(note, dataset.identifier(int(row)))
    return [Problem("noted", example[note], f"{note} ({n} pictures, this is one)") for note, n in counts.items()]


def _with_trained_classes(
    dataset: Dataset, train: NDArray[np.int64], test: NDArray[np.int64], problems: list[Problem]
) -> tuple[Dataset, NDArray[np.int64], NDArray[np.int64]]:
    """Leave out classes without a picture to train on, by name; the rest keep their names."""
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    kept = np.flatnonzero(counts)
    if len(kept) < 2:
        raise DataError(f"{dataset.name}: needs readable pictures of at least 2 classes to train, has {len(kept)}")
    if len(kept) == len(dataset.classes):
        return dataset, train, test
    for k in np.flatnonzero(counts == 0):
        reason = "no picture of this class to train on: the model will not know it"
        problems.append(Problem("missing-class", "", reason, dataset.classes[k]))
    position = np.full(len(dataset.classes), -1)
    position[kept] = np.arange(len(kept))
    test = test[position[dataset.labels[test]] >= 0]
    labels = np.maximum(position[dataset.labels], 0)  # rows of a class left out are in neither part
    return replace(dataset, classes=tuple(dataset.classes[k] for k in kept), labels=labels), train, test


def gathered(values: NDArray[np.generic], order: NDArray[np.int64]) -> NDArray[np.generic]:
    """Rows of `values` in the given order, in its own memory: the features of many pictures exist only once."""
    rows = values[: len(order)]
    width = max(_GATHERED_BYTES // max(rows.nbytes // rows.shape[1], 1), 1)
    for start in range(0, values.shape[1], width):
        columns = slice(start, start + width)
        rows[:, columns] = values[order, columns]
    return rows
