"""From a data set to a calibrated classifier: the main road, step by step."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luce.backbones import Backbone, FeatureCache, Features, Session, extract, open_backbone, open_session
from luce.classifier import ImageClassifier
from luce.datasets import Dataset, Problem, duplicates, open_dataset, split
from luce.errors import DataError, ImageError
from luce.evaluation import Evaluation, evaluate_logits, unreadable
from luce.images import MAX_PIXELS, decode
from luce.paths import cache_dir
from luce.threads import default_threads
from luce.training.assemble import assemble, make_card
from luce.training.head import ClassWeight, Prior, Progress, check_names, fit_head

SMALL_SIDE = 32  # pictures up to this size go without a network
_PROBES = 24  # pictures looked at to tell size and colour
_GATHERED_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class Options:
    """How to train. See `luce.train` for the meaning of each."""

    backbone: str | None = None
    test_share: float = 0.2
    seed: int = 0
    class_weight: ClassWeight = None
    prior: Prior = "train"
    cache: bool = True
    n_threads: int | None = None
    max_pixels: int = MAX_PIXELS
    max_unreadable: float = 0.05


@dataclass(frozen=True)
class Training:
    """What a training gives.

    Attributes:
        classifier: the result.
        evaluation: on the held-out pictures; `None` when nothing was held out.
        n_train: pictures trained on.
        seconds: wall time.
        problems: everything found in the data.
        n_cached: pictures whose features were known.
    """

    classifier: ImageClassifier
    evaluation: Evaluation | None
    n_train: int
    seconds: float
    problems: tuple[Problem, ...]
    n_cached: int


def fit(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any],
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Training:
    """Train a classifier and measure it on held-out pictures.

    Args:
        data: a folder, table, array file, name or `Dataset`.
        options: how.
        progress: called with (stage, done, total).
        say: called with sentences for the user.

    Raises:
        DataError: the data cannot be used. See `luce.train` for the rest.
    """
    began = time.perf_counter()
    options = options or Options()
    progress = progress or (lambda _stage, _done, _total: None)
    say = say or (lambda _sentence: None)
    _check(options)
    dataset = open_dataset(data, progress=progress)
    check_names(dataset.classes, options.class_weight, options.prior)
    backbone = _choose_backbone(dataset, options, progress, say)
    session = open_session(backbone.graph)
    features = _extract(dataset, backbone, session, options, progress, say)
    dataset, problems = _without_unreadable(dataset, features, options.max_unreadable)
    problems += duplicates(dataset, features.digests)
    parts = split(dataset, test_share=options.test_share, seed=options.seed, digests=features.digests)
    problems += parts.problems
    train, test = parts.train, parts.test
    dataset, train, test = _with_trained_classes(dataset, train, test, problems)
    say(f"{len(train):,} pictures to train on, {len(test):,} held out, {len(dataset.classes)} classes.")
    values = _gathered(features.values, np.concatenate([train, test]))
    train_values, test_values = values[: len(train)], values[len(train) :]
    to_train, to_measure = dataset.take(train), dataset.take(test)
    head = fit_head(
        to_train,
        train_values,
        parts.units[train],
        class_weight=options.class_weight,
        prior=options.prior,
        seed=options.seed,
        n_threads=options.n_threads or default_threads(),
        progress=progress,
    )
    if head.temperature.note:
        say(head.temperature.note)
    evaluation = None
    if len(test):
        evaluation = evaluate_logits(
            head.logits(test_values),
            to_measure.labels,
            to_measure,
            dataset.classes,
            temperature=head.temperature.value,
            problems=problems,
            seed=options.seed,
        )
    card = make_card(to_train, backbone, head, evaluation, problems, _record(options))
    shown = (to_measure, test_values) if len(test) else (to_train, train_values)
    classifier = assemble(*shown, backbone, head, card, options.max_pixels)
    return Training(
        classifier,
        evaluation,
        n_train=len(train),
        seconds=time.perf_counter() - began,
        problems=tuple(problems),
        n_cached=features.n_cached,
    )


def _gathered(values: NDArray[np.generic], order: NDArray[np.int64]) -> NDArray[np.generic]:
    """Rows of `values` in the given order, in its own memory: the features of many pictures exist only once."""
    rows = values[: len(order)]
    for start in range(0, values.shape[1], _GATHERED_COLUMNS):
        columns = slice(start, start + _GATHERED_COLUMNS)
        rows[:, columns] = values[order, columns]
    return rows


def _record(options: Options) -> dict[str, Any]:
    """What the model file says of the options."""
    weight, prior = options.class_weight, options.prior
    return {
        "class_weight": weight if weight is None or isinstance(weight, str) else dict(weight),
        "prior": prior if isinstance(prior, str) else dict(prior),
        "seed": options.seed,
    }


def _check(options: Options) -> None:
    if not 0 <= options.test_share < 1:
        raise ValueError(f"test_share must be at least 0 and below 1, got {options.test_share}")
    if not 0 <= options.max_unreadable <= 1:
        raise ValueError(f"max_unreadable must lie in 0 … 1, got {options.max_unreadable}")
    if options.n_threads is not None and options.n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {options.n_threads}")
    if isinstance(options.class_weight, str) and options.class_weight != "balanced":
        raise ValueError(f"class_weight must be None, 'balanced' or a weight by class, got {options.class_weight!r}")
    if isinstance(options.prior, str) and options.prior not in ("train", "uniform"):
        raise ValueError(f"prior must be 'train', 'uniform' or a share by class, got {options.prior!r}")


def _choose_backbone(dataset: Dataset, options: Options, progress: Progress, say: Callable[[str], None]) -> Backbone:
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


def _extract(
    dataset: Dataset,
    backbone: Backbone,
    session: Session,
    options: Options,
    progress: Progress,
    say: Callable[[str], None],
) -> Features:
    n_threads = options.n_threads or default_threads()

    def shown(done: int, total: int) -> None:
        progress("Reading pictures", done, total)

    def run_with(cache: FeatureCache | None) -> Features:
        return extract(
            dataset.sources,
            backbone,
            session,
            cache,
            n_threads=n_threads,
            max_pixels=options.max_pixels,
            progress=shown,
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


def train(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any],
    *,
    backbone: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    class_weight: ClassWeight = None,
    prior: Prior = "train",
    cache: bool = True,
    n_threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_unreadable: float = 0.05,
    progress: Progress | None = None,
) -> ImageClassifier:
    """Train a calibrated image classifier.

    The last layer, softmax regression on the features of a frozen backbone, is fitted to the optimum; its penalty is
    chosen by 5-fold cross-validation and its temperature fitted on the out-of-fold logits. The metrics in
    `classifier.card.training["metrics"]` are those of pictures that were held out of all this.

    Args:
        data: a folder with one folder of pictures per class (also below `train/`, `val/`, `test/`); a CSV or TSV file
            with the columns `path,label[,split,group,weight]`; a `.npz` file; IDX files; one of the names "digits",
            "mnist", "fashion-mnist", "cifar10"; or a `Dataset`.
        backbone: "none" (the pixels themselves), "efficientnet-lite0", the path of an ONNX file, or
            "hf:owner/repo[:file]"; `None` takes the pixels for pictures up to 32 x 32, else the embedded network.
        test_share: share of the pictures held out to measure; ignored where the data is already split.
        seed: of the split, the folds and the bootstrap.
        class_weight: `None`, "balanced", or {class name: weight}. The probabilities are corrected back to `prior`.
        prior: the shares of the classes that the probabilities assume: "train" (as in the training data), "uniform",
            or {class name: share}.
        cache: remember features by the content of the picture, so that a second training is quick.
        n_threads: `None` for one per available core.
        max_pixels: pictures with more pixels are refused.
        max_unreadable: share of unreadable pictures above which training stops; below it they are listed and left
            out, never replaced.
        progress: called with (stage, done, total).

    Returns:
        The classifier: `predict`, `predict_proba`, `evaluate`, `save`.

    Raises:
        DataError: the data cannot be used.
        ModelError, DownloadError: the backbone cannot be used.
        ValueError: an argument is out of range or names an unknown class.
    """
    options = Options(backbone, test_share, seed, class_weight, prior, cache, n_threads, max_pixels, max_unreadable)
    return fit(data, options, progress=progress).classifier
