"""Softmax beside plain normalisation: what a shift and a factor do to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce import functions, links
from luce.plots.page import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = np.array([0.7, 3.1, 0.6])
CHANGES = {
    "the numbers as they are": NUMBERS,
    "5 added to each: softmax is the same": NUMBERS + 5,
    "each times 2: plain normalisation is the same": NUMBERS * 2,
}


def normalize(*, dark: bool = False) -> Figure:
    """Softmax ignores what is added to all numbers, plain normalisation ignores a common factor.

    Args:
        dark: for a dark background.
    """
    at = np.arange(3) * 2.4
    with page(450, "Softmax or plain normalisation", "exp(x) or x, divided by the sum", dark=dark) as p:
        for i, (change, numbers) in enumerate(CHANGES.items()):
            axes = p.panel(284 - 128 * i, 64, left=14, width=372)
            p.bars(axes, at - 0.44, links.softmax(numbers), f"softmax, {change}", "blue", ".4f")
            p.bars(axes, at + 0.44, functions.normalize(numbers), f"normalize, {change}", "vermilion", ".4f")
            axes.axhline(0, color=p.theme.muted, linewidth=1)
            axes.set(xlim=(-1, 5.8), ylim=(0, 1))
            for x, number in zip(at, numbers, strict=True):
                p.note(axes, (x, 0), f"{number:.1f}", move=(0, -5), hue="ink", ha="center", va="top")
            p.note(axes, (0, 1), change, of="axes fraction", hue="ink", move=(0, 24))
            if i == 0:
                p.note(axes, (5.7, 0.86), "softmax", hue="blue", ha="right")
                p.note(axes, (5.7, 0.62), "plain normalisation", hue="vermilion", ha="right")
    return p.figure
