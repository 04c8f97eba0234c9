"""From a data set to a calibrated classifier: the main road, step by step."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from luce.classifier import ImageClassifier
from luce.datasets import Dataset, Problem, open_dataset
from luce.evaluation import Evaluation, evaluate_logits
from luce.heads import on_logits
from luce.images import MAX_PIXELS
from luce.training.assemble import assemble, make_card
from luce.training.head import Head, fit_head
from luce.training.options import ClassWeight, Options, Prior, Progress, Say
from luce.training.ready import Ready, choose_backbone, make_ready


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
    say: Say | None = None,
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
    dataset = open_dataset(data, progress=progress)
    options.check_names(dataset.classes)
    backbone = choose_backbone(dataset, options, progress, say)
    ready = make_ready(dataset, backbone, options, progress, say)
    n_train, n_test = len(ready.to_train), len(ready.to_measure)
    say(f"{n_train:,} pictures to train on, {n_test:,} held out, {len(ready.to_train.classes)} classes.")
    head = fit_head(ready.to_train, ready.train_values, ready.units, options, progress)
    if head.temperature.note:
        say(head.temperature.note)
    evaluation = measured(ready, head, options.seed) if n_test else None
    card = make_card(ready.to_train, backbone, head, evaluation, ready.problems, options)
    shown = (ready.to_measure, ready.test_values) if n_test else (ready.to_train, ready.train_values)
    classifier = assemble(*shown, backbone, head, card, options.max_pixels)
    seconds = time.perf_counter() - began
    return Training(classifier, evaluation, n_train, seconds, ready.problems, ready.n_cached)


def measured(ready: Ready, head: Head, seed: int) -> Evaluation:
    """Measure a head on the held-out features."""
    return evaluate_logits(
        head.logits(ready.test_values),
        ready.to_measure.labels,
        ready.to_measure,
        ready.to_measure.classes,
        temperature=head.temperature.value,
        link=on_logits(head.link),
        problems=ready.problems,
        seed=seed,
    )


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
