"""A report as HTML."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from luce.report import numbers, svg
from luce.report.cards import cards
from luce.report.content import ClassScores, Problem, Report
from luce.report.numbers import counted, percent, span

MOST_TABLED = 25  # classes whose confusion matrix is a table with numbers; more are drawn
MOST_OPEN = 40  # classes whose scores are all open to view; of more, the weakest
MOST_LISTED = 200  # problems of a kind that are listed
_N_WEAKEST = 20
_N_PAIRS = 20
_FEW = 100  # pictures below which the page says that its figures are uncertain
_GOOD_ECE, _GOOD_ECE_HIGH = 0.05, 0.10  # up to here "right about 8 times in 10" is fair

_KINDS = {
    "unreadable": ("Unreadable files", "Left out; nothing was put in their place."),
    "noted": ("Repaired while reading", "Used, with what had to be decided about them."),
    "duplicate": ("Identical files", "Kept on the same side of the split."),
    "odd-size": ("Odd sizes", "Used, but look at them."),
    "tiny-class": ("Classes with few pictures", "Too few to learn from and to measure."),
    "imbalance": ("Classes of very different size", ""),
    "missing-class": ("Classes without pictures", ""),
    "unknown-class": ("Unknown classes", "The model does not know them, so their pictures were left out."),
}


@dataclass(frozen=True, slots=True)
class _Pair:
    truth: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class _Problems:
    title: str
    meaning: str
    total: int
    listed: list[Problem]


def render(report: Report) -> str:
    """Write a report as one HTML page.

    The page refers to nothing outside itself and says so to the browser (a content security policy). Equal reports
    give equal pages.

    Args:
        report: what to say.

    Returns:
        The page, to be encoded as UTF-8.

    Raises:
        ValueError: a bin with pictures lacks its values, or a per-class row is missing.
    """
    classes, counts = report.confusion.classes, np.asarray(report.confusion.counts, np.int64)
    if report.per_class and [row.name for row in report.per_class] != list(classes):
        raise ValueError("render: per_class must have one row for each class of the confusion matrix, in its order")
    script = (Path(__file__).parent / "report.js").read_text(encoding="utf-8")
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    n_mistakes = int(counts.sum() - np.trace(counts))
    return _environment().get_template("report.html.jinja").render(
        r=report,
        s=report.summary,
        pictures=_pictures(report),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lead=_accuracy_sentence(report),
        lead_calibration=_calibration_sentence(report),
        notes=_notes(report),
        cards=cards(report),
        panels=_panels(report),
        few=svg.FEW,
        matrix=_matrix(counts) if len(classes) <= MOST_TABLED else None,
        grid=None if len(classes) <= MOST_TABLED else svg.heat_grid(counts, classes),
        block=svg.block_size(len(classes)),
        shares=[svg.shade_from(level) for level in range(1, svg.LEVELS + 1)],
        pairs=_pairs(report),
        weakest=_weakest(report.per_class),
        n_mistakes=n_mistakes,
        problems=_problem_groups(report),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (numbers.percent, numbers.decimal, numbers.count, numbers.counted, numbers.duration, numbers.span):
        environment.filters[write.__name__] = write
    environment.globals["recall_bar"] = svg.recall_bar
    return environment


def _pictures(report: Report) -> str:
    kind = "held-out picture" if report.held_out else "picture"
    return counted(report.summary.n_test, kind)


def _accuracy_sentence(report: Report) -> tuple[str, str, str]:
    """Before the figure, the figure, and after it."""
    s = report.summary
    if s.accuracy is None or s.n_test == 0:
        return "Not measured: ", "", "no pictures were held out, so how good this classifier is remains unknown."
    interval = span(percent(s.accuracy_low), percent(s.accuracy_high))
    return "Right on ", percent(s.accuracy), f" of {_pictures(report)} ({interval}, 95{numbers.NBSP}% interval)."


def _calibration_sentence(report: Report) -> str:
    s = report.summary
    if s.ece is None or s.n_test == 0:
        return ""
    error = f"calibration error {percent(s.ece)}."
    if s.ece <= _GOOD_ECE and (s.ece_high is None or s.ece_high <= _GOOD_ECE_HIGH):
        return f"When it says 80{numbers.NBSP}%, it is right about 8 times in 10: {error}"
    n = sum(b.count for b in report.reliability)
    excess = sum(b.count * ((b.confidence or 0) - (b.accuracy or 0)) for b in report.reliability) / max(n, 1)
    side = ""
    if abs(excess) > s.ece / 2:
        side = ", mostly too sure" if excess > 0 else ", mostly too cautious"
    return f"What it says is off by {100 * s.ece:.1f} percentage points on average{side}: {error}"


def _notes(report: Report) -> list[str]:
    notes = list(report.notes)
    if 0 < report.summary.n_test < _FEW:
        notes.append(f"Only {_pictures(report)}: every figure here is uncertain, so read the intervals, not the values.")
    return notes


def _panels(report: Report) -> list[dict[str, Any]]:
    """The reliability diagrams: after and before calibration, or the only one."""
    after = {"title": "Reliability", "kind": "after", "bins": report.reliability}
    panels = [after]
    if report.summary.calibrated and report.reliability_uncalibrated:
        after["title"] = "After calibration"
        panels.append({"title": "Before calibration", "kind": "before", "bins": report.reliability_uncalibrated})
    for panel in panels:
        panel["drawing"] = svg.reliability(panel["bins"], name=panel["title"], kind=panel["kind"])  # type: ignore[arg-type]
    return panels if report.reliability else []


def _matrix(counts: NDArray[np.int64]) -> list[list[tuple[int, str, str]]]:
    """For each cell its count, its share of the row, and the class of its colour."""
    level = svg.shades(counts)
    rows = []
    for i, row in enumerate(counts):
        total = int(row.sum())
        cells = []
        for j, n in enumerate(row):
            colour = f"{'right' if i == j else 'wrong'}{level[i, j]}" if n else "none"
            cells.append((int(n), f"{100 * n / total:.0f}" if total else numbers.DASH, colour))
        rows.append(cells)
    return rows


def _pairs(report: Report) -> list[_Pair]:
    """Who is most often taken for whom."""
    counts, classes = np.array(report.confusion.counts, np.int64), report.confusion.classes
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    truth, predicted = np.nonzero(counts)
    order = np.argsort(-counts[truth, predicted], kind="stable")[:_N_PAIRS]
    return [
        _Pair(classes[i], classes[j], int(counts[i, j]), float(counts[i, j] / totals[i]))
        for i, j in zip(truth[order], predicted[order], strict=True)
    ]


def _weakest(rows: Any) -> list[ClassScores]:
    """Of many classes, those that are found least often; empty where all are shown."""
    if len(rows) <= MOST_OPEN:
        return []
    known = [row for row in rows if row.recall is not None]
    return sorted(known, key=lambda row: row.recall)[:_N_WEAKEST]


def _problem_groups(report: Report) -> list[_Problems]:
    """Problems by kind, the most frequent kind first."""
    listed: dict[str, list[Problem]] = {}
    for problem in report.problems:
        listed.setdefault(problem.kind, []).append(problem)
    totals = Counter({kind: len(found) for kind, found in listed.items()}) | Counter(report.problems_total)
    groups = []
    for kind, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        title, meaning = _KINDS.get(kind, (kind.replace("-", " ").capitalize(), ""))
        groups.append(_Problems(title, meaning, total, listed.get(kind, [])[:MOST_LISTED]))
    return groups
