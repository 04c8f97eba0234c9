"""Soft-margin softmax: what the margin does to the probability and the loss of the true class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.links import SoftMargin, soft_margin_softmax
from luce.plots.page import page, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGINS = {0: "blue", 1: "green", 2: "vermilion"}
_NAMES = {0: (1.4, (-7, 3), "right"), 2: (0.6, (18, -7), "left")}


def soft_margin(*, dark: bool = False) -> Figure:
    """The margin m of soft-margin softmax asks that the true class leads by m more.

    Args:
        dark: for a dark background.
    """
    t = np.linspace(-3, 5, 241)
    pairs, target = np.stack([t, np.zeros_like(t)], axis=-1), np.zeros(t.shape, dtype=np.int64)
    note = "in training the margin m is taken off the true logit"
    with page(424, "Soft margin: lead by m more", note, dark=dark) as p:
        chances = p.chart(218, 128, y="probability of the true class, in training")
        losses = p.chart(44, 140, x="lead: true logit minus the other", y="loss")
        for margin, hue in MARGINS.items():
            chance = soft_margin_softmax(pairs, target=target, margin=margin)[:, 0]
            loss, _ = SoftMargin(margin=margin).loss_and_grad(pairs, target)
            line = p.curve(chances, t, chance, f"m = {margin}", hue)
            if margin in _NAMES:
                x, move, ha = _NAMES[margin]
                p.name(line, x, move, ha=ha)
            p.name(p.curve(losses, t, loss, f"m = {margin}", hue), -3, (-5, 0), ha="right")
        for margin in (1, 2):
            arrow = {"arrowstyle": "-|>", "color": p.theme.ink, "shrinkA": 2, "shrinkB": 1, "linewidth": 1.2}
            chances.annotate("", (margin, 0.5), (margin - 1, 0.5), arrowprops=arrow)
        chances.set(xlim=(-4.3, 5))
        chances.set_xticks(range(-3, 6), [])
        probabilities(chances)
        losses.set(xlim=(-4.3, 5), ylim=(-0.15, 5.4), xticks=range(-3, 6), yticks=range(0, 6))
    return p.figure
