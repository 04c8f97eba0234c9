"""The drawings of a report: inline SVG, coloured by the classes of report.css."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from luce.metrics import Bin
from luce.report.numbers import count, counted, percent, span

FEW = 10  # pictures in a bin below which its mark is drawn paler
LEVELS = 8  # shades of a heat map
MOST_CELLS = 200  # per side of a drawn heat map; more classes are drawn in blocks

_MOST_LABELS = 50  # per side
_LABEL_LENGTH = 18

# the reliability diagram, in its own units
_LEFT, _TOP, _SIDE, _GAP, _BAR, _WIDTH = 72, 12, 390, 66, 76, 492
_HIST = _TOP + _SIDE + _GAP  # top of the histogram
_HEIGHT = _HIST + _BAR + 46


def reliability(bins: Sequence[Bin], *, name: str, kind: str) -> Markup:
    """Draw a reliability diagram with a histogram of the confidences below.

    Args:
        bins: empty ones are left out.
        name: of the drawing, for who cannot see it.
        kind: "after" (round marks) or "before" (diamonds).
    """
    full = [b for b in bins if b.count]
    parts = [*_frame(), *_histogram(full)]
    most = max((b.count for b in full), default=1)
    for b in full:
        parts.append(_bin_mark(b, most, kind))
    description = (
        f"{counted(len(full), 'bin')} of confidence with the share that was right in each; "
        "the table below has the numbers."
    )
    return _svg(_WIDTH, _HEIGHT, f"diagram {kind}", parts, name=f"{name}. {description}")


def _x(fraction: float) -> float:
    return _LEFT + _SIDE * fraction


def _y(fraction: float) -> float:
    return _TOP + _SIDE * (1 - fraction)


def _frame() -> list[Markup]:
    """Grid, diagonal, axes and their labels."""
    left, right, top, bottom = _x(0), _x(1), _y(1), _y(0)
    parts = [
        Markup('<path class="over" d="M{} {}H{}V{}z"/>').format(*map(_n, (left, bottom, right, top))),
        Markup('<rect class="plane" x="{}" y="{}" width="{}" height="{}"/>').format(left, top, _SIDE, _SIDE),
    ]
    for tick in range(0, 101, 20):
        x, y = _n(_x(tick / 100)), _n(_y(tick / 100))
        parts += [
            Markup('<path class="grid" d="M{} {}V{}M{} {}H{}"/>').format(x, top, bottom, left, y, right),
            Markup('<text x="{}" y="{}" text-anchor="end" dy=".35em">{}</text>').format(left - 7, y, f"{tick} %"),
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x, bottom + 19, f"{tick} %"),
        ]
    middle = _y(0.5)
    parts += [
        Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(left, bottom, right, top),
        _text(_x(0.04), _y(0.94), "right more often than it says", "hint"),
        _text(_x(0.97), _y(0.04), "right less often than it says", "hint end"),
        _text(_x(0.5), bottom + 40, "what it says (confidence)", "axis mid"),
        Markup('<text class="axis mid" transform="translate(16 {}) rotate(-90)">how often it is right</text>').format(
            _n(middle)
        ),
    ]
    return parts


def _histogram(bins: Sequence[Bin]) -> list[Markup]:
    base = _HIST + _BAR
    most = max((b.count for b in bins), default=1)
    parts = [
        Markup('<path class="rule" d="M{} {}H{}"/>').format(_LEFT, base, _x(1)),
        _text(_LEFT - 7, _HIST + 5, count(most) if bins else "", "end"),
        _text(_LEFT - 7, base, "0", "end"),
        _text(_x(0), base + 19, "0 %", "mid"),
        _text(_x(0.5), base + 36, "pictures at each confidence", "axis mid"),
        _text(_x(1), base + 19, "100 %", "mid"),
    ]
    for b in bins:
        height = _BAR * b.count / most
        title = f"{percent(b.low)} to {percent(b.high)}: {counted(b.count, 'picture')}"
        parts.append(
            Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                _n(_x(b.low) + 1), _n(base - height), _n(_SIDE * (b.high - b.low) - 2), _n(height), title
            )
        )
    return parts


def _bin_mark(b: Bin, most: int, kind: str) -> Markup:
    """Gap to the diagonal, interval, and a mark whose area grows with the number of pictures."""
    if b.confidence is None or b.accuracy is None or b.accuracy_low is None or b.accuracy_high is None:
        raise ValueError(f"reliability: the bin {b.low:g} to {b.high:g} has {b.count} pictures but no values")
    x, y, r = _x(b.confidence), _y(b.accuracy), 3.5 + 4.5 * float(np.sqrt(b.count / most))
    low, high = _n(_y(b.accuracy_low)), _n(_y(b.accuracy_high))
    title = (
        f"Says {percent(b.confidence)}, is right {percent(b.accuracy)} "
        f"({span(percent(b.accuracy_low), percent(b.accuracy_high))}); {counted(b.count, 'picture')}"
    )
    left, right = _n(x - 4), _n(x + 4)
    whisker = f"M{left} {high}H{right}M{_n(x)} {high}V{low}M{left} {low}H{right}"
    if kind == "after":
        mark = Markup('<circle class="mark" cx="{}" cy="{}" r="{}"/>').format(_n(x), _n(y), _n(r))
    else:
        d = 1.25 * r
        diamond = f"M{_n(x)} {_n(y - d)}L{_n(x + d)} {_n(y)}L{_n(x)} {_n(y + d)}L{_n(x - d)} {_n(y)}z"
        mark = Markup('<path class="mark" d="{}"/>').format(diamond)
    group = Markup('<g class="few">') if b.count < FEW else Markup("<g>")
    return group + Markup(
        '<title>{}</title><path class="gap" d="M{} {}V{}"/><path class="whisker" d="{}"/>{}</g>'
    ).format(title, _n(x), _n(_y(b.confidence)), _n(y), whisker, mark)


def gauge(
    value: float | None,
    low: float | None,
    high: float | None,
    most: float,
    *,
    before: float | None = None,
    reference: float | None = None,
) -> Markup:
    """Draw a scale from 0 to `most`: the interval as a band, the value as a dot.

    Args:
        value: where the dot stands; what lies beyond the scale stands at its end.
        low: of the interval.
        high: of the interval.
        most: the right end of the scale.
        before: a diamond, the value before calibration.
        reference: a tick, what a simple rule would reach.
    """

    def x(v: float) -> float:
        return 8 + 184 * min(max(v / most, 0.0), 1.0)

    parts = [Markup('<path class="track" d="M8 12H192"/>')]
    if low is not None and high is not None:
        parts.append(Markup('<path class="band" d="M{} 12H{}"/>').format(_n(x(low)), _n(x(high))))
    if reference is not None:
        parts.append(Markup('<path class="tick" d="M{} 3V21"/>').format(_n(x(reference))))
    if before is not None:
        parts.append(Markup('<path class="was" d="M{} 5l6 7l-6 7l-6-7z"/>').format(_n(x(before))))
    if value is not None:
        parts.append(Markup('<circle class="dot" cx="{}" cy="12" r="6"/>').format(_n(x(value))))
    return Markup('<svg class="gauge" viewBox="0 0 200 24" aria-hidden="true">{}</svg>').format(_join(parts))


def recall_bar(value: float | None, low: float | None, high: float | None) -> Markup:
    """Draw a bar from 0 to 100 % with its interval as a whisker; the numbers stand beside it."""
    parts = [Markup('<path class="track" d="M0 8H120"/>')]
    if value is not None:
        parts.append(Markup('<path class="fill" d="M0 8H{}"/>').format(_n(120 * value)))
    if low is not None and high is not None:
        a, b = _n(120 * low), _n(120 * high)
        parts.append(Markup('<path class="whisker" d="M{} 4V12M{} 8H{}M{} 4V12"/>').format(a, a, b, b))
    return Markup('<svg class="recall" viewBox="-1 0 122 16" aria-hidden="true">{}</svg>').format(_join(parts))


def shades(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the shade of each cell, 0 (empty) … 8, by the square root of its share of its row, (K, K)."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    level = 1 + np.minimum(np.floor(np.sqrt(share) * LEVELS), LEVELS - 1)
    return np.asarray(np.where(counts > 0, level, 0), np.int64)


def shade_from(level: int) -> float:
    """Give the smallest share of a row that has this shade."""
    return ((level - 1) / LEVELS) ** 2


def block_size(n_classes: int) -> int:
    """How many classes in a row share one cell of the drawn heat map."""
    return -(-n_classes // MOST_CELLS)


def heat_grid(counts: NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """Draw a confusion matrix by shades alone, for more classes than a table can show.

    Args:
        counts: (K, K); rows are the truth.
        classes: the K names; every few are written at the sides.
    """
    block = block_size(len(classes))
    starts = np.arange(0, len(classes), block)
    blocks = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    n, margin, side = len(starts), 150, 600
    scale = side / n
    parts = [Markup('<rect class="plane" x="{0}" y="10" width="{1}" height="{1}"/>').format(margin, side)]
    parts.append(
        Markup('<g transform="translate({} 10) scale({})">{}</g>').format(
            margin, f"{scale:.6g}", _heat_cells(shades(blocks))
        )
    )
    for i in range(0, n, -(-n // _MOST_LABELS)):
        middle, label = scale * (i + 0.5), _name_label(classes[starts[i]])
        parts += [
            Markup('<text class="name" transform="translate({} {})">{}</text>').format(
                margin - 6, _n(10 + middle), label
            ),
            Markup('<text class="name" transform="translate({} {}) rotate(-90)">{}</text>').format(
                _n(margin + middle), 10 + side + 6, label
            ),
        ]
    parts += [
        Markup('<text class="axis mid" transform="translate(14 {}) rotate(-90)">truth</text>').format(10 + side // 2),
        _text(margin + side / 2, side + 160, "predicted", "axis mid"),
    ]
    name = f"Confusion matrix of {len(classes):,} classes; the table below lists the pairs confused most often."
    return _svg(margin + side + 10, side + 170, "heatmap", parts, name=name)


def _heat_cells(level: NDArray[np.int64]) -> Markup:
    """One path for each shade of what is right, on the diagonal, and of what is wrong."""
    right = np.eye(len(level), dtype=bool)
    paths = []
    for kind, mask in (("right", right), ("wrong", ~right)):
        for shade in range(1, LEVELS + 1):
            runs = _runs((level == shade) & mask)
            if runs:
                paths.append(Markup('<path class="{}{}" d="{}"/>').format(kind, shade, runs))
    return _join(paths)


def _runs(mask: NDArray[np.bool_]) -> str:
    """Path data: one rectangle of height 1 for every horizontal run of true cells."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    step = np.diff(padded, axis=1)
    rows, begins = np.nonzero(step == 1)
    ends = np.nonzero(step == -1)[1]
    return "".join(f"M{b} {r}h{e - b}v1h-{e - b}z" for r, b, e in zip(rows, begins, ends, strict=True))


def _name_label(name: str) -> Markup:
    if len(name) <= _LABEL_LENGTH:
        return escape(name)
    end = _LABEL_LENGTH - 1
    while end > 1 and (unicodedata.combining(name[end]) or name[end] in "\u200d\ufe0f"):
        end -= 1
    return Markup("<title>{}</title>{}…").format(name, name[:end])


def _text(x: float, y: float, text: str, classes: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(classes, _n(x), _n(y), text)


def _svg(width: int, height: int, classes: str, parts: Iterable[Markup], *, name: str) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        classes, width, height, name, _join(parts)
    )


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _n(value: float) -> str:
    """At most two digits after the point, and no more than needed."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
