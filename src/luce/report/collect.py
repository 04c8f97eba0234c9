"""From a training or an evaluation to what its report says."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luce.card import Card
from luce.classifier import ImageClassifier
from luce.datasets import Problem
from luce.errors import ImageError
from luce.evaluation import Evaluation
from luce.heads import on_logits, written
from luce.images import Source, decode
from luce.metrics import wilson
from luce.report.content import ClassScores, Confusion, Mistake, Report, Summary
from luce.report.render import render
from luce.training import Training

_N_MISTAKES = 24
_N_PROBLEMS = 300
_THUMBNAIL = 160  # pixels of the long side


def training_report(training: Training) -> str:
    """The HTML report of a training."""
    classifier, evaluation = training.classifier, training.evaluation
    figures = Summary(
        n_train=training.n_train,
        seconds=training.seconds,
        temperature=classifier.temperature,
        **({"n_test": 0} if evaluation is None else evaluation.metrics.to_dict()),
    )
    return render(_report(classifier.card, evaluation, figures, training.problems, held_out=True))


def evaluation_report(classifier: ImageClassifier, evaluation: Evaluation) -> str:
    """The HTML report of an evaluation on other pictures."""
    figures = Summary(
        n_train=classifier.card.training.get("n_train"),
        temperature=classifier.temperature,
        **evaluation.metrics.to_dict(),
    )
    return render(_report(classifier.card, evaluation, figures, evaluation.problems, held_out=False))


def _report(
    card: Card,
    evaluation: Evaluation | None,
    figures: Summary,
    problems: Sequence[Problem],
    *,
    held_out: bool,
) -> Report:
    k = len(card.classes)
    confusion = np.zeros((k, k), np.int64) if evaluation is None else evaluation.metrics.confusion
    note = card.calibration.get("note")
    return Report(
        title=str(card.training.get("data", "pictures")),
        subtitle=f"{k} classes, made by Luce {card.training.get('luce_version', '')}",
        summary=figures,
        reliability=() if evaluation is None else evaluation.metrics.bins,
        reliability_uncalibrated=() if evaluation is None else evaluation.metrics.bins_uncalibrated,
        confusion=Confusion(card.classes, confusion),
        per_class=_class_scores(card, confusion),
        mistakes=() if evaluation is None else _mistakes(evaluation),
        problems=problems[:_N_PROBLEMS],
        problems_total=Counter(problem.kind for problem in problems),
        how_trained=how_trained(card),
        notes=[note] if note else [],
        held_out=held_out,
        link=written(on_logits(card.link)),
    )


def _class_scores(card: Card, confusion: NDArray[np.int64]) -> list[ClassScores]:
    per_class: list[int] | None = card.training.get("n_train_per_class")
    scores = []
    for k, name in enumerate(card.classes):
        hits, truth, said = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        low, high = wilson(hits, truth)
        scores.append(
            ClassScores(
                name=name,
                n_train=per_class[k] if per_class else None,
                n_test=truth,
                precision=hits / said if said else None,
                recall=hits / truth if truth else None,
                recall_low=low if truth else None,
                recall_high=high if truth else None,
                f1=2 * hits / (truth + said) if truth + said else None,
            )
        )
    return scores


def _mistakes(evaluation: Evaluation) -> list[Mistake]:
    """The wrong pictures that the classifier was most sure of."""
    p, y = evaluation.probabilities, evaluation.target
    predicted = p.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)
    wrong = wrong[np.argsort(-p[wrong, predicted[wrong]], kind="stable")][:_N_MISTAKES]
    return [
        Mistake(
            path=evaluation.data.identifier(int(i)),
            truth=evaluation.classes[y[i]],
            predicted=evaluation.classes[predicted[i]],
            probability=float(p[i, predicted[i]]),
            truth_probability=float(p[i, y[i]]),
            thumbnail=_thumbnail(evaluation.data.pictures[i]),
        )
        for i in wrong
    ]


def _thumbnail(source: Source) -> str:
    """A small picture as a data URI; empty when the file has gone since."""
    try:
        pixels = decode(source, min_side=_THUMBNAIL).pixels
    except ImageError:
        return ""
    image = Image.fromarray(pixels)
    small = max(image.size) < _THUMBNAIL // 2
    scale = _THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if small else "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def how_trained(card: Card) -> list[tuple[str, Any]]:
    """(label, value) rows on how a model came about."""
    training, backbone, spec, calibration = card.training, card.backbone, card.preparation, card.calibration
    name = "none: the pixels themselves" if backbone["name"] == "none" else str(backbone["name"])
    if backbone.get("licence"):
        name += f", licence {backbone['licence']}"
    if backbone.get("sha256"):
        name += f", SHA-256 {str(backbone['sha256'])[:16]}…"
    fit = {"crop": f"centre crop of {spec.crop:.1%}", "squash": "the whole picture", "pad": "padded"}[spec.fit]
    rows: list[tuple[str, Any]] = [
        ("Data", training.get("data", "")),
        ("Features", f"{backbone['n_features']:,} from {name}"),
        ("Preparation", f"{fit}, resized to {spec.width} x {spec.height} ({spec.filter}), {spec.mode}"),
    ]
    if network := training.get("network"):
        rows += [("Head", f"trained with the network, {network['link']}"), ("Link", written(card.link))]
    else:
        rows.append(("Head", "softmax regression, fitted to the optimum of the penalised likelihood"))
    if "penalty" in training:
        path = training.get("penalty_path") or []
        how = f"chosen among {len(path)} by cross-validation" if path else "not chosen: too little data"
        rows.append(("Penalty", f"{training['penalty']:.3g} on standardised features, {how}"))
    if calibration.get("method") == "temperature":
        loss, name = ("nll", "NLL") if "nll_before" in calibration else ("fenchel_young", "Fenchel-Young loss")
        before, after = calibration[f"{loss}_before"], calibration[f"{loss}_after"]
        rows.append(
            (
                "Temperature",
                f"{card.temperature:.4f}, fitted on {calibration['n_rows']:,} out-of-fold predictions "
                f"({name} {before:.4f} before, {after:.4f} after)",
            )
        )
    else:
        rows.append(("Temperature", f"{card.temperature:g}, not fitted"))
    if training.get("class_weight"):
        rows.append(("Class weights", str(training["class_weight"])))
    rows.append(
        (
            "Class shares assumed",
            "as in the training data" if training.get("prior") == "train" else str(training.get("prior")),
        )
    )
    rows.append(("Seed", training.get("seed", "")))
    return rows
