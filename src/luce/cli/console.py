"""What the verbs share: progress, sentences, JSON, and options written NAME=VALUE."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from cyclopts import Parameter

from luce.cli import interrupt

if TYPE_CHECKING:
    from luce.datasets import Problem
    from luce.metrics import Estimate, Metrics

STDIN = "\0stdin"  # what a bare "-" becomes: the parser would take it for an option
_PLAIN_SECONDS = 5.0  # between two plain lines of the same stage

Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)]
Json = Annotated[bool, Parameter(negative="", show_default=False)]
Threads = Annotated[int | None, Parameter(show_default=False)]


class Reporter(Protocol):
    """Where progress and sentences go. An interrupt that got lost is raised again at the next progress."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is."""

    def say(self, sentence: str) -> None:
        """Say a sentence."""


class _Silent:
    def progress(self, stage: str, done: int, total: int) -> None:
        interrupt.check()

    def say(self, sentence: str) -> None:
        interrupt.check()


class _Plain:
    """Lines for a file or a pipe: one at the end of each stage, and every few seconds within it."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = self._last = 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        interrupt.check()
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._last = stage, now, now
        if done >= total or now - self._last >= _PLAIN_SECONDS:
            self._last = now
            elapsed = max(now - self._began, 1e-9)
            left = "" if done >= total else f", {(total - done) * elapsed / max(done, 1):.0f} s left"
            print(
                f"{stage}: {done:,} of {total:,} ({done / elapsed:,.0f} a second{left})",
                file=sys.stderr,
                flush=True,
            )

    def say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


class _Bars:
    """Progress bars on a terminal."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        interrupt.check()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def reporter(*, quiet: bool) -> Iterator[Reporter]:
    """Progress bars on a terminal, plain lines elsewhere, nothing when quiet; always on standard error."""
    if quiet:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Plain()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            _rate_column(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield _Bars(progress)


def _rate_column() -> Any:
    """A column with the pictures per second, empty until they are known."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    return Rate()


def print_json(value: Mapping[str, Any]) -> None:
    """One line of JSON on standard output, without NaN or infinity."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def named_numbers(option: str, text: str) -> dict[str, float]:
    """Read `NAME=NUMBER,NAME=NUMBER`.

    Raises:
        ValueError: it is written in another way.
    """
    values = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise ValueError(f"{option}: expected NAME=NUMBER,NAME=NUMBER, got {part!r}")
    return values


def needs_torch(what: str) -> None:
    """Say how to install PyTorch where it is missing.

    Raises:
        ValueError: it is.
    """
    if find_spec("torch") is None:
        raise ValueError(f"{what} needs PyTorch, which is not installed: pip install 'luce[torch]'")


def print_metrics(metrics: Metrics, temperature: float, pictures: str) -> None:
    """The figures of an evaluation, with their 95 % intervals, for people."""
    m = metrics
    print(f"Accuracy     {with_interval(m.accuracy)} on {m.n:,} {pictures}")
    print(
        f"Calibration  error {with_interval(m.ece)}; {percent(m.ece_uncalibrated.value)} before, "
        f"temperature {temperature:.3f}"
    )
    print(f"NLL          {log_loss(m.nll.value, m.n_zero)}   Brier {m.brier.value:.4f}")


def log_loss(nll: float | None, n_zero: int) -> str:
    """0.1234; or infinite, and why."""
    if n_zero:
        return f"infinite (probability 0 for the true class of {n_zero:,} picture{'s' * (n_zero != 1)})"
    return f"{nll:.4f}"


def print_problems(problems: Sequence[Problem]) -> None:
    """What was left out of the data and why, the first ten."""
    for problem in problems[:10]:
        print(f"Data         {problem.kind}: {problem.path or problem.class_name}: {problem.reason}")
    if len(problems) > 10:
        print(f"Data         … and {len(problems) - 10:,} more (--json lists them all)")


def with_interval(estimate: Estimate) -> str:
    """93.3 %  (90.1 % … 95.6 %, 95 % interval)."""
    return f"{percent(estimate.value)}  ({percent(estimate.low)} … {percent(estimate.high)}, 95 % interval)"


def file_size(n_bytes: int) -> str:
    """6.3 kB, 13.8 MB."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.1f} kB"


def percent(value: float) -> str:
    """93.3 %; what only rounds to 100 % or 0 % says so: > 99.9 %, < 0.1 %."""
    text = f"{100 * value:.1f} %"
    if value < 1 and text == "100.0 %":
        return "> 99.9 %"
    return "< 0.1 %" if value > 0 and text == "0.0 %" else text
