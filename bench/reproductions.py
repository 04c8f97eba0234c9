"""The published comparisons of softmax variants, done again on two CPU cores: docs/reproductions.md.

    make bench NAME=reproductions                       everything that is not done yet; writes the page
    .venv/bin/python bench/reproductions.py mnist-links one experiment; prints only (temperatures: the last one)
    .venv/bin/python bench/reproductions.py page        writes the page without the last one, unless it is finished

Results are kept in build/reproductions, one file for each experiment, as `luce compare` keeps them: a run that was cut
off goes on. The networks are small and the trainings short, since every figure is a mean over seeds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe

from luce.files import write_atomically
from luce.links.parse import parse_link
from luce.metrics import t_interval
from luce.torch.attack import entropy, is_right, margin, pgd
from luce.torch.compare import Data, compare, prepare
from luce.torch.comparison import Comparison
from luce.torch.fit import recipe_for, threads, wishes
from luce.torch.trainer import logits_of, train_network
from luce.training import Options

RESULTS = Path(__file__).resolve().parent.parent / "build" / "reproductions"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reproductions.md"
FAMILY = (
    "softmax,taylor:degree=2,taylor:degree=4,taylor:degree=10,soft-margin:margin=0.6,sm-taylor:degree=2,margin=0.6,"
    "spherical"
)
SIX = "softmax,taylor:degree=2,soft-margin:margin=0.6,sm-taylor:degree=2,margin=0.6,spherical,sparsemax"
LARGE = ",".join(f"large-margin:margin={m},annealing=1000" for m in (1, 2, 3, 4))
PLAIN = "shift=0,turn=0,zoom=0,flip=no"  # as in the papers


@dataclass(frozen=True)
class Experiment:
    """A comparison as the command line takes it."""

    data: str
    network: str
    epochs: int
    seeds: int
    links: str = "softmax"
    heads: str = "linear"

    def command(self) -> str:
        """What to type."""
        what = f"--links {self.links}" if self.heads == "linear" else f"--heads {self.heads}"
        return (
            f"luce compare {self.data} --network {self.network} {what} --seeds {self.seeds} --epochs {self.epochs} "
            f"--recipe {PLAIN}"
        )

    def wishes(self) -> dict[str, Any]:
        """What `compare` is given, by the name of the variant."""
        from luce.cli.compare import variants

        return variants(self.network, self.links, self.heads, self.epochs, PLAIN)


EXPERIMENTS = {
    "mnist-links": Experiment("mnist", "lenet", 3, 5, FAMILY),
    "fashion-mnist-links": Experiment("fashion-mnist", "lenet", 5, 5, SIX),
    "cifar10-links": Experiment("cifar10", "lenet", 4, 5, SIX),
    "mnist-large-margin": Experiment("mnist", "lenet", 3, 5, heads=LARGE),
}

# Training temperature (Xuan et al. 2025)
TEMPERATURES = (0.25, 1.0, 4.0, 16.0)
TEMPERED = ("cifar10", "cnn:width_factor=0.5", 5)
TEMPERED_SEEDS = 3
ATTACKED, EPS, STEPS = 500, 2 / 255, 20


def tempered(data: Data, temperature: float, seed: int) -> dict[str, float]:
    """Accuracy of a network trained at a temperature, plain and under attacks with several losses."""
    _, network, epochs = TEMPERED
    wanted = wishes(network=network, link=parse_link(f"softmax:temperature={temperature}"), epochs=epochs)
    recipe = recipe_for(data.classes, len(data.train[0]), grey=False, **wanted)
    model = train_network(*data.train, len(data.classes), recipe, seed=seed)
    found = {"accuracy": float((logits_of(model, data.test[0]).argmax(1) == data.test[1]).double().mean())}
    pictures, target = data.test[0][:ATTACKED], data.test[1][:ATTACKED]
    losses = {
        "trained temperature": lambda z, y: entropy(z, y, temperature),
        "temperature 1": entropy,
        "difference of logits": margin,
    }
    right = torch.ones(len(target), dtype=torch.bool)
    for name, loss in losses.items():
        generator = torch.Generator().manual_seed(seed)
        attacked = pgd(model, pictures, target, EPS, steps=STEPS, loss=loss, generator=generator)
        survives = is_right(model, attacked, target)
        found[name] = float(survives.double().mean())
        right &= survives
    return found | {"worst": float(right.double().mean())}


def temperatures() -> dict[str, list[dict[str, float]]]:
    """Every temperature with every seed, from the file of results where it has them."""
    file = RESULTS / "temperatures.json"
    found: dict[str, list[dict[str, float]]] = json.loads(file.read_text()) if file.exists() else {}
    data = None
    for seed in range(TEMPERED_SEEDS):
        for t in TEMPERATURES:
            runs = found.setdefault(f"{t:g}", [])
            if len(runs) > seed:
                continue
            data = data or prepare(TEMPERED[0], Options(), lambda *_: None, lambda _: None)
            with threads(Options().threads):
                runs.append(tempered(data, t, seed))
            write_atomically(file, json.dumps(found, indent=1))
            print(f"temperature {t:g}, seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)
    return found


def run(name: str) -> Comparison:
    """An experiment, from its file of results where that has it."""
    experiment = EXPERIMENTS[name]
    return compare(
        experiment.data,
        experiment.wishes(),
        seeds=experiment.seeds,
        results=RESULTS / f"{name}.json",
        say=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True),
    )


def table(rows: list[list[str]]) -> str:
    """A Markdown table, its first row the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def section(name: str, title: str, said: str) -> str:
    """An experiment of `EXPERIMENTS` with its table and what it says."""
    result = run(name)
    verdicts = "\n".join(f"- {verdict}" for verdict in result.verdicts())
    setting = f"{result.n_train:,} pictures to train on, {result.n_test:,} to measure"
    head = f"## {title}\n\n{said}\n\n"
    return f"{head}`{EXPERIMENTS[name].command()}`: {setting}.\n\n{table(result.table())}\n\n{verdicts}\n"


def temperature_section() -> str:
    """The experiment on the training temperature."""
    found = temperatures()
    names = list(next(iter(found.values()))[0])
    head = ["trained at T", "accuracy %", *(f"PGD, {name}" if name != "worst" else name for name in names[1:])]
    rows = [head]
    for t, runs in found.items():
        row = [t]
        for name in names:
            interval = t_interval([100 * r[name] for r in runs])
            assert interval is not None
            row.append(f"{interval.value:.1f} ± {interval.high - interval.value:.1f}")
        rows.append(row)
    highest = f"{max(TEMPERATURES):g}"
    gained = t_interval([100 * (a["worst"] - b["worst"]) for a, b in zip(found[highest], found["1"], strict=True)])
    assert gained is not None
    supported = "supports" if gained.low > 0 else "does not support"
    data, network, epochs = TEMPERED
    return f"""## Training at a temperature, and attacks

Xuan, Yang & Li 2025 (arXiv 2502.20604): networks trained at a higher temperature withstand PGD better, measured at
temperature 1. Their figures are not at hand. Here: {data}, `{network}`, {epochs} epochs, {TEMPERED_SEEDS} seeds;
PGD with {STEPS} steps within {EPS * 255:g}/255 on {ATTACKED} test pictures, accuracy in %. An attack follows the
gradient of a loss: that of the softmax at the trained temperature, at temperature 1, or the difference of two logits,
which no temperature can make vanish. "worst": pictures that stay right under all three. Where an attack at temperature
1 finds less than the difference of logits, its gradient had vanished, and what looked like robustness was none.

{table(rows)}

Trained at {highest} and not at 1, the worst case changes by {gained.value:+.1f} points ({gained.low:+.1f} …
{gained.high:+.1f}, paired by seed): this {supported} the claim for such networks.
"""


INTRODUCTION = """# Published comparisons, done again

Written by `make bench NAME=reproductions`. {machine}.

Each figure is a mean over seeds with its 95 % interval after Student; differences are paired by seed (the same first
weights and the same order of pictures). They say what another seed would change, and nothing of other test pictures, of
larger networks or of longer trainings. The networks here are small, and trained for minutes, without augmentation: only
the comparison within a table counts, not the figure beside a published one. No correction is made for the number of
comparisons: of twenty without any true difference, one is found on average.
Where a paper says "better" and the line below the table says "worse" or "no difference", this data does not support the
claim for such networks.

"calibrated": after temperature scaling, powers of the link's probabilities with one exponent, fitted on a tenth of the
training pictures that was kept from the training.
"""
LINKS_SAID = """De Brébisson & Vincent 2015 (arXiv 1511.05042), error with the same network for every loss: {published}.
Banerjee et al. (SM-Taylor): some configuration of SM-Taylor beats softmax, Taylor and soft-margin on every set, without
intervals; their tables are not at hand."""
MISSING = """## Training at a temperature, and attacks

Not measured yet: `make bench NAME=reproductions` does it.
"""
SECTIONS = {
    "mnist-links": (
        "MNIST: Taylor, spherical, soft-margin, SM-Taylor",
        LINKS_SAID.format(published="softmax 0.812 %, Taylor of degree 2 0.785 %, spherical 0.828 %"),
    ),
    "fashion-mnist-links": (
        "Fashion-MNIST: the same links",
        "Banerjee et al. (SM-Taylor) claim the same for this set; their tables are not at hand.",
    ),
    "cifar10-links": (
        "CIFAR-10: the same links, and calibration",
        LINKS_SAID.format(published="softmax 8.52 %, Taylor of degree 2 8.07 %, spherical 8.37 %")
        + "\nGuo et al. 2017 (arXiv 1706.04599), LeNet-5 on CIFAR-10 with softmax: ECE 3.02 % before temperature\n"
        "scaling, 0.93 % after.",
    ),
    "mnist-large-margin": (
        "MNIST: large-margin softmax",
        "Liu et al. 2016 (arXiv 1612.02295), accuracy for margins 1 (softmax) to 4: 99.60, 99.68, 99.69, 99.69 %; a\n"
        "re-implementation (lsoftmax-pytorch), best epoch of one run: 99.37, 99.60, 99.56, 99.61 %. Here the\n"
        "margin comes in within 1,000 steps; in the paper it takes about ten times as many.",
    ),
}


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[1:]
    if chosen not in ([], ["page"]):
        for name in chosen:
            print(temperature_section() if name == "temperatures" else section(name, *SECTIONS[name]))
        return
    parts = [section(name, *said) for name, said in SECTIONS.items()]
    parts.append(MISSING if chosen and not (RESULTS / "temperatures.json").exists() else temperature_section())
    machine = f"{describe()}, torch {torch.__version__}"
    PAGE.write_text("\n".join([INTRODUCTION.format(machine=machine), *parts]))


if __name__ == "__main__":
    main()
