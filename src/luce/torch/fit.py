"""From a data set to a calibrated classifier whose network was trained on it: the main road with another engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from luce.backbones import Backbone
from luce.calibration import fit_temperature
from luce.datasets import Dataset, open_dataset
from luce.heads import at_test_time, is_sparse, on_logits
from luce.links import Link, Softmax
from luce.links.parse import split_spec
from luce.torch import finetune
from luce.torch.augment import Augment, mirrors
from luce.torch.budget import epochs_within
from luce.torch.checkpoint import Checkpoint, epochs_in, identity
from luce.torch.export import to_backbone
from luce.torch.networks import NETWORKS
from luce.torch.pictures import as_pictures, features_of, set_aside
from luce.torch.recipe import Recipe, parse_settings
from luce.torch.spec import check_specs
from luce.torch.trainer import Classifier, OnEpoch, train_network
from luce.training import Options, Training
from luce.training.assemble import assemble, make_card
from luce.training.head import Head, class_weights, prior_shift
from luce.training.options import Progress, Say
from luce.training.pipeline import measured
from luce.training.ready import Ready, choose_backbone, make_ready

_GREY_SHIFT, _COLOUR_SHIFT = 0.08, 0.125
_LEAST_EPOCHS, _MOST_EPOCHS, _SEEN = 10, 50, 200_000  # pictures to be seen in all
_BATCHES = 80  # in an epoch, at least
_SHORT = 2  # epochs: so few see each picture once or twice, and gain from more steps and less variation
FROM_SCRATCH = tuple(name for name in NETWORKS if not finetune.is_meant(name))


def fit(
    data: str | os.PathLike[str] | Dataset | tuple[Any, Any],
    options: Options | None = None,
    *,
    recipe: Recipe | None = None,
    wanted: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    listeners: Sequence[OnEpoch] = (),
    progress: Progress | None = None,
    say: Say | None = None,
) -> Training:
    """Train a network on pictures, calibrate it on a tenth that it did not see, and measure it on held-out pictures.

    Args:
        data: a folder, table, array file, name or `Dataset`.
        options: how the data is split, weighted and read; its `backbone` is not used.
        recipe: how the network is trained; by default `recipe_for` the data.
        wanted: without a recipe, fields of it that are given, such as `{"network": "lenet", "epochs": 5}`.
        checkpoint: where the state is kept; whoever calls deletes it once the classifier is saved.
        resume: go on from what `checkpoint` holds.
        minutes: train for about so long, in place of a number of epochs.
        listeners: told of each epoch, see `luce.torch.log`.
        progress: called with (stage, done, total).
        say: called with sentences for the user.

    Returns:
        What `luce.training.fit` gives; the classifier is one ONNX file like any other.

    Raises:
        DataError: the data cannot be used.
        ValueError: the recipe does not suit the data or the options, no model file holds its link, or `checkpoint` is
            there and not to be resumed.
        LuceError: the checkpoint cannot be used.
    """
    began = time.perf_counter()
    options = options or Options()
    progress, say = progress or (lambda *_: None), say or (lambda _sentence: None)
    if checkpoint is not None and checkpoint.exists() != resume:
        if not resume:
            raise ValueError(
                f"{checkpoint} holds a training that was cut off: go on with --resume (resume=True), or delete it"
            )
        say(f"There is no {checkpoint} to go on from: the training begins anew.")
    dataset = open_dataset(data, progress=progress)
    options.check_names(dataset.classes)
    wanted = wanted or {}
    _check_link(recipe.link if recipe else wanted.get("link") or Softmax(), dataset, options)
    tuned = finetune.is_meant(recipe.network if recipe else wanted.get("network", "cnn"))
    if tuned:
        pixels = finetune.pixels(progress)
    else:
        pixels = choose_backbone(dataset, replace(options, backbone="none"), progress, say)
    ready, held = set_aside(make_ready(dataset, pixels, options, progress, say), options.seed)
    pictures = as_pictures(ready.train_values, pixels)
    recipe = recipe or recipe_for(dataset.classes, len(pictures), grey=pictures.shape[3] == 1, **wanted)
    if minutes is not None:
        recipe = replace(recipe, epochs=_epochs(minutes, recipe, pictures, ready, checkpoint, options))
    say(
        f"{len(pictures):,} pictures to train on, {len(ready.to_measure):,} held out, {len(dataset.classes)} classes; "
        f"network {recipe.network}, {recipe.epochs} epochs."
    )
    model = _trained(ready, held, pixels, options, recipe, checkpoint, listeners, progress, say)
    backbone = to_backbone(model, f"network:{recipe.network}", pixels.preparation)
    if tuned:
        backbone = replace(backbone, licence=finetune.embedded(progress).licence)
    head, ready = _head(model, backbone, ready, pixels, options, recipe.link, held)
    if head.temperature.note:
        say(head.temperature.note)
    evaluation = measured(ready, head, options.seed) if len(ready.to_measure) else None
    card = make_card(ready.to_train, backbone, head, evaluation, ready.problems, options)
    record = {k: v for k, v in card.training.items() if not k.startswith("penalty")}
    card = replace(card, training={**record, "network": recipe.record()})
    shown = (ready.to_measure, ready.test_values) if evaluation else (ready.to_train, ready.train_values)
    classifier = assemble(*shown, backbone, head, card, options.max_pixels)
    seconds = time.perf_counter() - began
    return Training(classifier, evaluation, len(pictures), seconds, ready.problems, ready.n_cached)


def wishes(
    *,
    network: str | None,
    link: Link | None = None,
    head: str | None = None,
    epochs: int | None = None,
    settings: str | None = None,
) -> dict[str, Any]:
    """What was asked for of a recipe, checked before any data is read.

    Args:
        network: of the recipe, with its options, to be trained from scratch; `None` for the embedded one, to be trained
            on.
        link: of the recipe.
        head: of the recipe, with its options.
        epochs: of the recipe.
        settings: others as text, see `parse_settings`.

    Raises:
        ValueError: an unknown network, head or setting, a value out of range, or `blend` from scratch.
    """
    if network is not None and split_spec("network", network)[0] not in FROM_SCRATCH:
        raise ValueError(f"network: must be one of {', '.join(FROM_SCRATCH)}, got {network!r}")
    given: dict[str, Any] = {"network": network or finetune.NETWORK, "link": link, "head": head, "epochs": epochs}
    given |= parse_settings(settings) if settings else {}
    if network is not None and given.get("blend", 1.0) != 1:
        raise ValueError(
            "recipe: blend goes with --finetune; the first weights of a network that is trained from scratch are good "
            "for nothing: leave it out"
        )
    recipe_for(("",), 1, grey=True, **given)
    return given


def recipe_for(classes: Sequence[str], n_pictures: int, *, grey: bool, **given: Any) -> Recipe:
    """The recipe that suits a data set, with any of its fields given; `None` is not given.

    An `augment` may also be a mapping: these fields of it are given, the others suit the data.

    Few pictures are seen more often, in smaller batches. Pictures are moved a little, coloured ones more; those of
    things are mirrored, those of digits and letters turned a little instead. In a training of one or two epochs they
    are varied less.

    Raises:
        ValueError: an unknown network, or a value out of range.
    """
    given = {name: value for name, value in given.items() if value is not None}
    network = given.get("network", "cnn")
    check_specs(network, given.get("head", "linear"))
    n = max(n_pictures, 1)
    short = given.get("epochs", _SHORT + 1) <= _SHORT
    if finetune.is_meant(network):
        suited = finetune.suited(classes, n, given.get("head", "linear"), given.get("link", Softmax()))
    else:
        suited = _suited(classes, n, grey=grey, short=short)
    if isinstance(given.get("augment"), Mapping):
        given["augment"] = replace(suited["augment"], **given["augment"])
    return Recipe(**{**suited, **given})


def _suited(classes: Sequence[str], n: int, *, grey: bool, short: bool) -> dict[str, Any]:
    shift = _GREY_SHIFT if grey else _COLOUR_SHIFT
    moved = Augment(shift=shift, flip=True) if mirrors(classes) else Augment(shift=shift, turn=10, zoom=0.1)
    return {
        "augment": replace(moved, shift=shift / 2, turn=0.0, zoom=0.0) if short else moved,
        "epochs": min(max(_LEAST_EPOCHS, _SEEN // n), _MOST_EPOCHS),
        "batch_size": 1 << min(max(n // _BATCHES, 16), 64 if short else 128).bit_length() - 1,
    }


def _check_link(link: Link, dataset: Dataset, options: Options) -> None:
    """Check that a model file holds a link, and that it can follow the class shares that are asked for.

    Raises:
        ValueError: it does not.
    """
    as_it_is = options.class_weight is None and options.prior == "train" and dataset.weights is None
    if is_sparse(at_test_time(link)[0]) and not as_it_is:
        raise ValueError(
            f"link: the probabilities of {link!r}, of which many are 0, cannot be corrected to other class shares: "
            "leave out class weights, prior and weights of rows, or take a link without zeros, such as softmax"
        )


def _epochs(
    minutes: float, recipe: Recipe, pictures: torch.Tensor, ready: Ready, checkpoint: Path | None, options: Options
) -> int:
    """The epochs of a training that has a time: those of the one that goes on, or as many as fit."""
    known = None if checkpoint is None else epochs_in(checkpoint)
    if known is not None:
        return known
    target = torch.from_numpy(ready.to_train.labels.astype(np.int64))
    with threads(options.threads):
        return epochs_within(minutes, recipe, pictures, target, len(ready.to_train.classes))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trained(
    ready: Ready,
    held: NDArray[np.bool_],
    pixels: Backbone,
    options: Options,
    recipe: Recipe,
    checkpoint: Path | None,
    listeners: Sequence[OnEpoch],
    progress: Progress,
    say: Say,
) -> Classifier:
    """The network, trained on the pictures that are not held, or gone on with."""
    pictures = as_pictures(ready.train_values, pixels)
    target = torch.from_numpy(ready.to_train.labels.astype(np.int64))
    n_seen = int((~held).sum())  # the first ones: a slice of many pictures is no copy
    weight = class_weights(ready.to_train, options.class_weight)
    head = None
    fitted = finetune.is_meant(recipe.network) and finetune.begins_fitted(recipe.head, recipe.link)
    if fitted and not (checkpoint and checkpoint.exists()):
        head = finetune.first_head(ready, held, pixels, options, recipe.link, progress, say)

    def on_epoch(history: tuple[dict[str, float], ...]) -> None:
        for listener in listeners:
            listener(history)
        line = history[-1]
        right = f", {line['accuracy']:.2%} of the calibration pictures right" if "accuracy" in line else ""
        done = f"Epoch {line['epoch']:.0f} of {recipe.epochs}"
        say(f"{done}: loss {line['loss']:.4f}{right}, {line['rate']:,.0f} pictures/s.")

    with threads(options.threads):
        state = None
        if checkpoint is not None:
            state = Checkpoint(checkpoint, identity(recipe, pictures[:n_seen], target[:n_seen], options.seed))
        return train_network(
            pictures[:n_seen],
            target[:n_seen],
            len(ready.to_train.classes),
            recipe,
            seed=options.seed,
            head=head,
            class_weight=None if options.class_weight is None else torch.from_numpy(weight.astype(np.float32)),
            validation=(pictures[n_seen:], target[n_seen:]),
            checkpoint=state,
            on_step=lambda done, total: progress("Training the network", done, total),
            on_epoch=on_epoch,
        )


def _head(
    model: Classifier,
    backbone: Backbone,
    ready: Ready,
    pixels: Backbone,
    options: Options,
    link: Link,
    held: NDArray[np.bool_],
) -> tuple[Head, Ready]:
    """The last layer with its temperature, and the data with the network's features."""
    weight = class_weights(ready.to_train, options.class_weight)[ready.to_train.labels]
    shift = prior_shift(ready.to_train, weight, options.prior)
    served, scale = at_test_time(link)
    weights, bias = (part.detach().double().numpy() * scale for part in model.head.linear())
    unknown = fit_temperature(np.zeros((0, len(bias))), np.zeros(0, np.int64))
    rough = Head(weights, bias, 0.0, (), unknown, served, shift)
    test, calibration = (
        features_of(backbone, pixels, values, options.threads)
        for values in (ready.test_values, ready.train_values[held])
    )
    logits = rough.logits(calibration) if len(calibration) else np.zeros((0, len(bias)))
    target = ready.to_train.labels[held]
    stated = np.exp(shift)[target] * weight[held]  # rows weighted to the stated prior
    head = replace(rough, temperature=fit_temperature(logits, target, stated, link=on_logits(served)))
    if len(test):
        return head, replace(ready, test_values=test)
    return head, replace(ready, train_values=features_of(backbone, pixels, ready.train_values, options.threads))
