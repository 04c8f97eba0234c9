"""The key figures of a report, one card each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from luce.report import svg
from luce.report.content import Report
from luce.report.numbers import counted, decimal, percent, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A figure, what it means, and what to compare it with.

    Attributes:
        label: its name.
        value: the figure.
        interval: its interval.
        gauge: both, drawn from 0 to `most`.
        most: the end of the scale.
        before: the figure before calibration, or "".
        reference: what a simple rule would reach.
        reference_class: the class that the rule always says, or "".
        meaning: one line of explanation.
    """

    label: str
    value: str
    interval: str
    gauge: Markup
    most: str
    before: str = ""
    reference: str = ""
    reference_class: str = ""
    meaning: str


def cards(report: Report) -> list[Card]:
    """Make the cards of accuracy, calibration error, log loss and Brier score."""
    s, classes = report.summary, report.confusion.classes
    most_frequent, share = _most_frequent(report)
    uniform = 1 / max(len(classes), 1)
    return [
        Card(
            label="Accuracy",
            value=percent(s.accuracy),
            interval=span(percent(s.accuracy_low), percent(s.accuracy_high)),
            gauge=svg.gauge(s.accuracy, s.accuracy_low, s.accuracy_high, 1.0, reference=share),
            most="100 %",
            reference="" if share is None else f"{percent(share)} by always saying",
            reference_class=most_frequent,
            meaning="How often the most probable class is the true one. Higher is better.",
        ),
        _error_card(
            label="Calibration error (ECE)",
            write=percent,
            values=(s.ece, s.ece_low, s.ece_high),
            before=s.ece_uncalibrated if s.calibrated else None,
            before_interval=f" ({span(percent(s.ece_uncalibrated_low), percent(s.ece_uncalibrated_high))})",
            meaning="How far what it says lies from how often it is right, on average. Lower is better.",
        ),
        _error_card(
            label="Log loss (NLL)",
            write=decimal,
            values=(math.inf if s.n_zero else s.nll, s.nll_low, s.nll_high),
            before=s.nll_uncalibrated if s.calibrated else None,
            reference=f"{decimal(-math.log(uniform))} by guessing evenly",
            meaning=_surprise(report),
        ),
        _error_card(
            label="Brier score",
            write=decimal,
            values=(s.brier, s.brier_low, s.brier_high),
            reference=f"{decimal(1 - uniform)} by guessing evenly",
            meaning="Squared distance of the probabilities from the truth. Lower is better.",
        ),
    ]


def _surprise(report: Report) -> str:
    """What the log loss means, or why it is infinite."""
    if n := report.summary.n_zero:
        return f"Infinite: the true class of {counted(n, 'picture')} got probability 0, as {report.link} can give."
    return "Surprise at the true class, in nats; being sure and wrong costs most. Lower is better."


def _error_card(
    *,
    label: str,
    write: Callable[[float | None], str],
    values: tuple[float | None, float | None, float | None],
    before: float | None = None,
    before_interval: str = "",
    reference: str = "",
    meaning: str,
) -> Card:
    """Make the card of a figure that is best at 0; its scale ends at a round number above what is drawn."""
    drawn = [v for v in (*values, before) if v is not None and math.isfinite(v)]
    round_numbers = (step * 10.0**power for power in range(-2, 3) for step in (1, 2, 5))
    most = next((number for number in round_numbers if number >= max(drawn, default=0.0)), 1000.0)
    end = f"{100 * most:g} %" if write is percent else f"{most:g}"
    return Card(
        label=label,
        value=write(values[0]),
        interval=span(write(values[1]), write(values[2])),
        gauge=svg.gauge(*values, most, before=before),
        most="∞" if values[0] == math.inf else end,
        before="" if before is None else write(before) + before_interval,
        reference=reference,
        meaning=meaning,
    )


def _most_frequent(report: Report) -> tuple[str, float | None]:
    """Find the most frequent class of the measured pictures, and its share; `None` without pictures."""
    rows = np.asarray(report.confusion.counts, np.int64).sum(axis=1)
    if rows.sum() == 0:
        return "", None
    largest = int(rows.argmax())
    return report.confusion.classes[largest], float(rows[largest] / rows.sum())
