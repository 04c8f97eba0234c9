"""A report as HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from luce.metrics import Bin
from luce.report import numbers, sentences, svg
from luce.report.cards import cards
from luce.report.content import ClassScores, Problem, Report

_HERE = Path(__file__).parent

MOST_TABLED = 25  # classes whose confusion matrix is a table with numbers; more are drawn
MOST_OPEN = 40  # classes whose scores are all open to view; of more, the weakest
MOST_LISTED = 200  # problems of a kind that are listed
_N_WEAKEST = 20
_N_PAIRS = 20
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # no HTML, or no UTF-8

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
class _Panel:
    title: str
    bins: Sequence[Bin]
    drawing: Markup


@dataclass(frozen=True, slots=True)
class _Problems:
    title: str
    meaning: str
    total: int
    listed: list[Problem]


def render(report: Report) -> str:
    """Write a report as one HTML page.

    The page refers to nothing outside itself and says so to the browser (a content security policy). Equal
    reports give equal pages. Control characters and bytes of paths that are not UTF-8 are written as �.

    Args:
        report: what to say.

    Returns:
        The page, to be encoded as UTF-8.

    Raises:
        ValueError: a bin with pictures lacks its values, or a per-class row is missing.
    """
    if report.per_class and [row.name for row in report.per_class] != list(report.confusion.classes):
        raise ValueError("render: per_class must have one row for each class of the confusion matrix, in its order")
    template = _environment().get_template("report.html.jinja")
    page = template.render(
        _assets() | _confusion(report),
        r=report,
        s=report.summary,
        pictures=sentences.pictures(report),
        lead=sentences.accuracy(report),
        lead_calibration=sentences.calibration(report),
        notes=sentences.notes(report),
        cards=cards(report),
        panels=_panels(report),
        few=svg.FEW,
        weakest=_weakest(report.per_class),
        problems=_problem_groups(report),
    )
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", page)


def _assets() -> dict[str, Any]:
    """Style and script, and the hash by which the page allows this script and no other."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (
        numbers.percent,
        numbers.decimal,
        numbers.count,
        numbers.counted,
        numbers.duration,
        numbers.span,
    ):
        environment.filters[write.__name__] = write
    environment.globals["recall_bar"] = svg.recall_bar
    return environment


def _panels(report: Report) -> list[_Panel]:
    """Draw the reliability diagrams: after and before calibration, or the only one."""
    if not report.summary.calibrated or not report.reliability_uncalibrated:
        return [_panel("Reliability", "after", report.reliability)] if report.reliability else []
    return [
        _panel("After calibration", "after", report.reliability),
        _panel("Before calibration", "before", report.reliability_uncalibrated),
    ]


def _panel(title: str, kind: str, bins: Sequence[Bin]) -> _Panel:
    return _Panel(title, bins, svg.reliability(bins, name=title, kind=kind))


def _confusion(report: Report) -> dict[str, Any]:
    """Give the confusion matrix as a table of few classes or a drawing of many, and what goes with it."""
    classes, counts = report.confusion.classes, np.asarray(report.confusion.counts, np.int64)
    tabled = len(classes) <= MOST_TABLED
    return {
        "matrix": _matrix(counts) if tabled else None,
        "grid": None if tabled else svg.heat_grid(counts, classes),
        "block": svg.block_size(len(classes)),
        "shares": [svg.shade_from(level) for level in range(1, svg.LEVELS + 1)],
        "pairs": _pairs(report),
        "n_mistakes": int(counts.sum() - np.trace(counts)),
    }


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


def _weakest(rows: Sequence[ClassScores]) -> list[ClassScores]:
    """Of many classes, those that are found least often; empty where all are shown."""
    if len(rows) <= MOST_OPEN:
        return []
    known = [row for row in rows if row.recall is not None]
    return sorted(known, key=lambda row: row.recall or 0.0)[:_N_WEAKEST]


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
