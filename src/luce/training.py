"""From a data set to a calibrated classifier: the main road, step by step."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from luce import model_file
from luce.backbones import (
    Backbone,
    FeatureCache,
    Features,
    Session,
    extract,
    open_backbone,
    open_session,
    run,
)
from luce.calibration import Temperature, fit_temperature
from luce.classifier import Evaluation, ImageClassifier, make_evaluation, unreadable
from luce.datasets import Dataset, Problem, duplicates, folds, open_dataset, split
from luce.errors import DataError, ImageError, ModelError
from luce.images import MAX_PIXELS, decode, load
from luce.metrics import measure
from luce.model_file import Card, Golden
from luce.paths import cache_dir
from luce.regression import Penalty, Rows, choose_strength, mean_and_deviation, solve
from luce.threads import default_threads

SMALL_SIDE = 32  # pictures up to this size go without a network
N_FOLDS = 5
_PROBES = 24  # pictures looked at to tell size and colour
_DEFAULT_STRENGTH = 0.03  # where there is too little data to choose
_FINAL_TOL = 1e-6
_N_GOLDEN = 3
_HEAD_TOLERANCE = 1e-5

Progress = Callable[[str, int, int], None]
ClassWeight = Literal["balanced"] | Mapping[str, float] | None
Prior = Literal["train", "uniform"] | Mapping[str, float]


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
        n_train_per_class: (K,).
        seconds: wall time.
        problems: everything found in the data.
        n_cached: pictures whose features were known.
    """

    classifier: ImageClassifier
    evaluation: Evaluation | None
    n_train: int
    n_train_per_class: NDArray[np.int64]
    seconds: float
    problems: tuple[Problem, ...]
    n_cached: int


@dataclass(frozen=True)
class _Head:
    """A fitted head: logits = features @ weights.T + bias, for raw features."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    path: tuple[tuple[float, float], ...]
    temperature: Temperature


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
    head = _fit_head(dataset, features, train, parts.units[train], options, progress)
    if head.temperature.note:
        say(head.temperature.note)
    logits = _head_logits(head, features.values[test], backbone) if len(test) else None
    evaluation = None
    if logits is not None:
        metrics = measure(logits, dataset.labels[test], temperature=head.temperature.value, seed=options.seed)
        evaluation = make_evaluation(
            metrics,
            dataset.classes,
            dataset.labels[test],
            logits,
            head.temperature.value,
            dataset,
            test,
            problems,
        )
    card = _card(dataset, backbone, head, options, evaluation, train, problems)
    classifier = _assemble(dataset, backbone, head, card, features, test if len(test) else train, options)
    seconds = time.perf_counter() - began
    per_class = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    return Training(classifier, evaluation, len(train), per_class, seconds, tuple(problems), features.n_cached)


def _check(options: Options) -> None:
    if not 0 <= options.test_share < 1:
        raise ValueError(f"test_share must be at least 0 and below 1, got {options.test_share}")
    if not 0 <= options.max_unreadable <= 1:
        raise ValueError(f"max_unreadable must lie in 0 … 1, got {options.max_unreadable}")
    if options.n_threads is not None and options.n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {options.n_threads}")


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


def _fit_head(
    dataset: Dataset,
    features: Features,
    train: NDArray[np.int64],
    units: NDArray[np.int64],
    options: Options,
    progress: Progress,
) -> _Head:
    """Choose the penalty by cross-validation, fit, and calibrate on the out-of-fold logits."""
    n_threads = options.n_threads or default_threads()
    target = dataset.labels[train]
    n_classes = len(dataset.classes)
    values = features.values if len(train) == len(features.values) else features.values[train]
    class_weight = _class_weights(dataset, target, options.class_weight)
    weight = class_weight[target] * (1.0 if dataset.weights is None else dataset.weights[train])
    shift = _prior_shift(dataset, target, weight, options.prior)
    n_folds = min(N_FOLDS, len(np.unique(units)), int(np.bincount(target).min()))
    strength, path = _DEFAULT_STRENGTH, ()
    temperature = fit_temperature(np.zeros((0, n_classes)), target[:0])
    if n_folds >= 2:
        fold = folds(target, n_folds, options.seed, units)
        choice = choose_strength(
            values,
            target,
            weight,
            fold,
            n_classes,
            n_threads=n_threads,
            progress=lambda done, total: progress("Choosing the penalty", done, total),
        )
        strength, path = choice.strength, choice.path
        stated = np.exp(shift)[target] * weight  # rows weighted to the stated prior
        temperature = fit_temperature(choice.logits + shift, target, stated)
    weight = weight / weight.sum()
    center, deviation = mean_and_deviation(values, weight)
    rows = Rows(values, target, weight[:, None], center, n_classes, n_threads)
    scale = np.where(deviation > 0, deviation, 1.0)
    progress("Fitting", 0, 1)
    solution = solve(rows, Penalty(strength, scale), deviation, tol=_FINAL_TOL)
    progress("Fitting", 1, 1)
    bias = solution.bias[0] - solution.weights[0] @ center + shift
    return _Head(solution.weights[0], bias - bias.mean(), strength, path, temperature)


def _class_weights(dataset: Dataset, target: NDArray[np.int64], wanted: ClassWeight) -> NDArray[np.float64]:
    """Weight of each class (K,)."""
    n_classes = len(dataset.classes)
    if wanted is None:
        return np.ones(n_classes)
    if wanted == "balanced":
        return np.asarray(len(target) / (n_classes * np.bincount(target, minlength=n_classes)))
    return _by_name("class_weight", dataset.classes, wanted, missing=1.0)


def _prior_shift(
    dataset: Dataset, target: NDArray[np.int64], weight: NDArray[np.float64], prior: Prior
) -> NDArray[np.float64]:
    """What to add to the logits so that they follow the stated prior: log(stated / trained with), (K,).

    Weights change the class shares that the model believes in; this takes them back.
    """
    n_classes = len(dataset.classes)
    counts = np.bincount(target, minlength=n_classes).astype(float)
    trained = np.bincount(target, weight, minlength=n_classes)
    if prior == "train":
        stated = counts
    elif prior == "uniform":
        stated = np.ones(n_classes)
    else:
        stated = _by_name("prior", dataset.classes, prior, missing=None)
    return np.asarray(np.log(stated / stated.sum()) - np.log(trained / trained.sum()))


def _by_name(
    what: str, classes: tuple[str, ...], values: Mapping[str, float], *, missing: float | None
) -> NDArray[np.float64]:
    unknown = [name for name in values if name not in classes]
    if unknown:
        raise ValueError(f"{what}: no class {unknown[0]!r}; the classes are {', '.join(classes[:20])}")
    absent = [name for name in classes if name not in values]
    if absent and missing is None:
        raise ValueError(f"{what}: class {absent[0]!r} has no value; every class needs one")
    out = np.array([values.get(name, missing) for name in classes], float)
    if not (np.isfinite(out) & (out > 0)).all():
        raise ValueError(f"{what}: values must be positive numbers, got {dict(values)}")
    return out


def _head_logits(head: _Head, values: NDArray[np.generic], backbone: Backbone) -> NDArray[np.float64]:
    """Logits (N, K) by the nodes that the model file holds."""
    graph = model_file.build_head(head.weights, head.bias, head.temperature.value, dtype=backbone.dtype)
    return run(open_session(graph), values)[0].astype(np.float64)


def _assemble(
    dataset: Dataset,
    backbone: Backbone,
    head: _Head,
    card: Card,
    features: Features,
    candidates: NDArray[np.int64],
    options: Options,
) -> ImageClassifier:
    """Build the model file, with golden vectors from pictures it must agree on with the features used above."""
    plain = ImageClassifier.from_bytes(model_file.build(backbone.graph, head.weights, head.bias, card))
    graph = model_file.build_head(head.weights, head.bias, head.temperature.value, dtype=backbone.dtype)
    session = open_session(graph)
    golden = []
    sources = dataset.sources
    for i in np.unique(np.linspace(0, len(candidates) - 1, _N_GOLDEN).astype(int)):
        row = candidates[i]
        try:
            pixels = load(sources[row], backbone.preparation, max_pixels=options.max_pixels)[0]
        except ImageError:  # vanished since it was read
            continue
        probabilities = plain.run(pixels[None])[1][0]
        expected = run(session, features.values[row : row + 1])[1][0]
        worst = float(np.abs(probabilities - expected).max())
        if not worst <= _HEAD_TOLERANCE:
            raise ModelError(
                f"{dataset.identifier(int(row))}: the model gives probabilities that differ by {worst:.2g} from those "
                "it was measured with; the cached features are stale: train again with --no-cache"
            )
        golden.append(Golden(pixels, probabilities.astype(np.float32)))
    data = model_file.build(backbone.graph, head.weights, head.bias, card, golden)
    return ImageClassifier.from_bytes(data)


def _card(
    dataset: Dataset,
    backbone: Backbone,
    head: _Head,
    options: Options,
    evaluation: Evaluation | None,
    train: NDArray[np.int64],
    problems: list[Problem],
) -> Card:
    from luce import __version__

    t = head.temperature
    fitted = t.n_rows > 0 and not t.note.startswith("Too little")
    training: dict[str, Any] = {
        "luce_version": __version__,
        "data": dataset.name,
        "n_train": len(train),
        "n_train_per_class": np.bincount(dataset.labels[train], minlength=len(dataset.classes)).tolist(),
        "penalty": head.strength,
        "penalty_path": [list(point) for point in head.path],
        "class_weight": options.class_weight
        if options.class_weight in (None, "balanced")
        else dict(options.class_weight),  # type: ignore[arg-type]
        "prior": options.prior if isinstance(options.prior, str) else dict(options.prior),
        "seed": options.seed,
        "problems": dict(Counter(problem.kind for problem in problems)),
    }
    if evaluation is not None:
        training["metrics"] = summary(evaluation)
    return Card(
        classes=dataset.classes,
        preparation=backbone.preparation,
        backbone={
            "name": backbone.name,
            "sha256": backbone.sha256,
            "licence": backbone.licence,
            "n_features": backbone.n_features,
        },
        temperature=t.value,
        calibration={
            "method": "temperature" if fitted else "none",
            "n_rows": t.n_rows,
            "nll_before": t.nll_before if t.n_rows else None,
            "nll_after": t.nll_after if t.n_rows else None,
            "note": t.note,
        },
        training=training,
    )


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of an evaluation, as plain numbers for JSON."""
    m = evaluation.metrics
    return {
        "n_test": m.n,
        "accuracy": m.accuracy.value,
        "accuracy_low": m.accuracy.low,
        "accuracy_high": m.accuracy.high,
        "nll": m.nll.value,
        "nll_low": m.nll.low,
        "nll_high": m.nll.high,
        "nll_uncalibrated": m.nll_uncalibrated.value,
        "brier": m.brier.value,
        "brier_low": m.brier.low,
        "brier_high": m.brier.high,
        "ece": m.ece.value,
        "ece_low": m.ece.low,
        "ece_high": m.ece.high,
        "ece_uncalibrated": m.ece_uncalibrated.value,
        "ece_uncalibrated_low": m.ece_uncalibrated.low,
        "ece_uncalibrated_high": m.ece_uncalibrated.high,
    }


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
