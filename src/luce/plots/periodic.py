"""Logits that repeat give probabilities that repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import softmax
from luce.plots.page import page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

HUES = ("blue", "vermilion", "green")
_NAMES = ((2.2, (6, 0)), (1.525, (-8, 11)), (0.75, (-20, 9)))  # the time at which each probability is named


def logits_at(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three logits (..., 3) with the period 1: a wave, one of twice its frequency, and 0."""
    turn = 2 * np.pi * time
    return np.stack([3 * np.sin(turn), 2 * np.cos(2 * turn), np.zeros_like(turn)], axis=-1)


def periodic(*, dark: bool = False) -> Figure:
    """Periodic logits give periodic probabilities, of the same period.

    Args:
        dark: for a dark background.
    """
    time = np.linspace(0, 2.2, 441)
    logits = logits_at(time)
    chances = softmax(logits)
    with page(404, "Periodic in, periodic out", "softmax of three logits that repeat with period 1", dark=dark) as p:
        above = p.chart(212, 114, width=292, y="logits")
        below = p.chart(44, 132, width=292, x="time in periods", y="probabilities")
        for i, hue in enumerate(HUES):
            name = f"class {i + 1}"
            p.name(p.curve(above, time, logits[:, i], name, hue), 2.2, (6, 0))
            line = p.curve(below, time, chances[:, i], name, hue)
            p.name(line, *_NAMES[i])
        for axes in (above, below):
            axes.set(xlim=(0, 2.2), xticks=range(3))
            for period in (1, 2):
                axes.axvline(period, color=p.theme.muted, linewidth=1, zorder=1)
        above.set_xticklabels([])
        above.set(ylim=(-3.3, 3.3), yticks=[-2, 0, 2])
        probabilities(below)
    return p.figure
