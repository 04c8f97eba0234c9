"""What the temperature does to the probabilities of fixed logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import softmax
from luce.plots.page import Page, page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGITS = np.array([3.0, 2.0, 1.0])
HUES = ("blue", "vermilion", "green")
BARS = (0.25, 1.0, 4.0)
_NAMES = ((0.45, (-10, -8)), (0.6, (-8, 8)), (1.3, (5, -8)))  # the temperature at which each is named


def temperature(*, dark: bool = False) -> Figure:
    """Low temperatures sharpen the probabilities towards the largest logit, high ones level them.

    Args:
        dark: for a dark background.
    """
    temperatures = np.geomspace(0.1, 40, 241)
    curves = np.stack([softmax(LOGITS, temperature=float(t)) for t in temperatures], axis=-1)
    with page(408, "Temperature sharpens or levels", "softmax(z / T) of the logits z = [3, 2, 1]", dark=dark) as p:
        axes = p.chart(170, 158, x="temperature T", y="probability")
        axes.axvline(1, color=p.theme.muted, linewidth=1, zorder=1)
        for logit, curve, hue, (t, move) in zip(LOGITS, curves, HUES, _NAMES, strict=True):
            line = p.curve(axes, temperatures, curve, f"logit {logit:.0f}", hue)
            p.name(line, t, move, ha="right" if move[0] < 0 else "left")
        p.note(axes, (0.1, 0.62), "T → 0: the largest\nlogit takes all", move=(6, 0))
        p.note(axes, (40, 0.62), "T → ∞: all equal", move=(-2, 0), ha="right")
        axes.set(xscale="log", xlim=(0.1, 40))
        axes.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        axes.set_xticks([], minor=True)
        probabilities(axes)
        for i, t in enumerate(BARS):
            _bars(p, t, 44 + 120 * i)
    return p.figure


def _bars(p: Page, temperature: float, left: float) -> None:
    axes = p.panel(30, 78, left=left, width=100)
    for i, value in enumerate(softmax(LOGITS, temperature=temperature)):
        p.bars(axes, [i], [value], f"T = {temperature:g}, logit {LOGITS[i]:.0f}", HUES[i], ".2f")
    axes.axhline(0, color=p.theme.muted, linewidth=1)
    axes.set(xlim=(-0.6, 2.6), ylim=(0, 1))
    p.note(axes, (1, 0), f"T = {temperature:g}", move=(0, -6), hue="ink", ha="center", va="top")
