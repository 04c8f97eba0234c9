"""What a comparison found: runs with seeds, means with intervals, differences paired by seed, as a table and as JSON.

Intervals are Student's t over the seeds, 95 %: they say what another seed of the same training would change, not what
other test pictures would.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from luce.metrics import Estimate, t_interval

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One training, measured on the test pictures.

    Attributes:
        variant: its name in the comparison.
        seed: of everything random in it.
        identity: what makes it this training, see `luce.torch.checkpoint.identity`.
        accuracy: share of the pictures that were right.
        nll: mean negative log-likelihood of the link's own probabilities in nats; infinite where one was 0.
        brier: their mean squared error, 0 … 2.
        ece: their expected calibration error.
        temperature: fitted on pictures that were not trained on, as `luce train` does it.
        nll_calibrated, ece_calibrated: the same figures at that temperature.
        epochs: trained.
        seconds: of the training.
    """

    variant: str
    seed: int
    identity: str
    accuracy: float
    nll: float
    brier: float
    ece: float
    temperature: float
    nll_calibrated: float
    ece_calibrated: float
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several ways to train, each with the same seeds.

    Attributes:
        data: name of the data set.
        n_train: pictures trained on.
        n_test: pictures measured.
        recipes: by name of the variant, the first is what the others are compared with.
        runs: finished ones.
    """

    data: str
    n_train: int
    n_test: int
    recipes: Mapping[str, Mapping[str, Any]]
    runs: tuple[Run, ...]

    def values(self, variant: str, figure: str) -> dict[int, float]:
        """A figure of each finished run of a variant, by seed."""
        found: dict[int, float] = {run.seed: getattr(run, figure) for run in self.runs if run.variant == variant}
        return dict(sorted(found.items()))

    def mean(self, variant: str, figure: str) -> Estimate | None:
        """Mean of a figure over the seeds."""
        return t_interval(list(self.values(variant, figure).values()))

    def difference(self, variant: str, figure: str) -> Estimate | None:
        """Mean over the seeds of a figure minus that of the first variant with the same seed."""
        own, other = self.values(variant, figure), self.values(next(iter(self.recipes)), figure)
        return t_interval([own[seed] - other[seed] for seed in own if seed in other])

    def to_json(self) -> str:
        """The comparison as JSON; an infinite figure is null."""
        summary = {
            name: {
                figure: {"mean": _plain(self.mean(name, figure)), "difference": _plain(self.difference(name, figure))}
                for figure in ("accuracy", "nll", "brier", "ece", "nll_calibrated", "ece_calibrated")
            }
            for name in self.recipes
        }
        content = {
            "format": FORMAT,
            "data": self.data,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "recipes": {name: dict(recipe) for name, recipe in self.recipes.items()},
            "runs": [{key: _finite(value) for key, value in asdict(run).items()} for run in self.runs],
            "summary": summary,
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"

    def table(self) -> list[list[str]]:
        """Rows of words, the head first: what people read, and Markdown is made of."""
        rows = [["", "accuracy %", "minus the first", "NLL", "ECE %", "NLL, calibrated", "ECE %, calibrated"]]
        first = next(iter(self.recipes))
        for name in self.recipes:
            against = "" if name == first else _words(self.difference(name, "accuracy"), 100, 2, sign="+")
            rows.append(
                [
                    name,
                    _words(self.mean(name, "accuracy"), 100, 2),
                    against,
                    _words(self.mean(name, "nll"), 1, 4),
                    _words(self.mean(name, "ece"), 100, 2),
                    _words(self.mean(name, "nll_calibrated"), 1, 4),
                    _words(self.mean(name, "ece_calibrated"), 100, 2),
                ]
            )
        return rows

    def verdicts(self) -> list[str]:
        """For each other variant a sentence: better, worse, or no difference that these seeds could show."""
        first = next(iter(self.recipes))
        return [_verdict(name, first, self.difference(name, "accuracy")) for name in self.recipes if name != first]


def parse_runs(text: str) -> tuple[Run, ...]:
    """The finished runs in the JSON of a comparison.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    content = json.loads(text)
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}")
    runs: list[dict[str, Any]] = [{k: math.inf if v is None else v for k, v in run.items()} for run in content["runs"]]
    return tuple(Run(**run) for run in runs)


def _verdict(name: str, first: str, difference: Estimate | None) -> str:
    if difference is None or not math.isfinite(difference.low):
        return f"{name}: too few seeds to compare with {first}."
    value = f"{100 * difference.value:+.2f} points ({100 * difference.low:+.2f} … {100 * difference.high:+.2f})"
    if difference.low > 0:
        return f"{name} is better than {first}: {value}."
    if difference.high < 0:
        return f"{name} is worse than {first}: {value}."
    return f"{name}: no difference to {first} that these seeds show: {value}."


def _words(estimate: Estimate | None, times: float, decimals: int, sign: str = "") -> str:
    if estimate is None:
        return "–"
    if not math.isfinite(estimate.value):
        return "∞"
    mean = f"{times * estimate.value:{sign}.{decimals}f}"
    if not math.isfinite(estimate.low):
        return mean
    return f"{mean} ± {times * (estimate.high - estimate.value):.{decimals}f}"


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {key: _finite(value) for key, value in asdict(estimate).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
