"""What a report says in words."""

from __future__ import annotations

from collections.abc import Sequence

from luce.metrics import Bin
from luce.report.content import Report
from luce.report.numbers import NBSP, counted, percent, span

_FEW = 100  # pictures below which the page says that its figures are uncertain
# "When it says 80 %, it is right about 8 times in 10" is said only where the data bears it out: a small
# calibration error, its interval too, and enough pictures around 80 % that are right about so often.
_GOOD_ECE, _GOOD_ECE_HIGH, _GOOD_GAP = 0.05, 0.10, 0.10
_AROUND_80, _ENOUGH = (0.65, 0.95), 10


def pictures(report: Report) -> str:
    """328 held-out pictures."""
    kind = "held-out picture" if report.held_out else "picture"
    return counted(report.summary.n_test, kind)


def accuracy(report: Report) -> tuple[str, str, str]:
    """Say how often it is right: what stands before the figure, the figure, and what follows."""
    s = report.summary
    if s.accuracy is None or s.n_test == 0:
        return (
            "Not measured: ",
            "",
            "no pictures were held out, so how good this classifier is remains unknown.",
        )
    interval = span(percent(s.accuracy_low), percent(s.accuracy_high))
    return "Right on ", percent(s.accuracy), f" of {pictures(report)} ({interval}, 95{NBSP}% interval)."


def calibration(report: Report) -> str:
    """Say what its probabilities are worth; "" when nothing was measured."""
    s = report.summary
    if s.ece is None or s.n_test == 0:
        return ""
    error = f"calibration error {percent(s.ece)}."
    if _says_eighty_fairly(report):
        return f"When it says 80{NBSP}%, it is right about 8 times in 10: {error}"
    excess = _excess(report.reliability)
    side, points = "", f"{100 * s.ece:.1f}"
    if points == "0.0":
        points = "less than 0.1"
    elif abs(excess) > s.ece / 2:
        side = ", mostly too sure" if excess > 0 else ", mostly too cautious"
    return f"What it says is off by {points} percentage points on average{side}: {error}"


def _says_eighty_fairly(report: Report) -> bool:
    s = report.summary
    if s.ece is None or s.ece > _GOOD_ECE or s.n_test < _FEW or (s.ece_high or 0.0) > _GOOD_ECE_HIGH:
        return False
    around = [b for b in report.reliability if _AROUND_80[0] <= (b.low + b.high) / 2 <= _AROUND_80[1]]
    n = sum(b.count for b in around)
    return n >= _ENOUGH and abs(_excess(around)) <= _GOOD_GAP


def _excess(bins: Sequence[Bin]) -> float:
    """Mean confidence minus the share that was right."""
    full = [(b.count, b.confidence, b.accuracy) for b in bins if b.count]
    total = sum(count * (confidence or 0.0) - count * (accuracy or 0.0) for count, confidence, accuracy in full)
    return total / max(sum(count for count, _, _ in full), 1)


def notes(report: Report) -> list[str]:
    """Give the notes of the report, and a warning when little was measured."""
    sentences = list(report.notes)
    if 0 < report.summary.n_test < _FEW:
        sentences.append(
            f"Only {pictures(report)}: every figure here is uncertain, so read the intervals, not the values."
        )
    return sentences
