"""A comparison of trainings: every run, the means, and the differences to the first one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from luce.metrics import t_interval
from luce.plots.page import Page, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from luce.metrics import Estimate

_ROW = 26  # points
_LONGEST = 29  # letters of a name


def comparison(accuracies: Mapping[str, Mapping[int, float]], note: str = "", *, dark: bool = False) -> Figure:
    """Accuracy of each variant with every run as a point, and its differences to the first, paired by seed.

    Args:
        accuracies: for each variant by name the accuracy of each seed; the first variant is compared with.
        note: a line under the title.
        dark: for a dark background.
    """
    names = list(accuracies)
    first = accuracies[names[0]]
    differences = {
        name: [100 * (own[seed] - first[seed]) for seed in own if seed in first] for name, own in accuracies.items()
    }
    values = {name: [100 * v for v in own.values()] for name, own in accuracies.items()}
    tall = _ROW * len(names)
    with page(2 * tall + 166, "Accuracy, and what differs from the first", note, dark=dark) as p:
        upper = p.chart(tall + 98, tall, x="accuracy, %", left=150, width=234)
        lower = p.chart(40, tall, x=f"points more than {_short(names[0])}", left=150, width=234)
        for axes, shown in ((upper, values), (lower, differences)):
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_yticks(range(len(names)), [_short(name) for name in names])
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", labelcolor=p.theme.ink, labelsize=8.5)
            for row, name in enumerate(names):
                _row(p, axes, row, shown[name], name)
        lower.axvline(0, color=p.theme.muted, linewidth=1, zorder=1)
        p.note(upper, (0, 1), "one point a run; bar: mean, 95 % interval", move=(0, 7), of="axes fraction", va="bottom")
    return p.figure


def _row(p: Page, axes: Axes, row: int, values: list[float], name: str) -> None:
    """The runs of a variant as points, their mean and interval as a bar."""
    found: Estimate | None = t_interval(values)
    if found is None:
        return
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
    axes.scatter(values, row + np.asarray(spread), s=11, color=p.theme.muted, linewidths=0, zorder=2)
    if np.isfinite(found.low):
        axes.plot([found.low, found.high], [row, row], color=p.theme.blue, linewidth=2.2, zorder=3, label=name)
    axes.plot([found.value], [row], "|", color=p.theme.blue, markersize=12, markeredgewidth=2.4, zorder=4)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
