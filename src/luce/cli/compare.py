"""`luce compare`: which last layer is best on a data set, by experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from luce.cli.console import Json, Quiet, Threads, needs_torch, reporter

if TYPE_CHECKING:
    from luce.torch.comparison import Comparison

EXAMPLES = (
    ("luce compare fashion-mnist --network lenet --links softmax,taylor:degree=2,sparsemax", "five seeds of each"),
    ("luce compare photos --network resnet --heads linear,arcface:margin=0.3 --seeds 3", "heads with a margin"),
    ("luce compare digits --links softmax,spherical --epochs 3 -o digits.json --json", "the figures as JSON"),
)


def compare(
    data: str,
    /,
    *,
    network: str = "cnn",
    links: str = "softmax",
    heads: str = "linear",
    seeds: int = 5,
    epochs: int | None = None,
    recipe: str | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("comparison.json"),
    plot: Annotated[Path | None, Parameter(show_default=False)] = None,
    test_share: float = 0.2,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a network with each of several last layers, several times, and say which differ.

    All see the same pictures, and for each seed the same first weights. The table has means with 95 % intervals over
    the seeds, and differences to the first one, paired by seed. Finished runs are kept in the output file: the same
    command goes on after a stop, and with more links or seeds it trains only what is missing.

    Args:
        data: Pictures in any form that luce train takes.
        network: lenet, cnn, fastcnn, vgg, resnet, inception, vit or moe, with options such as resnet:depth=20.
        links: What turns logits into probabilities, separated by commas, such as softmax,taylor:degree=2.
        heads: Last layers trained with a margin, for the softmax: linear, large-margin, sphereface, cosface, arcface,
            ensemble-margin, with options such as arcface:margin=0.3.
        seeds: How many trainings of each.
        epochs: How often a network sees every picture; by default as luce train.
        recipe: How else it is trained, NAME=VALUE,NAME=VALUE, such as learning_rate=0.001,mixup=0.2.
        output: The JSON file of the results.
        plot: A picture of the result, .svg or .png; by default none.
        test_share: Share of the pictures that is held out to measure; ignored where the data is already split.
        threads: How many trainings go side by side; by default one per available core.
        json: Print the results as one JSON object.
        quiet: No progress, no sentences.
    """
    needs_torch("luce compare")
    from luce.files import check_writable, write_atomically
    from luce.torch.compare import compare as run
    from luce.training import Options

    check_writable(output)
    if plot is not None:
        check_writable(plot)
        if plot.suffix.lower() not in (".svg", ".png"):
            raise ValueError(f"--plot: must end in .svg or .png, got {plot}")
    wanted = variants(network, links, heads, epochs, recipe)
    options = Options(test_share=test_share, n_threads=threads)
    with reporter(quiet=quiet) as console:
        result = run(
            data, wanted, seeds=seeds, results=output, options=options, progress=console.progress, say=console.say
        )
    if plot is not None:
        from luce.plots import render
        from luce.torch.comparison_plot import comparison

        figure = comparison(_accuracies(result), f"{result.data}: {network}, {seeds} seeds")
        kind: Any = plot.suffix.lower()[1:]
        write_atomically(plot, render(figure, kind, title="Accuracy of each last layer, and differences to the first"))
    if json:
        print(result.to_json(), end="", flush=True)
        return 0
    _print_table(result.table())
    print(*result.verdicts(), f"Results      {output}", *([f"Plot         {plot}"] if plot else []), sep="\n")
    return 0


def variants(network: str, links: str, heads: str, epochs: int | None, settings: str | None) -> dict[str, Any]:
    """What `recipe_for` is to be given, by the name in the table."""
    from luce.links import parse_link
    from luce.links.parse import split_specs
    from luce.torch.fit import wishes

    found: dict[str, Any] = {}
    for head in split_specs(heads):
        for link in split_specs(links):
            name = link if head == "linear" else head if link == "softmax" else f"{head} {link}"
            if name in found:
                raise ValueError(f"compare: {name} comes twice")
            found[name] = wishes(network=network, link=parse_link(link), head=head, epochs=epochs, settings=settings)
    return found


def _accuracies(result: Comparison) -> dict[str, dict[int, float]]:
    return {name: result.values(name, "accuracy") for name in result.recipes}


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        words = (w.ljust(n) if i == 0 else w.rjust(n) for i, (w, n) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(words).rstrip())
