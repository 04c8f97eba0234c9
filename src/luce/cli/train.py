"""`luce train`: a data set becomes a calibrated model file and a report."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from luce.cli import interrupt
from luce.cli.console import (
    Json,
    Quiet,
    Threads,
    file_size,
    named_numbers,
    needs_torch,
    print_json,
    print_metrics,
    reporter,
)

EXAMPLES = (
    ("luce train photos -o pets.onnx", "photos/cat/1.jpg, photos/dog/2.jpg, …"),
    ("luce train labels.csv -o pets.onnx", "columns path,label[,split,group,weight]"),
    ("luce train digits -o digits.onnx", "also mnist, fashion-mnist, cifar10"),
    ("luce train photos -o pets.onnx --class-weight balanced", "rare classes count as much as frequent ones"),
    ("luce train photos -o pets.onnx --backbone hf:owner/repo", "features of another network"),
    ("luce train photos -o pets.onnx --finetune", "slower, more often right: the embedded network learns too"),
    ("luce train mnist -o mnist.onnx --network cnn", "a network trained from scratch; needs PyTorch"),
)


def train(
    data: str,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    backbone: str | None = None,
    finetune: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    network: str | None = None,
    link: str | None = None,
    temperature: Annotated[float | None, Parameter(show_default=False)] = None,
    head: Annotated[str | None, Parameter(show_default=False)] = None,
    epochs: int | None = None,
    minutes: Annotated[float | None, Parameter(show_default=False)] = None,
    recipe: Annotated[str | None, Parameter(show_default=False)] = None,
    resume: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    log: Annotated[Path | None, Parameter(show_default=False)] = None,
    tensorboard: Annotated[Path | None, Parameter(show_default=False)] = None,
    test_share: float = 0.2,
    seed: int = 0,
    class_weight: str | None = None,
    prior: str = "train",
    report: Path | None = None,
    no_report: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    no_cache: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    max_unreadable: float = 0.05,
    max_pixels: int = 100_000_000,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a calibrated classifier from pictures.

    A part of the pictures is held out and measures the result. The penalty of the softmax regression is chosen by
    cross-validation, the temperature is fitted on predictions for pictures that the model did not see.

    Args:
        data: A folder with one folder of pictures per class (also below train/, val/, test/), a .csv or .tsv table,
            a .npz file, a folder of IDX files, or the name of a known data set.
        output: The model file to write; without it only the measurement is shown.
        backbone: What turns pictures into features: none (the pixels), efficientnet-lite0, a path to an .onnx file,
            or hf:owner/repo[:file]. By default the pixels for pictures up to 32 x 32, else efficientnet-lite0.
        finetune: Train the embedded network efficientnet-lite0 on with these pictures, not only the last layer. Takes
            minutes instead of seconds. Needs PyTorch, as --network does.
        network: Train this network from scratch in place of a frozen backbone: lenet, cnn, fastcnn, vgg, resnet,
            inception, vit or moe. Needs PyTorch: pip install 'luce[torch]'. Its state is kept beside the model file
            while it trains.
        link: Whose loss the network minimises and whose probabilities the model gives: softmax, taylor, soft-margin,
            sm-taylor, spherical, sparsemax, entmax or pseudo, with parameters, such as taylor:degree=4,
            entmax:alpha=1.5 or soft-margin:margin=0.6,temperature=4.
        temperature: Divides the logits while the network is trained, whatever the link.
        head: A last layer that is trained with a margin: large-margin, sphereface, cosface, arcface or ensemble-margin,
            with options such as arcface:margin=0.3.
        epochs: How often the network sees every picture; by default 5 to 30 with --finetune, 10 to 50 with --network,
            more for fewer pictures.
        minutes: Train for about so long, in place of a number of epochs.
        recipe: How else the network is trained, NAME=VALUE,NAME=VALUE, such as mixup=0.2,patience=5.
        resume: Go on with a training of a network that was cut off; it ends with the same weights.
        log: A file that gets a line of JSON after each epoch of a network.
        tensorboard: A folder for TensorBoard, which must be installed: tensorboard --logdir FOLDER.
        test_share: Share of the pictures that is held out to measure; ignored where the data is already split.
        seed: Of the split, the folds and the bootstrap intervals.
        class_weight: "balanced", or NAME=WEIGHT,NAME=WEIGHT. Probabilities are corrected back to --prior.
        prior: Class shares that the probabilities assume: train, uniform, or NAME=SHARE,NAME=SHARE.
        report: Where the HTML report goes; by default beside the model file.
        no_report: Write no report.
        no_cache: Compute the features of every picture anew and do not remember them.
        max_unreadable: Share of unreadable pictures above which training stops.
        max_pixels: Pictures with more pixels are refused.
        threads: Number of threads; by default one per available core.
        json: Print one JSON object with the figures.
        quiet: No progress, no sentences.
    """
    from luce import training
    from luce.files import check_writable

    if output is not None:
        check_writable(output)
    report = None if no_report else report or (output and output.with_suffix(".html"))
    if report is not None:
        check_writable(report)
    options = training.Options(
        backbone=backbone,
        test_share=test_share,
        seed=seed,
        class_weight=_class_weight(class_weight),
        prior=_prior(prior),
        cache=not no_cache,
        n_threads=threads,
        max_pixels=max_pixels,
        max_unreadable=max_unreadable,
    )
    fit: Any = training.fit
    checkpoint = None
    of_network = {
        "--link": link,
        "--temperature": temperature,
        "--head": head,
        "--epochs": epochs,
        "--minutes": minutes,
        "--recipe": recipe,
        "--resume": resume,
        "--log": log,
        "--tensorboard": tensorboard,
    }
    if finetune or network is not None:
        checkpoint = output and output.with_suffix(".checkpoint")
        _check_network(network, backbone, output, finetune=finetune, resume=resume)
        wanted = _wishes(network, link, temperature, head, epochs, minutes, recipe)
        listeners = _listeners(log, tensorboard)
        from luce.torch.fit import fit as fit_network

        fit = functools.partial(
            fit_network, wanted=wanted, checkpoint=checkpoint, resume=resume, minutes=minutes, listeners=listeners
        )
    else:
        for option, value in of_network.items():
            if value:
                raise ValueError(f"{option} belongs to the training of a network: add --finetune or --network NAME")
    with reporter(quiet=quiet) as console:
        result = fit(data, options, progress=console.progress, say=console.say)
        interrupt.check()
        if output is not None:
            result.classifier.save(output)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        if report is not None:
            from luce.files import write_atomically
            from luce.report import training_report

            write_atomically(report, training_report(result))
    if json:
        print_json(_figures(result))
    else:
        _print_summary(result, output, report)
    return 0


def _check_network(
    network: str | None, backbone: str | None, output: Path | None, *, finetune: bool, resume: bool
) -> None:
    """Refuse what does not go together, and a Python without PyTorch."""
    if finetune and network is not None:
        raise ValueError("--finetune trains the embedded network on and --network one from scratch: give one of them")
    if finetune and backbone not in (None, "efficientnet-lite0"):
        raise ValueError(f"--finetune trains efficientnet-lite0 on, not {backbone}: leave --backbone or --finetune out")
    if network is not None and backbone is not None:
        raise ValueError("--network trains from scratch and --backbone names a frozen network: give one of them")
    needs_torch("--finetune" if finetune else "--network")
    if resume and output is None:
        raise ValueError("--resume goes on from the state beside the model file: name it with --output")


def _wishes(
    network: str | None,
    link: str | None,
    temperature: float | None,
    head: str | None,
    epochs: int | None,
    minutes: float | None,
    recipe: str | None,
) -> dict[str, Any]:
    """How the network is to be trained, checked before any data is read."""
    from luce.heads import at_test_time
    from luce.links import Softmax, parse_link
    from luce.torch.fit import wishes

    if minutes is not None and (epochs is not None or not 0 < minutes < math.inf):
        raise ValueError("--minutes must be a positive number, and stand alone or --epochs alone")
    parsed: Any = None if link is None else parse_link(link)
    if temperature is not None:
        parsed = dataclasses.replace(parsed or Softmax(), temperature=temperature)
    if parsed is not None:
        at_test_time(parsed)  # says whether a model file can hold it
    return wishes(network=network, link=parsed, head=head, epochs=epochs, settings=recipe)


def _listeners(log: Path | None, tensorboard: Path | None) -> list[Any]:
    """What is told of each epoch."""
    from luce.files import check_writable
    from luce.torch import log as logs

    listeners = []
    if log is not None:
        check_writable(log)
        listeners.append(logs.json_lines(log))
    if tensorboard is not None:
        logs.check_tensorboard()
        listeners.append(logs.tensorboard(tensorboard))
    return listeners


def _class_weight(text: str | None) -> Any:
    return text if text in (None, "balanced") else named_numbers("--class-weight", text)


def _prior(text: str) -> Any:
    return text if text in ("train", "uniform") else named_numbers("--prior", text)


def _figures(result: Any) -> dict[str, Any]:
    names = ("accuracy", "accuracy_low", "accuracy_high", "nll", "brier", "ece", "ece_uncalibrated")
    figures = dict.fromkeys(names) | {"n_test": 0}
    if result.evaluation is not None:
        figures |= result.evaluation.metrics.to_dict()
    return figures | {
        "temperature": result.classifier.temperature,
        "classes": list(result.classifier.classes),
        "n_train": result.n_train,
        "n_cached": result.n_cached,
        "seconds": round(result.seconds, 3),
        "problems": [problem.to_dict() for problem in result.problems],
    }


def _print_summary(result: Any, output: Path | None, report: Path | None) -> None:
    classifier = result.classifier
    if result.evaluation is not None:
        print_metrics(result.evaluation.metrics, classifier.temperature, "held-out pictures")
    kinds = Counter(problem.kind for problem in result.problems)
    if kinds:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        print(f"Data         {listed} (see the report, or `luce check`)")
    if output is not None:
        print(f"Model        {output} ({file_size(len(classifier.data))})")
    if report is not None:
        print(f"Report       {report}")
    print(f"Time         {result.seconds:.1f} s")
