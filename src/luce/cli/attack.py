"""`luce attack`: how often a model stays right when somebody changes the pictures a little."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from luce.cli.console import (
    Json,
    Quiet,
    Threads,
    needs_torch,
    percent,
    print_json,
    print_problems,
    reporter,
    with_interval,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luce.classifier import ImageClassifier
    from luce.datasets import Problem
    from luce.errors import ImageError
    from luce.images import Preparation, Source
    from luce.torch.under_attack import Robustness

EXAMPLES = (
    ("luce attack pets.onnx test-photos --eps 2/255", "each pixel may change by 2 of its 255 steps"),
    ("luce attack digits.onnx digits --eps 0.1 --method fgsm", "one step in place of many"),
    ("luce attack digits.onnx digits --eps 0.1 -o attack.png", "a picture of what fooled it"),
)
_SHOWN = 4  # pictures in the PNG


def attack(
    model: Path,
    data: str,
    /,
    *,
    method: Literal["fgsm", "pgd"] = "pgd",
    eps: str = "2/255",
    steps: Annotated[int | None, Parameter(show_default=False)] = None,
    restarts: Annotated[int | None, Parameter(show_default=False)] = None,
    limit: int = 200,
    seed: int = 0,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Attack a model: change pictures so little that nobody minds, and count how often it is still right.

    The attack knows the model and changes the prepared pixels, each by at most --eps (L-infinity), without rounding.
    It is run with several losses, since a softmax that is sure to the last bit has no gradient to follow, which is no
    robustness; right is what withstood all of them. Signs that gradients are masked are told. Where the data has
    parts, the test part is attacked, else val.

    Needs PyTorch: pip install 'luce[torch]'. The model's features must come from luce train --network, from
    efficientnet-lite0 or be the pixels.

    Args:
        model: The model file that luce train wrote.
        data: Pictures with known classes, in any form that luce train takes.
        method: fgsm, one step (Goodfellow et al. 2015), or pgd, many steps from random starts (Madry et al. 2018).
        eps: How much a pixel may change, as a share of black to white: 2/255 or 0.01.
        steps: Steps of pgd; by default 20.
        restarts: Random starts of pgd; by default 2.
        limit: Attack at most so many pictures, drawn at random.
        seed: Of the pictures drawn and the random starts.
        output: A PNG that shows pictures before and after.
        threads: Number of threads; by default one per available core.
        json: Print one JSON object with the figures.
        quiet: No progress, no sentences.
    """
    needs_torch("luce attack")
    share = _eps(eps)
    for option, value, least in (
        ("--steps", steps, 1),
        ("--restarts", restarts, 1),
        ("--limit", limit, 1),
        ("--seed", seed, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if method == "fgsm" and (steps or restarts):
        raise ValueError("--steps and --restarts belong to --method pgd: fgsm is one step")
    if output is not None:
        from luce.files import check_writable

        if output.suffix.lower() != ".png":
            raise ValueError(f"--output: must end in .png, got {output}")
        check_writable(output)
    import torch

    from luce.classifier import load_classifier
    from luce.threads import default_threads
    from luce.torch.fit import threads as torch_threads
    from luce.torch.load import load_network
    from luce.torch.under_attack import robustness

    began = time.perf_counter()
    classifier = load_classifier(model)
    with reporter(quiet=quiet) as console, torch_threads(threads or default_threads()):
        network = load_network(model)
        pixels, target, problems = _read(classifier, data, limit, seed, threads, console)
        result = robustness(
            network,
            torch.from_numpy(pixels)[..., : len(network.mean)],
            torch.from_numpy(target),
            share,
            method=method,
            temperature=classifier.temperature,
            steps=steps or 20,
            restarts=restarts or 2,
            seed=seed,
            keep=_SHOWN,
            progress=console.progress,
        )
        if output is not None:
            _draw(output, network, classifier, result, f"{method.upper()}, eps {eps}")
    if json:
        seconds = round(time.perf_counter() - began, 3)
        settings = {"method": method, "eps": share, "seed": seed, "temperature": classifier.temperature}
        print_json({**settings, **result.to_dict(), "problems": [p.to_dict() for p in problems], "seconds": seconds})
        return 0
    _print_table(result, f"{method.upper()}, eps {eps}")
    print_problems(problems)
    if output is not None:
        print(f"Pictures     {output}")
    print(*_verdict(result, eps), sep="\n")
    return 0


def _eps(text: str) -> float:
    try:
        share = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"--eps must lie in (0, 1], a share of black to white such as 2/255 or 0.01, got {text!r}")
    return share


def _read(
    classifier: ImageClassifier, data: str, limit: int, seed: int, n_threads: int | None, console: Any
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[Problem]]:
    """Prepared pixels (N, H, W, 3), their classes (N,) and what was left out."""
    import numpy as np

    from luce.backbones.extract import chunk_size
    from luce.datasets import open_dataset
    from luce.errors import DataError, ImageError
    from luce.evaluation import join_by_name, unreadable
    from luce.parallel import map_chunks
    from luce.threads import default_threads

    spec = classifier.card.preparation
    dataset, target, problems = join_by_name(
        open_dataset(data, progress=console.progress).held_out(), classifier.classes
    )
    if len(dataset) > limit:
        console.say(f"{limit:,} of {len(dataset):,} pictures, drawn at random (--limit changes it).")
        drawn = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:limit])
        dataset, target = dataset.take(drawn), target[drawn]

    def prepare(sources: Sequence[Source]) -> list[NDArray[np.uint8] | ImageError]:
        return [_prepared(source, spec) for source in sources]

    chunk, workers = chunk_size(spec), n_threads or default_threads()
    found = list(map_chunks(dataset.sources, prepare, chunk=chunk, n_threads=workers))
    problems += [unreadable(dataset, i, p) for i, p in enumerate(found) if isinstance(p, ImageError)]
    pixels = {i: p for i, p in enumerate(found) if not isinstance(p, ImageError)}
    if not pixels:
        raise DataError(f"{dataset.name}: no readable picture of a class this model knows")
    return np.stack(list(pixels.values())), target[list(pixels)], problems


def _prepared(source: Source, spec: Preparation) -> NDArray[np.uint8] | ImageError:
    from luce.errors import ImageError
    from luce.images import load

    try:
        return load(source, spec)[0]
    except ImageError as error:
        return error


def _print_table(result: Robustness, attack: str) -> None:
    print(f"Clean        {with_interval(result.clean)} on {result.n:,} pictures")
    print(f"Attacked     {with_interval(result.attacked)} by {attack}, the worst for each picture of")
    print(f"             {'':36}accuracy  no gradient")
    for variant in result.variants:
        flat = "" if variant.flat is None else percent(variant.flat)
        print(f"             {variant.name:34}{percent(variant.accuracy.value):>10}{flat:>13}".rstrip())


def _verdict(result: Robustness, eps: str) -> list[str]:
    lost = result.clean.value - result.attacked.value
    made_wrong = percent(lost / result.clean.value) if lost else "none"
    lines = [f"Changing each pixel by at most {eps} makes {made_wrong} of the pictures that are right wrong."]
    if result.signs:
        lines.append(f"Gradients look masked: {'; '.join(result.signs)}. The model may be weaker than it seems here.")
    return lines


def _draw(output: Path, network: Any, classifier: ImageClassifier, result: Robustness, attack: str) -> None:
    """The PNG of the first pictures that were made wrong."""
    import torch

    from luce.files import write_atomically
    from luce.plots import render
    from luce.torch.attack_plot import Shown, attacked
    from luce.torch.load import probabilities

    def named(picture: torch.Tensor) -> tuple[str, float]:
        with torch.no_grad():
            row = probabilities(network(picture[None].float()), classifier.card)[0]
        return classifier.classes[int(row.argmax())], float(row.max())

    shown = [
        Shown(example.before.numpy(), example.after.numpy(), *named(example.before), *named(example.after))
        for example in result.examples
    ]
    figure = attacked(shown, attack)
    write_atomically(output, render(figure, "png", title="Pictures, what an attack added, and what became of them"))
