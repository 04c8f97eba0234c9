"""Networks trained from scratch: time to 99.0 % on MNIST beside the usual beginner's program, and what they reach.

    make bench NAME=networks                          everything; writes docs/benchmarks.md
    .venv/bin/python bench/networks.py race           MNIST against the beginner's program; prints only
    .venv/bin/python bench/networks.py cifar10        one of the trainings: mnist, fashion-mnist, cifar10, trashnet;
                                                      prints only

The beginner's program: two convolutions 3 x 3 of 32 and 64 channels, a pool, two linear layers with dropout, batches of
64, Adadelta with learning rate 1 that falls by 0.7 an epoch, plain eager torch, the data normalised and in memory. Its
clock stands still while it is measured, after each epoch. Ours is the whole of `luce train mnist --network cnn` as a
function, from the files to the calibrated model, with the fewest epochs that reach 99.0 % (a training knows its number
of epochs from the start). Interleaved: ours, theirs, and again with the next seed; 2 threads each.

TrashNet: the embedded backbone trained on, beside the linear last layer on it as it is.

What is finished is kept in build/networks.json: a run that was cut off goes on. Delete it to measure anew.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe, write_section
from pictures import unpacked
from torch import Tensor, nn

import luce.training
from luce.datasets import open_dataset
from luce.files import write_atomically
from luce.threads import default_threads
from luce.torch.fit import fit, threads, wishes
from luce.torch.pictures import as_pictures
from luce.training import Options
from luce.training.ready import choose_backbone, make_ready

FINISHED = Path(__file__).resolve().parent.parent / "build" / "networks.json"
SEEDS = (0, 1)
WANTED = 0.99
MOST_EPOCHS = 6
# What is trained: data, network, epochs, settings, accuracy that is asked for.
TRAININGS: dict[str, tuple[str, int | None, str | None, float]] = {
    "mnist": ("cnn", None, None, 0.994),
    "fashion-mnist": ("cnn", 24, "label_smoothing=0.1,mirror=yes", 0.93),
    "cifar10": (
        "fastcnn",
        18,
        "optimizer=sgd,learning_rate=0.15,weight_decay=0.0016,label_smoothing=0.1,shift=0.0625,mirror=yes",
        0.90,
    ),
}
TUNED = "trashnet"


class Beginner(nn.Module):
    """The network of the usual first program."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
            *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of pictures (N, 1, 28, 28)."""
        logits: Tensor = self.layers(pictures)
        return logits


def mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures (N, 1, 28, 28), normalised, and class ids: to train on, to measure."""
    dataset, options = open_dataset("mnist"), Options(backbone="none")
    pixels = choose_backbone(dataset, options, lambda *_: None, lambda _: None)
    ready = make_ready(dataset, pixels, options, lambda *_: None, lambda _: None)
    train, test = (
        (as_pictures(values, pixels).permute(0, 3, 1, 2).float() / 255 - 0.1307) / 0.3081
        for values in (ready.train_values, ready.test_values)
    )
    labels = (torch.from_numpy(part.labels.astype(np.int64)) for part in (ready.to_train, ready.to_measure))
    return train.contiguous(), next(labels), test.contiguous(), next(labels)


def beginner(data: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[float, list[float]]:
    """Seconds of training until it is right often enough, and the accuracy after each epoch."""
    x, y, x_test, y_test = data
    torch.manual_seed(seed)
    model = Beginner()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    tests = torch.split(x_test, 500), torch.split(y_test, 500)
    seconds, found = 0.0, list[float]()
    while len(found) < 2 * MOST_EPOCHS and (not found or found[-1] < WANTED):
        began = time.perf_counter()
        model.train()
        for rows in torch.split(torch.randperm(len(x)), 64):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x[rows]), y[rows]))
            optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - began
        model.eval()
        with torch.no_grad():
            right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(*tests, strict=True))
        found.append(right / len(x_test))
    return seconds, found


def ours(epochs: int, seed: int) -> tuple[float, float]:
    """Seconds from the files to the calibrated model, and its accuracy."""
    began = time.perf_counter()
    result = fit("mnist", Options(seed=seed), wanted=wishes(network="cnn", epochs=epochs))
    seconds = time.perf_counter() - began
    assert result.evaluation is not None
    return seconds, result.evaluation.metrics.accuracy.value


def race() -> str:
    """The two programs in turn, as a table."""
    data, n_threads = mnist(), default_threads()
    rows, times, others = [], [], []
    for seed in SEEDS:
        epochs, accuracy, seconds = 0, 0.0, 0.0
        while accuracy < WANTED and epochs < MOST_EPOCHS:
            epochs += 1
            seconds, accuracy = ours(epochs, seed)
        with threads(n_threads):
            theirs, found = beginner(data, seed)
        times.append(seconds)
        others.append(theirs)
        rows.append(
            f"| {seed} | {seconds:.1f} | {epochs} | {accuracy:.2%} | {theirs:.1f} | {len(found)} | {found[-1]:.2%} |"
            f" {theirs / seconds:.2f} |"
        )
        print(rows[-1], flush=True)
    ratio = statistics.median(b / a for a, b in zip(times, others, strict=True))
    head = "| seed | ours, s | epochs | accuracy | beginner's, s | epochs | accuracy | ratio |\n" + "|---" * 8 + "|"
    return "\n".join([head, *rows]) + (
        f"\n\nMedian: {statistics.median(times):.1f} s against {statistics.median(others):.1f} s, {ratio:.2f} times as "
        "fast (asked: 3)."
    )


def command_of(name: str) -> str:
    """What to type for one of `TRAININGS`."""
    network, epochs, settings, _ = TRAININGS[name]
    command = f"luce train {name} --network {network}"
    command += "" if epochs is None else f" --epochs {epochs}"
    return command + ("" if settings is None else f" --recipe {settings}")


def training(name: str) -> str:
    """What one of `TRAININGS` reaches, as a row."""
    network, epochs, settings, asked = TRAININGS[name]
    began = time.perf_counter()
    wanted = wishes(network=network, epochs=epochs, settings=settings)
    result = fit(name, wanted=wanted, say=lambda text: print(text, file=sys.stderr, flush=True))
    minutes = (time.perf_counter() - began) / 60
    assert result.evaluation is not None
    m = result.evaluation.metrics
    a = m.accuracy
    return (
        f"| `{command_of(name)}` | {a.value:.2%} ({a.low:.2%} … {a.high:.2%}) | {asked:.1%} | {m.ece.value:.2%} | "
        f"{minutes:.1f} |"
    )


def kept(name: str, measure: Callable[[], str]) -> str:
    """What is finished of that name, or what is measured now."""
    found: dict[str, str] = json.loads(FINISHED.read_text()) if FINISHED.exists() else {}
    if name not in found:
        found[name] = measure()
        write_atomically(FINISHED, json.dumps(found, indent=1))
    print(found[name], flush=True)
    return found[name]


def tuned() -> str:
    """The embedded backbone with a linear last layer, and trained on, as a table."""
    rows = ["| command | accuracy, 95 % interval | ECE | minutes |", "|---|---|---|---|"]
    found, photos = [], unpacked()
    for words, train in (("", luce.training.fit), (" --finetune", functools.partial(fit, wanted=wishes(network=None)))):
        began = time.perf_counter()
        result = train(photos, say=lambda text: print(text, file=sys.stderr, flush=True))
        minutes = (time.perf_counter() - began) / 60
        assert result.evaluation is not None
        m = result.evaluation.metrics
        a = m.accuracy
        found.append(a.value)
        rows.append(
            f"| `luce train {TUNED}{words}` | {a.value:.2%} ({a.low:.2%} … {a.high:.2%}) | {m.ece.value:.2%} | "
            f"{minutes:.1f} |"
        )
        print(rows[-1], flush=True)
    gained = 100 * (found[1] - found[0])
    return "\n".join(rows) + f"\n\n{gained:+.1f} points on {m.n:,} photos (asked: 3)."


def main() -> None:
    if len(sys.argv) > 1:
        name = sys.argv[1]
        own = {"race": race, TUNED: tuned}
        print(own[name]() if name in own else training(name))
        return
    fast = kept("race", race)
    rows = [kept(command_of(name), functools.partial(training, name)) for name in TRAININGS]
    photos = kept(TUNED, tuned)
    text = f"{describe()}, torch {torch.__version__}. To {WANTED:.1%} of the test pictures of MNIST, {len(SEEDS)} seeds"
    text += f", {default_threads()} threads; ours is everything from the files to the calibrated model.\n\n{fast}"
    text += "\n\nWhat `luce train` reaches, one seed each; a tenth of the pictures calibrates.\n\n"
    text += "\n".join(["| command | accuracy, 95 % interval | asked | ECE | minutes |", "|---|---|---|---|---|", *rows])
    text += f"\n\nTrashNet's photos, the authors' own validation part.\n\n{photos}"
    write_section("Networks", "networks", text)


if __name__ == "__main__":
    main()
